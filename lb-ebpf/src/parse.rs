//! Bytes to headers. Whatever is refused here is passed to the kernel untouched: nothing says that it is ours.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    Addr, Reason,
    branchless::opaque,
    service::{PROTOCOL_TCP, PROTOCOL_UDP},
};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use crate::{
    extensions, globals,
    packet::{EthernetHdr, Frame, Packet, TcpHdr},
};

/// IPv4 in Ethernet.
pub const ETHER_TYPE_IPV4: [u8; 2] = 0x0800_u16.to_be_bytes();
/// IPv6 in Ethernet.
pub const ETHER_TYPE_IPV6: [u8; 2] = 0x86dd_u16.to_be_bytes();
const ETHER_TYPE_VLAN: [u8; 2] = 0x8100_u16.to_be_bytes();
const ETHER_TYPE_QINQ: [u8; 2] = 0x88a8_u16.to_be_bytes();

/// Where the IP header begins.
pub const NETWORK_OFFSET: usize = size_of::<EthernetHdr>();
/// Where what follows an IPv6 header begins.
pub const IPV6_PAYLOAD: usize = NETWORK_OFFSET + size_of::<Ipv6Hdr>();

/// The "more fragments" flag and the fragment offset (RFC 791, 3.1): both zero in a whole datagram.
const FRAGMENT_BITS: u16 = 0x3fff;
/// The offset alone: zero in the first part.
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Whether an IPv4 header is of a part of a datagram.
#[inline(always)]
pub fn is_fragment(header: &Ipv4Hdr) -> bool {
    u16::from_be_bytes(header.frags) & FRAGMENT_BITS != 0
}

/// Whether a part of a datagram is another than the first.
#[inline(always)]
pub fn is_later_part(header: &Ipv4Hdr) -> bool {
    u16::from_be_bytes(header.frags) & FRAGMENT_OFFSET != 0
}

/// What the IP header, and what belongs to it, says of what follows.
struct Payload {
    protocol: u8,
    offset: usize,
    /// By the IP header's own account.
    bytes: usize,
    /// Whether it is the first of several parts.
    is_first_part: bool,
}

/// Finds the packet in a frame, and writes down in `packet` what there is to know of it. That is less of a part that is not the
/// first ([`Reason::Fragment`]): it has no ports.
#[inline(always)]
pub fn packet(ctx: &XdpContext, frame: &Frame, packet: &mut Packet) -> Result<(), Reason> {
    let ethernet = frame.header::<EthernetHdr>(0)?;
    packet.source_mac = ethernet.source;
    packet.bytes = frame.bytes() as u32;
    let payload = match ethernet.ether_type {
        ETHER_TYPE_IPV4 => ipv4(frame, packet)?,
        ETHER_TYPE_IPV6 => ipv6(ctx, frame, packet)?,
        ETHER_TYPE_VLAN | ETHER_TYPE_QINQ => return Err(Reason::VlanTagged),
        _ => return Err(Reason::NotIp),
    };
    transport(frame, &payload, packet)?;
    let part = if payload.is_first_part { Packet::FIRST_PART } else { 0 };
    packet.transport_offset = opaque(payload.offset as u64) as u16 | part;
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
    let bytes = total_bytes.checked_sub(header_bytes).ok_or(Reason::Malformed)?;
    packet.source = Addr::from_v4(header.src_addr);
    packet.destination.addr = Addr::from_v4(header.dst_addr);
    packet.hop_limit = header.ttl;
    let is_part = is_fragment(header);
    if is_part && (!globals::takes_fragments() || is_later_part(header)) {
        later_part(packet, header.proto);
        return Err(Reason::Fragment);
    }
    Ok(Payload {
        is_first_part: is_part,
        protocol: header.proto,
        offset: NETWORK_OFFSET + header_bytes,
        bytes,
    })
}

/// Writes down what a part that is not the first has in place of ports.
#[inline(always)]
fn later_part(packet: &mut Packet, protocol: u8) {
    packet.destination.protocol = protocol;
    packet.transport_offset = Packet::LATER_PART;
}

#[inline(always)]
fn ipv6(ctx: &XdpContext, frame: &Frame, packet: &mut Packet) -> Result<Payload, Reason> {
    let header = frame.header::<Ipv6Hdr>(NETWORK_OFFSET)?;
    let bytes = usize::from(u16::from_be_bytes(header.payload_len));
    let offset = IPV6_PAYLOAD;
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
    if header.next_hdr == PROTOCOL_TCP || header.next_hdr == PROTOCOL_UDP {
        return Ok(Payload { protocol: header.next_hdr, offset, bytes, is_first_part: false });
    }
    behind_extensions(ctx, packet, header.next_hdr, bytes)
}

/// What follows an IPv6 packet's extension headers.
#[inline(always)]
fn behind_extensions(
    ctx: &XdpContext,
    packet: &mut Packet,
    next_header: u8,
    bytes: usize,
) -> Result<Payload, Reason> {
    let chain = extensions::chain(ctx.ctx, next_header, IPV6_PAYLOAD)?;
    let bytes = (IPV6_PAYLOAD + bytes).checked_sub(chain.offset()).ok_or(Reason::Malformed)?;
    let is_part = chain.is_first() || chain.is_later();
    if is_part && (!globals::takes_fragments() || chain.is_later()) {
        later_part(packet, chain.protocol());
        return Err(Reason::Fragment);
    }
    Ok(Payload { protocol: chain.protocol(), offset: chain.offset(), bytes, is_first_part: chain.is_first() })
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
            // Of one in several parts the length is that of all together.
            let is_longer = datagram_bytes > payload.bytes && !payload.is_first_part;
            if datagram_bytes < size_of::<UdpHdr>() || is_longer || payload.bytes < size_of::<UdpHdr>() {
                return Err(Reason::Malformed);
            }
            packet.source_port = header.src;
            packet.destination.port = header.dst;
        }
        _ if payload.is_first_part => return Err(Reason::Fragment),
        _ => return Err(Reason::NotTransport),
    }
    Ok(())
}
