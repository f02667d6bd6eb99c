//! Which packet an ICMP error is about.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::{
    Addr, Reason, ServiceKey,
    branchless::opaque,
    life::TCP_ACK,
    service::{PROTOCOL_TCP, PROTOCOL_UDP},
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    arrival::Arrival,
    extensions,
    headers::{IcmpHdr, PROTOCOL_ICMP, PROTOCOL_ICMPV6},
    packet::{EthernetHdr, Frame, Packet},
    parse::{ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, NETWORK_OFFSET, is_fragment, is_later_part},
};

/// Where an ICMP message quotes a packet.
pub const QUOTE_V4: usize = NETWORK_OFFSET + size_of::<Ipv4Hdr>() + size_of::<IcmpHdr>();
/// See [`QUOTE_V4`].
pub const QUOTE_V6: usize = NETWORK_OFFSET + size_of::<Ipv6Hdr>() + size_of::<IcmpHdr>();

/// The least that is quoted of a packet's transport header (RFC 792).
#[repr(C)]
pub struct QuotedTransport {
    pub source: [u8; 2],
    pub destination: [u8; 2],
    /// Of UDP: length and checksum; of TCP the sequence number.
    pub rest: [u8; 4],
}

/// What [`read_quote`] returns of an ICMP error about a TCP or UDP packet.
pub const READ: i32 = 1;

/// Writes down the packet that an error quotes, the other way round; [`Packet::bytes`] is where the error ends, which is
/// not where the frame does if that is padded.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_quote(ctx: *mut xdp_md, arrival: *mut Arrival) -> i32 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    let Some(arrival) = (unsafe { arrival.as_mut() }) else { return 0 };
    let frame = Frame::new(&XdpContext::new(ctx));
    match read(ctx, &frame, &mut arrival.packet) {
        Ok(()) => READ,
        Err(_) => 0,
    }
}

#[inline(always)]
fn read(ctx: *mut xdp_md, frame: &Frame, packet: &mut Packet) -> Result<(), Reason> {
    let ethernet = frame.header::<EthernetHdr>(0)?;
    packet.source_mac = ethernet.source;
    packet.tcp_flags = TCP_ACK;
    match ethernet.ether_type {
        ETHER_TYPE_IPV4 => v4(frame, packet),
        ETHER_TYPE_IPV6 => v6(ctx, frame, packet),
        _ => Err(Reason::NotIp),
    }
}

/// "Unreachable", "time exceeded", "parameter problem".
#[inline(always)]
fn v4(frame: &Frame, packet: &mut Packet) -> Result<(), Reason> {
    let header = frame.header::<Ipv4Hdr>(NETWORK_OFFSET)?;
    let icmp = frame.header::<IcmpHdr>(NETWORK_OFFSET + size_of::<Ipv4Hdr>())?;
    let is_error = header.vihl == 0x45
        && header.proto == PROTOCOL_ICMP
        && !is_fragment(header)
        && matches!(icmp.kind[0], 3 | 11 | 12);
    if !is_error {
        return Err(Reason::NotTransport);
    }
    let quoted = frame.header::<Ipv4Hdr>(QUOTE_V4)?;
    let header_bytes = usize::from(quoted.vihl & 0xf) * 4;
    let is_header = quoted.vihl >> 4 == 4 && header_bytes >= size_of::<Ipv4Hdr>();
    // A later part has no ports; it may be the first one of several.
    if !is_header || is_later_part(quoted) || quoted.src_addr != header.dst_addr {
        return Err(Reason::NotTransport);
    }
    packet.hop_limit = header.ttl;
    packet.bytes = NETWORK_OFFSET as u32 + u32::from(u16::from_be_bytes(header.tot_len));
    let (from, to) = (Addr::from_v4(quoted.src_addr), Addr::from_v4(quoted.dst_addr));
    ports(frame, packet, quoted.proto, QUOTE_V4 + header_bytes, from, to)
}

/// The same, and "packet too big". Extension headers of the quoted packet are looked behind, those of the error are not.
#[inline(always)]
fn v6(ctx: *mut xdp_md, frame: &Frame, packet: &mut Packet) -> Result<(), Reason> {
    let header = frame.header::<Ipv6Hdr>(NETWORK_OFFSET)?;
    let icmp = frame.header::<IcmpHdr>(NETWORK_OFFSET + size_of::<Ipv6Hdr>())?;
    if header.next_hdr != PROTOCOL_ICMPV6 || !matches!(icmp.kind[0], 1..=4) {
        return Err(Reason::NotTransport);
    }
    let quoted = frame.header::<Ipv6Hdr>(QUOTE_V6)?;
    if quoted.vcf[0] >> 4 != 6 || quoted.src_addr != header.dst_addr {
        return Err(Reason::NotTransport);
    }
    let (from, to) = (Addr(quoted.src_addr), Addr(quoted.dst_addr));
    if from.is_v4() || to.is_v4() {
        return Err(Reason::NotTransport);
    }
    packet.hop_limit = header.hop_limit;
    let headers = (NETWORK_OFFSET + size_of::<Ipv6Hdr>()) as u32;
    packet.bytes = headers + u32::from(u16::from_be_bytes(header.payload_len));
    let offset = QUOTE_V6 + size_of::<Ipv6Hdr>();
    if quoted.next_hdr == PROTOCOL_TCP || quoted.next_hdr == PROTOCOL_UDP {
        return ports(frame, packet, quoted.next_hdr, offset, from, to);
    }
    let chain = extensions::chain(ctx, quoted.next_hdr, offset)?;
    if chain.is_later() {
        return Err(Reason::NotTransport);
    }
    ports(frame, packet, chain.protocol(), chain.offset(), from, to)
}

#[inline(always)]
fn ports(
    frame: &Frame,
    packet: &mut Packet,
    protocol: u8,
    offset: usize,
    from: Addr,
    to: Addr,
) -> Result<(), Reason> {
    if protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP {
        return Err(Reason::NotTransport);
    }
    // The compiler is not to see that the second of these makes the check of the header needless: the verifier does not.
    let end = packet.bytes as usize;
    if end > opaque(frame.bytes() as u64) as usize || offset + size_of::<QuotedTransport>() > end {
        return Err(Reason::Malformed);
    }
    let transport = frame.header::<QuotedTransport>(offset)?;
    packet.source = to;
    packet.source_port = transport.destination;
    packet.destination = ServiceKey::new(from, transport.source, protocol);
    packet.transport_offset = offset as u16;
    Ok(())
}
