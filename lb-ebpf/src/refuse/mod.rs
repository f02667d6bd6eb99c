//! Answering what cannot be served, so that clients need not wait for their time-outs: a RST for a segment, an ICMP
//! error for a datagram. One file for each; the frame that came in becomes the answer.

mod headers;
mod reset;
mod unreachable;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    programs::XdpContext,
};
use lb_common::{Reason, service::PROTOCOL_TCP};

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
    if !globals::explains() && answer(ctx.ctx, arrival) != ANSWERED {
        return Err(reason);
    }
    Ok((answered, xdp_action::XDP_TX))
}

const ANSWERED: i32 = 1;

/// Makes the frame the answer to itself: [`ANSWERED`], or nothing is changed. A function of its own for the verifier,
/// see [`crate::arrival`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn answer(ctx: *mut xdp_md, arrival: *const Arrival) -> i32 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    let Some(arrival) = (unsafe { arrival.as_ref() }) else { return 0 };
    let ctx = XdpContext::new(ctx);
    let answer = match (arrival.protocol() == PROTOCOL_TCP, arrival.packet.source.is_v4()) {
        (true, true) => reset::v4(&ctx, &arrival.packet),
        (true, false) => reset::v6(&ctx, &arrival.packet),
        (false, true) => unreachable::v4(&ctx, &arrival.packet),
        (false, false) => unreachable::v6(&ctx, &arrival.packet),
    };
    if answer.is_some() { ANSWERED } else { 0 }
}
