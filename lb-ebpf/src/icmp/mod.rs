//! ICMP errors about packets that went through here: on to whoever sent those, with what they quote as that one knows it
//! (RFC 792; RFC 4443, 3; RFC 5508, 4 for what a translator does).
//!
//! An error about a packet comes from where that packet went. So the quoted packet the other way round is what could come
//! in beside the error itself: a client's packet for a service, or a backend's answer. It finds its flow as such a packet
//! does, but begins none and keeps none alive.
//!
//! Functions of their own for the verifier, see [`crate::arrival`], one after the other, so that they need less of the
//! stack than together.

mod find;
mod quote;
mod translate;

use aya_ebpf::programs::XdpContext;
use lb_common::{Mode, Reason};

use crate::{arrival::Arrival, found::Found, globals, servers};

/// Sends an error on, if the packet that parsing has ended on with `reason` is one and its flow is known; else the reason.
#[inline(always)]
pub fn relay(ctx: &XdpContext, arrival: &mut Arrival, reason: Reason) -> Result<(Reason, u32), Reason> {
    let is_asked = globals::has_services() && matches!(reason, Reason::NotTransport);
    if !is_asked || quote::read_quote(ctx.ctx, arrival) != quote::READ {
        return Err(reason);
    }
    let found = request(arrival).or_else(|| answer(arrival)).ok_or(reason)?;
    let action = found.send(ctx, arrival, || translate::write(ctx, arrival))?;
    Ok((Reason::IcmpError, action))
}

/// An error about what a service has sent to a client.
#[inline(always)]
fn request(arrival: &mut Arrival) -> Option<Found> {
    let mut word = find::find_request(arrival, find::AS_REMEMBERED);
    if word == find::CHOOSE {
        arrival.choose_backend().ok()?;
        word = find::find_request(arrival, find::AS_CHOSEN);
    }
    Found::of(word)
}

/// An error about what was sent to a backend.
#[inline(always)]
fn answer(arrival: &mut Arrival) -> Option<Found> {
    let has_translated = globals::has_mode(Mode::FullNat) || globals::shares_servers();
    if has_translated && let Some(found) = Found::of(find::find_translated(arrival)) {
        return Some(found);
    }
    if !globals::has_mode(Mode::Nat) {
        return None;
    }
    match servers::answered_flow(&arrival.packet, servers::PEEKS) {
        servers::NOT_ANSWERED => None,
        flow => Found::of(find::find_steered(arrival, flow)),
    }
}
