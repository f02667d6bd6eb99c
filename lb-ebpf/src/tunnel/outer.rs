//! The header in front of a packet in a tunnel. Where it is written, the packet is behind it already.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use lb_common::{
    Addr, Reason,
    service::PROTOCOL_UDP,
    tunnel::{self, OUTER_HOP_LIMIT, PROTOCOL_IPIP, PROTOCOL_IPV6},
};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use super::inner::Inner;
use crate::{
    forward::{bytes_of, readdress},
    headers::{self, Ipv4Fields, Ipv6Fields},
    packet::{EthernetHdr, Frame},
    parse::{ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, NETWORK_OFFSET},
};

const IPV4_BYTES: usize = size_of::<Ipv4Hdr>();
const IPV6_BYTES: usize = size_of::<Ipv6Hdr>();
const UDP_BYTES: usize = size_of::<UdpHdr>();

/// What it says.
pub struct Outer {
    /// Addresses, as [`crate::atomic::read_words`] has them.
    pub source: [u64; 2],
    pub destination: [u64; 2],
    /// The flow's.
    pub hash: u64,
    /// Port of UDP, its bytes in wire order; 0: none.
    pub udp_destination: u16,
    pub dont_fragment: bool,
    pub inner: Inner,
}

impl Outer {
    /// Whether it is IPv4.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        Addr::words_are_v4(self.destination)
    }

    #[inline(always)]
    pub fn has_udp(&self) -> bool {
        self.udp_destination != 0
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        match (self.has_udp(), self.inner.is_v4) {
            (true, _) => PROTOCOL_UDP,
            (false, true) => PROTOCOL_IPIP,
            (false, false) => PROTOCOL_IPV6,
        }
    }
}

/// IPv4; where the packet in it begins.
#[inline(always)]
pub fn v4(frame: &Frame, outer: &Outer, next_hop: [u64; 2]) -> Result<usize, Reason> {
    ethernet(frame, next_hop, ETHER_TYPE_IPV4)?;
    ipv4(frame, outer, IPV4_BYTES)?;
    Ok(NETWORK_OFFSET + IPV4_BYTES)
}

/// UDP in IPv4.
#[inline(always)]
pub fn v4_udp(frame: &Frame, outer: &Outer, next_hop: [u64; 2]) -> Result<usize, Reason> {
    ethernet(frame, next_hop, ETHER_TYPE_IPV4)?;
    ipv4(frame, outer, IPV4_BYTES + UDP_BYTES)?;
    udp(frame, outer, NETWORK_OFFSET + IPV4_BYTES)?;
    Ok(NETWORK_OFFSET + IPV4_BYTES + UDP_BYTES)
}

/// IPv6.
#[inline(always)]
pub fn v6(frame: &Frame, outer: &Outer, next_hop: [u64; 2]) -> Result<usize, Reason> {
    ethernet(frame, next_hop, ETHER_TYPE_IPV6)?;
    ipv6(frame, outer, 0)?;
    Ok(NETWORK_OFFSET + IPV6_BYTES)
}

/// UDP in IPv6.
#[inline(always)]
pub fn v6_udp(frame: &Frame, outer: &Outer, next_hop: [u64; 2]) -> Result<usize, Reason> {
    ethernet(frame, next_hop, ETHER_TYPE_IPV6)?;
    ipv6(frame, outer, UDP_BYTES)?;
    udp(frame, outer, NETWORK_OFFSET + IPV6_BYTES)?;
    Ok(NETWORK_OFFSET + IPV6_BYTES + UDP_BYTES)
}

#[inline(always)]
fn ethernet(frame: &Frame, next_hop: [u64; 2], ether_type: [u8; 2]) -> Result<(), Reason> {
    frame.header::<EthernetHdr>(0)?.ether_type = ether_type;
    readdress(frame.header(0)?, &next_hop);
    Ok(())
}

/// `headers_bytes` of headers, this one among them.
#[inline(always)]
fn ipv4(frame: &Frame, outer: &Outer, headers_bytes: usize) -> Result<(), Reason> {
    let [source, destination] =
        [outer.source[1], outer.destination[1]].map(|word| ((word >> 32) as u32).to_ne_bytes());
    // SAFETY: a helper without arguments.
    let random = || unsafe { bpf_get_prandom_u32() } as u16;
    let fields = Ipv4Fields {
        from: source,
        to: destination,
        protocol: outer.protocol(),
        total_bytes: (outer.inner.bytes + headers_bytes as u32) as u16,
        traffic_class: outer.inner.traffic_class,
        hop_limit: OUTER_HOP_LIMIT,
        identification: if outer.dont_fragment { None } else { Some(random()) },
    };
    headers::ipv4(frame.header(NETWORK_OFFSET)?, &fields);
    Ok(())
}

/// `headers_bytes` of headers between this one and the packet.
#[inline(always)]
fn ipv6(frame: &Frame, outer: &Outer, headers_bytes: usize) -> Result<(), Reason> {
    let fields = Ipv6Fields {
        from: bytes_of(outer.source),
        to: bytes_of(outer.destination),
        next_header: outer.protocol(),
        payload_bytes: (outer.inner.bytes + headers_bytes as u32) as u16,
        traffic_class: outer.inner.traffic_class,
        hop_limit: OUTER_HOP_LIMIT,
        flow_label: tunnel::flow_label(outer.hash),
    };
    headers::ipv6(frame.header(NETWORK_OFFSET)?, &fields);
    Ok(())
}

/// Without a checksum: the packet in it has its own, and tunnels may leave it out over IPv6, too (RFC 6935, 5).
#[inline(always)]
fn udp(frame: &Frame, outer: &Outer, offset: usize) -> Result<(), Reason> {
    let header = frame.header::<UdpHdr>(offset)?;
    header.src = tunnel::source_port(outer.hash);
    header.dst = outer.udp_destination.to_ne_bytes();
    header.len = ((outer.inner.bytes + UDP_BYTES as u32) as u16).to_be_bytes();
    header.check = [0; 2];
    Ok(())
}
