//! Answering what cannot be served, so that its sender need not wait for a time-out: a RST for a segment, an ICMP error
//! for a datagram and for whatever may live no longer or is too large. One file for each; the frame that came in becomes the answer.

mod icmp_error;
mod reset;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    programs::XdpContext,
};
use lb_common::{Reason, reject::IcmpError, service::PROTOCOL_TCP};

use crate::{arrival::Arrival, globals, service::ServiceRef};

/// Answers a client's packet that is refused for `reason`, where that reason asks for an answer; else the reason.
#[inline(always)]
pub fn refuse(
    ctx: &XdpContext,
    arrival: &Arrival,
    service: &ServiceRef,
    reason: Reason,
) -> Result<(Reason, u32), Reason> {
    let answered = match reason {
        Reason::BackendDown => Reason::BackendReset,
        Reason::NoBackend if service.rejects() => Reason::RejectedNoBackend,
        Reason::BackendsFull if service.rejects() => Reason::RejectedFull,
        _ => return Err(reason),
    };
    answer_with(ctx, arrival, REFUSAL, (reason, answered))
}

/// Answers a client's packet whose TTL or hop limit is at its end, as routers do (RFC 1812, 5.3.1; RFC 4443, 3.3).
#[inline(always)]
pub fn expired(ctx: &XdpContext, arrival: &Arrival) -> Result<(Reason, u32), Reason> {
    answer_with(ctx, arrival, TIME_EXCEEDED, (Reason::TtlExpired, Reason::TimeExceeded))
}

/// Answers a client's packet that is too large for the way to its backend, which takes `mtu` bytes of it (RFC 1191, 4;
/// RFC 4443, 3.2).
#[inline(always)]
pub fn too_big(ctx: &XdpContext, arrival: &Arrival, mtu: u16) -> Result<(Reason, u32), Reason> {
    answer_with(ctx, arrival, TOO_BIG | u32::from(mtu) << 16, (Reason::ExceedsMtu, Reason::PacketTooBig))
}

/// The first reason where there was no answer, the second where there was.
#[inline(always)]
fn answer_with(
    ctx: &XdpContext,
    arrival: &Arrival,
    what: u32,
    (dropped, answered): (Reason, Reason),
) -> Result<(Reason, u32), Reason> {
    // Errors are about whole packets and first parts (RFC 1122, 3.2.2).
    if globals::has_fragments_by_address() && arrival.packet.is_later_part() {
        return Err(dropped);
    }
    if !globals::explains() && answer(ctx.ctx, arrival, what) != ANSWERED {
        return Err(dropped);
    }
    Ok((answered, xdp_action::XDP_TX))
}

const ANSWERED: i32 = 1;

/// A RST, or "port unreachable".
const REFUSAL: u32 = 0;
/// "Time exceeded".
const TIME_EXCEEDED: u32 = 1;
/// "Packet too big", with what is not in the upper half of the word.
const TOO_BIG: u32 = 2;

/// Makes the frame the answer to itself: [`ANSWERED`], or nothing is changed. A function of its own for the verifier,
/// see [`crate::arrival`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn answer(ctx: *mut xdp_md, arrival: *const Arrival, what: u32) -> i32 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    let Some(arrival) = (unsafe { arrival.as_ref() }) else { return 0 };
    let ctx = XdpContext::new(ctx);
    let is_reset = what == REFUSAL && arrival.protocol() == PROTOCOL_TCP;
    let error = match what & 0xffff {
        REFUSAL => IcmpError::PortUnreachable,
        TIME_EXCEEDED => IcmpError::TimeExceeded,
        _ => IcmpError::TooBig((what >> 16) as u16),
    };
    let answer = match (is_reset, arrival.packet.source.is_v4()) {
        (true, true) => reset::v4(&ctx, &arrival.packet),
        (true, false) => reset::v6(&ctx, &arrival.packet),
        (false, true) => icmp_error::v4(&ctx, &arrival.packet, error),
        (false, false) => icmp_error::v6(&ctx, &arrival.packet, error),
    };
    if answer.is_some() { ANSWERED } else { 0 }
}
