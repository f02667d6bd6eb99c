//! TCP: a RST that the segment's sender believes (RFC 9293, 3.10.7.1; RFC 5961, 3.2).

use aya_ebpf::{helpers::bpf_xdp_adjust_tail, programs::XdpContext};
use lb_common::{
    Addr,
    reject::{TcpReset, reset_for},
    service::PROTOCOL_TCP,
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    headers::{self, Ipv4Fields, Ipv6Fields},
    packet::{EthernetHdr, Frame, Packet, TcpHdr},
    parse::{ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, NETWORK_OFFSET},
};

/// A RST has no options and no payload.
const TCP_BYTES: u16 = size_of::<TcpHdr>() as u16;

/// Makes an IPv4 segment the RST that answers it.
#[inline(always)]
pub fn v4(ctx: &XdpContext, packet: &Packet) -> Option<()> {
    const IP_BYTES: usize = size_of::<Ipv4Hdr>();
    let frame = Frame::new(ctx);
    let total = u16::from_be_bytes(frame.header::<Ipv4Hdr>(NETWORK_OFFSET).ok()?.tot_len);
    let (reset, mac) = read(&frame, packet, NETWORK_OFFSET as u32 + u32::from(total))?;
    let frame = cut(ctx, packet, NETWORK_OFFSET + IP_BYTES)?;
    headers::ethernet(frame.header::<EthernetHdr>(0).ok()?, mac, packet.source_mac, ETHER_TYPE_IPV4);
    let total = IP_BYTES as u16 + TCP_BYTES;
    headers::ipv4(frame.header(NETWORK_OFFSET).ok()?, &Ipv4Fields::answer(packet, PROTOCOL_TCP, total));
    write(frame.header(NETWORK_OFFSET + IP_BYTES).ok()?, packet, &reset);
    Some(())
}

/// The same for IPv6.
#[inline(always)]
pub fn v6(ctx: &XdpContext, packet: &Packet) -> Option<()> {
    const IP_BYTES: usize = size_of::<Ipv6Hdr>();
    let frame = Frame::new(ctx);
    let payload = u16::from_be_bytes(frame.header::<Ipv6Hdr>(NETWORK_OFFSET).ok()?.payload_len);
    let (reset, mac) = read(&frame, packet, (NETWORK_OFFSET + IP_BYTES) as u32 + u32::from(payload))?;
    let frame = cut(ctx, packet, NETWORK_OFFSET + IP_BYTES)?;
    headers::ethernet(frame.header::<EthernetHdr>(0).ok()?, mac, packet.source_mac, ETHER_TYPE_IPV6);
    headers::ipv6(frame.header(NETWORK_OFFSET).ok()?, &Ipv6Fields::answer(packet, PROTOCOL_TCP, TCP_BYTES));
    write(frame.header(NETWORK_OFFSET + IP_BYTES).ok()?, packet, &reset);
    Some(())
}

/// What the RST is to say, and our MAC address, of a segment that ends at `end`.
#[inline(always)]
fn read(frame: &Frame, packet: &Packet, end: u32) -> Option<(TcpReset, [u8; 6])> {
    let segment = frame.header::<TcpHdr>(packet.transport_offset()).ok()?;
    let begin = packet.transport_offset() as u32 + u32::from(segment.data_offset >> 4) * 4;
    let (sequence, acknowledgment) =
        (u32::from_be_bytes(segment.sequence), u32::from_be_bytes(segment.acknowledgment));
    let reset = reset_for(segment.flags, sequence, acknowledgment, end.wrapping_sub(begin))?;
    Some((reset, frame.header::<EthernetHdr>(0).ok()?.destination))
}

/// Cuts the frame to `headers_bytes` and a TCP header.
#[inline(always)]
fn cut(ctx: &XdpContext, packet: &Packet, headers_bytes: usize) -> Option<Frame> {
    let surplus = packet.bytes as i32 - (headers_bytes as i32 + i32::from(TCP_BYTES));
    // SAFETY: the program's own context; frames that are parsed again after it.
    if unsafe { bpf_xdp_adjust_tail(ctx.ctx, -surplus) } != 0 {
        return None;
    }
    Some(Frame::new(ctx))
}

#[inline(always)]
fn write(header: &mut TcpHdr, packet: &Packet, reset: &TcpReset) {
    const DATA_OFFSET: u8 = (TCP_BYTES as u8 / 4) << 4;
    let (sequence, acknowledgment) = (reset.sequence.to_be_bytes(), reset.acknowledgment.to_be_bytes());
    header.source = packet.destination.port;
    header.destination = packet.source_port;
    header.sequence = sequence;
    header.acknowledgment = acknowledgment;
    header.data_offset = DATA_OFFSET;
    header.flags = reset.flags;
    header.window = [0; 2];
    header.urgent = [0; 2];
    let (from, to): (&Addr, &Addr) = (&packet.destination.addr, &packet.source);
    let sum = headers::pseudo_header(from, to, PROTOCOL_TCP, TCP_BYTES);
    let sum = headers::new(headers::new(sum, packet.destination.port), packet.source_port);
    let sum = sum.change32([0; 4], sequence).change32([0; 4], acknowledgment);
    header.checksum = headers::finish(headers::new(sum, [DATA_OFFSET, reset.flags]));
}
