//! Bytes to headers. Whatever is refused here is passed to the kernel untouched: nothing says that it is ours.

use lb_common::{
    Addr, Reason,
    branchless::opaque,
    service::{PROTOCOL_TCP, PROTOCOL_UDP},
};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use crate::packet::{EthernetHdr, Frame, Packet, TcpHdr};

/// IPv4 in Ethernet.
pub const ETHER_TYPE_IPV4: [u8; 2] = 0x0800_u16.to_be_bytes();
/// IPv6 in Ethernet.
pub const ETHER_TYPE_IPV6: [u8; 2] = 0x86dd_u16.to_be_bytes();
const ETHER_TYPE_VLAN: [u8; 2] = 0x8100_u16.to_be_bytes();
const ETHER_TYPE_QINQ: [u8; 2] = 0x88a8_u16.to_be_bytes();

/// Where the IP header begins.
pub const NETWORK_OFFSET: usize = size_of::<EthernetHdr>();

/// The "more fragments" flag and the fragment offset (RFC 791, 3.1): both zero in a whole datagram.
const FRAGMENT_BITS: u16 = 0x3fff;

/// Whether an IPv4 header is of a part of a datagram.
#[inline(always)]
pub fn is_fragment(header: &Ipv4Hdr) -> bool {
    u16::from_be_bytes(header.frags) & FRAGMENT_BITS != 0
}

/// What the IP header says of what follows it.
struct Payload {
    protocol: u8,
    offset: usize,
    /// By the IP header's own account.
    bytes: usize,
}

/// Finds the packet in a frame, and writes down in `packet` what there is to know of it.
#[inline(always)]
pub fn packet(frame: &Frame, packet: &mut Packet) -> Result<(), Reason> {
    let ethernet = frame.header::<EthernetHdr>(0)?;
    let payload = match ethernet.ether_type {
        ETHER_TYPE_IPV4 => ipv4(frame, packet)?,
        ETHER_TYPE_IPV6 => ipv6(frame, packet)?,
        ETHER_TYPE_VLAN | ETHER_TYPE_QINQ => return Err(Reason::VlanTagged),
        _ => return Err(Reason::NotIp),
    };
    transport(frame, &payload, packet)?;
    packet.source_mac = ethernet.source;
    packet.bytes = frame.bytes() as u32;
    packet.transport_offset = opaque(payload.offset as u64) as u16;
    packet.destination.protocol = opaque(u64::from(payload.protocol)) as u8;
    Ok(())
}

#[inline(always)]
fn ipv4(frame: &Frame, packet: &mut Packet) -> Result<Payload, Reason> {
    let header = frame.header::<Ipv4Hdr>(NETWORK_OFFSET)?;
    if header.vihl >> 4 != 4 {
        return Err(Reason::Malformed);
    }
    let header_bytes = usize::from(header.vihl & 0xf) * 4;
    let total_bytes = usize::from(u16::from_be_bytes(header.tot_len));
    if header_bytes < size_of::<Ipv4Hdr>() || NETWORK_OFFSET + total_bytes > frame.bytes() {
        return Err(Reason::Malformed);
    }
    if is_fragment(header) {
        return Err(Reason::Fragment);
    }
    packet.source = Addr::from_v4(header.src_addr);
    packet.destination.addr = Addr::from_v4(header.dst_addr);
    packet.hop_limit = header.ttl;
    Ok(Payload {
        protocol: header.proto,
        offset: NETWORK_OFFSET + header_bytes,
        bytes: total_bytes.checked_sub(header_bytes).ok_or(Reason::Malformed)?,
    })
}

#[inline(always)]
fn ipv6(frame: &Frame, packet: &mut Packet) -> Result<Payload, Reason> {
    let header = frame.header::<Ipv6Hdr>(NETWORK_OFFSET)?;
    let bytes = usize::from(u16::from_be_bytes(header.payload_len));
    let offset = NETWORK_OFFSET + size_of::<Ipv6Hdr>();
    if header.vcf[0] >> 4 != 6 || offset + bytes > frame.bytes() {
        return Err(Reason::Malformed);
    }
    packet.source = Addr(header.src_addr);
    packet.destination.addr = Addr(header.dst_addr);
    packet.hop_limit = header.hop_limit;
    // Never on the wire (RFC 4942, 2.2), and IPv4 addresses to everything behind this.
    if packet.source.is_v4() || packet.destination.addr.is_v4() {
        return Err(Reason::Malformed);
    }
    Ok(Payload { protocol: header.next_hdr, offset, bytes })
}

#[inline(always)]
fn transport(frame: &Frame, payload: &Payload, packet: &mut Packet) -> Result<(), Reason> {
    match payload.protocol {
        PROTOCOL_TCP => {
            let header = frame.header::<TcpHdr>(payload.offset)?;
            let header_bytes = usize::from(header.data_offset >> 4) * 4;
            if header_bytes < size_of::<TcpHdr>() || header_bytes > payload.bytes {
                return Err(Reason::Malformed);
            }
            packet.source_port = header.source;
            packet.destination.port = header.destination;
            packet.tcp_flags = header.flags;
        }
        PROTOCOL_UDP => {
            let header = frame.header::<UdpHdr>(payload.offset)?;
            let datagram_bytes = usize::from(u16::from_be_bytes(header.len));
            if datagram_bytes < size_of::<UdpHdr>() || datagram_bytes > payload.bytes {
                return Err(Reason::Malformed);
            }
            packet.source_port = header.src;
            packet.destination.port = header.dst;
        }
        _ => return Err(Reason::NotTransport),
    }
    Ok(())
}
