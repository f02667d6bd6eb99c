//! Pings to services' addresses, answered where they come in (RFC 792; RFC 4443, 4): no backend is asked.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    programs::XdpContext,
};
use lb_common::{Addr, AddressUse, Reason, checksum::Delta, reject::is_single_host};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    address, globals,
    headers::{HOP_LIMIT, IcmpHdr, PROTOCOL_ICMP, PROTOCOL_ICMPV6},
    packet::{EthernetHdr, Frame},
    parse::{ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, NETWORK_OFFSET},
};

/// Answers a frame that parsing has ended on with `reason`, if it is a ping to an address that answers; else the reason.
#[inline(always)]
pub fn answer(ctx: &XdpContext, reason: Reason) -> Result<(Reason, u32), Reason> {
    let is_asked = globals::answers_pings() && matches!(reason, Reason::NotTransport);
    if !is_asked || answer_ping(ctx.ctx) != ANSWERED {
        return Err(reason);
    }
    Ok((Reason::PingAnswered, xdp_action::XDP_TX))
}

const ANSWERED: i32 = 1;

/// Makes the frame the answer to itself: [`ANSWERED`], or nothing is changed. A function of its own for the verifier,
/// see [`crate::arrival`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn answer_ping(ctx: *mut xdp_md) -> i32 {
    let ctx = XdpContext::new(ctx);
    let frame = Frame::new(&ctx);
    let answered = match frame.header::<EthernetHdr>(0) {
        Ok(ethernet) if ethernet.destination[0] & 1 != 0 => None,
        Ok(ethernet) if ethernet.ether_type == ETHER_TYPE_IPV4 => v4(&frame),
        Ok(ethernet) if ethernet.ether_type == ETHER_TYPE_IPV6 => v6(&frame),
        _ => None,
    };
    if answered.and_then(|()| turn_back(&frame)).is_some() { ANSWERED } else { 0 }
}

/// One with IP options is the kernel's.
#[inline(always)]
fn v4(frame: &Frame) -> Option<()> {
    const IP_BYTES: usize = size_of::<Ipv4Hdr>();
    let header = frame.header::<Ipv4Hdr>(NETWORK_OFFSET).ok()?;
    let bytes = usize::from(u16::from_be_bytes(header.tot_len));
    if header.vihl != 0x45 || header.proto != PROTOCOL_ICMP || bytes < IP_BYTES + size_of::<IcmpHdr>() {
        return None;
    }
    let echo = frame.header::<IcmpHdr>(NETWORK_OFFSET + IP_BYTES).ok()?;
    if echo.kind != [8, 0] || !is_answered(&Addr::from_v4(header.src_addr), &Addr::from_v4(header.dst_addr)) {
        return None;
    }
    reply(echo, [0, 0]);
    core::mem::swap(&mut header.src_addr, &mut header.dst_addr);
    let (old, new) = ([header.ttl, PROTOCOL_ICMP], [HOP_LIMIT, PROTOCOL_ICMP]);
    header.ttl = HOP_LIMIT;
    header.check = Delta::NONE.change16(old, new).apply(header.check);
    Some(())
}

/// One with extension headers is the kernel's. What the checksum covers besides the message stays the same.
#[inline(always)]
fn v6(frame: &Frame) -> Option<()> {
    const IP_BYTES: usize = size_of::<Ipv6Hdr>();
    let header = frame.header::<Ipv6Hdr>(NETWORK_OFFSET).ok()?;
    let bytes = usize::from(u16::from_be_bytes(header.payload_len));
    if header.next_hdr != PROTOCOL_ICMPV6 || bytes < size_of::<IcmpHdr>() {
        return None;
    }
    let echo = frame.header::<IcmpHdr>(NETWORK_OFFSET + IP_BYTES).ok()?;
    if echo.kind != [128, 0] || !is_answered(&Addr(header.src_addr), &Addr(header.dst_addr)) {
        return None;
    }
    reply(echo, [129, 0]);
    core::mem::swap(&mut header.src_addr, &mut header.dst_addr);
    header.hop_limit = HOP_LIMIT;
    Some(())
}

#[inline(always)]
fn is_answered(from: &Addr, to: &Addr) -> bool {
    is_single_host(from) && address::of(to).is_some_and(AddressUse::answers_pings)
}

/// Makes a question its answer; identifier, number and data stay.
#[inline(always)]
fn reply(echo: &mut IcmpHdr, kind: [u8; 2]) {
    echo.checksum = Delta::NONE.change16(echo.kind, kind).apply(echo.checksum);
    echo.kind = kind;
}

#[inline(always)]
fn turn_back(frame: &Frame) -> Option<()> {
    let ethernet = frame.header::<EthernetHdr>(0).ok()?;
    core::mem::swap(&mut ethernet.source, &mut ethernet.destination);
    Some(())
}
