//! An ICMP error, written anew for whoever sent the packet that it is about.
//!
//! What it quotes gets the addresses and ports that its sender gave it, and every checksum follows: the quoted IP header's,
//! the quoted transport's where it is quoted, and the message's own, which covers all of these.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::{Reason, checksum::Delta, service::PROTOCOL_UDP};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use super::quote::{QUOTE_V4, QUOTE_V6, QuotedTransport};
use crate::{
    arrival::Arrival,
    headers::IcmpHdr,
    packet::{Frame, Packet, TcpHdr},
    parse::NETWORK_OFFSET,
};

/// Writes the error as whoever it goes to knows the packet that it is about.
#[inline(always)]
pub fn write(ctx: &XdpContext, arrival: &Arrival) -> Result<(), Reason> {
    if translate_error(ctx.ctx, arrival) == WRITTEN { Ok(()) } else { Err(Reason::BadState) }
}

const WRITTEN: i32 = 1;

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn translate_error(ctx: *mut xdp_md, arrival: *const Arrival) -> i32 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    let Some(arrival) = (unsafe { arrival.as_ref() }) else { return 0 };
    let frame = Frame::new(&XdpContext::new(ctx));
    let packet = &arrival.packet;
    let written = if packet.source.is_v4() { v4(&frame, packet) } else { v6(&frame, packet) };
    if written.is_ok() { WRITTEN } else { 0 }
}

#[inline(always)]
fn v4(frame: &Frame, packet: &Packet) -> Result<(), Reason> {
    let (source, destination) = (packet.source.v4_octets(), packet.destination.addr.v4_octets());
    let quoted = frame.header::<Ipv4Hdr>(QUOTE_V4)?;
    // The router's own address stays, unless the quoted packet's other end is to be another.
    let keeps_sender = quoted.dst_addr == source;
    let addresses = Delta::NONE.change32(quoted.src_addr, destination).change32(quoted.dst_addr, source);
    let old_sum = quoted.check;
    quoted.src_addr = destination;
    quoted.dst_addr = source;
    quoted.check = addresses.apply(quoted.check);
    let message = addresses.change16(old_sum, quoted.check);
    let message = transport(frame, packet, addresses, message)?;
    let icmp = frame.header::<IcmpHdr>(NETWORK_OFFSET + size_of::<Ipv4Hdr>())?;
    icmp.checksum = message.apply(icmp.checksum);
    let header = frame.header::<Ipv4Hdr>(NETWORK_OFFSET)?;
    let sender = if keeps_sender { header.src_addr } else { source };
    let hops = [header.ttl.wrapping_sub(1), header.proto];
    let delta = Delta::NONE
        .change32(header.src_addr, sender)
        .change32(header.dst_addr, destination)
        .change16([header.ttl, header.proto], hops);
    header.check = delta.apply(header.check);
    header.src_addr = sender;
    header.dst_addr = destination;
    header.ttl = hops[0];
    Ok(())
}

/// The same for IPv6, whose message's checksum covers the addresses outside as well (RFC 4443, 2.3).
#[inline(always)]
fn v6(frame: &Frame, packet: &Packet) -> Result<(), Reason> {
    let (source, destination) = (packet.source.0, packet.destination.addr.0);
    let quoted = frame.header::<Ipv6Hdr>(QUOTE_V6)?;
    let keeps_sender = quoted.dst_addr == source;
    let addresses = Delta::NONE.change128(quoted.src_addr, destination).change128(quoted.dst_addr, source);
    quoted.src_addr = destination;
    quoted.dst_addr = source;
    let message = transport(frame, packet, addresses, addresses)?;
    let header = frame.header::<Ipv6Hdr>(NETWORK_OFFSET)?;
    let sender = if keeps_sender { header.src_addr } else { source };
    let message = message.change128(header.src_addr, sender).change128(header.dst_addr, destination);
    header.src_addr = sender;
    header.dst_addr = destination;
    header.hop_limit = header.hop_limit.wrapping_sub(1);
    let icmp = frame.header::<IcmpHdr>(NETWORK_OFFSET + size_of::<Ipv6Hdr>())?;
    icmp.checksum = message.apply(icmp.checksum);
    Ok(())
}

/// Ports of the quoted packet, and its checksum where that is quoted; what the message's checksum must be changed by, to
/// which `message` is added.
#[inline(always)]
fn transport(frame: &Frame, packet: &Packet, addresses: Delta, message: Delta) -> Result<Delta, Reason> {
    let offset = packet.transport_offset();
    let quoted = frame.header::<QuotedTransport>(offset)?;
    let (source, destination) = (packet.destination.port, packet.source_port);
    let change =
        |delta: Delta| delta.change16(quoted.source, source).change16(quoted.destination, destination);
    let (segment, message) = (change(addresses), change(message));
    quoted.source = source;
    quoted.destination = destination;
    if packet.destination.protocol == PROTOCOL_UDP {
        let datagram = frame.header::<UdpHdr>(offset)?;
        let old = datagram.check;
        datagram.check = segment.apply_udp(old);
        return Ok(message.change16(old, datagram.check));
    }
    // Eight bytes are the least that is quoted; TCP's checksum comes after them.
    if offset + size_of::<TcpHdr>() > packet.bytes as usize {
        return Ok(message);
    }
    let Ok(header) = frame.header::<TcpHdr>(offset) else { return Ok(message) };
    let old = header.checksum;
    header.checksum = segment.apply(old);
    Ok(message.change16(old, header.checksum))
}
