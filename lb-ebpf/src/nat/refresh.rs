//! Bringing both halves of a flow up to date, when its state or tick has changed: once a second and flow.
//!
//! Functions of their own, see [`crate::arrival`].

use lb_common::{
    FlowState, Life,
    life::Classes,
    nat_table::{NatReply, NatValue, ReplyPeer, ReplyWord},
};

use super::{ForwardSlot, NAT_REPLIES, ON_FIN, are_halves, reply_at, source_of};
use crate::{arrival::Arrival, atomic, backend::BackendRef, egress, service::ServiceRef};

/// What [`refresh_by_request`] returns of a flow that has both halves.
pub const REFRESHED: i32 = 0;
/// What it returns of a flow whose reply half is lost: no answer would reach the client, so it has to begin anew.
const LOST: i32 = 1;

/// Brings a flow up to date after a client's packet; its forward half is at `arrival.slot`. [`REFRESHED`], or that
/// the flow is broken.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn refresh_by_request(arrival: *const Arrival) -> i32 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    match unsafe { arrival.as_ref() }.and_then(by_request) {
        Some(()) => REFRESHED,
        None => LOST,
    }
}

#[inline(always)]
fn by_request(arrival: &Arrival) -> Option<()> {
    let service = ServiceRef::at(arrival.service)?;
    let slot = ForwardSlot::at(arrival.slot)?;
    // SAFETY: words of a map's value.
    let value = NatValue(unsafe { atomic::read(slot.value()) });
    let used = arrival.used(value.life(), &service, ON_FIN);

    let backend = BackendRef::at(value.backend())?;
    let source = source_of(value.source(), arrival)?;
    let entry = reply_at(backend.addr(), backend.port(), source, value.port(), arrival.protocol())?;
    let other = touch_reply(entry, value, used.state(), arrival, service.classes())?;
    let life = Life::new(used.state().beside(other), service.classes(), arrival.now);
    // SAFETY: as above; where it has changed meanwhile, another CPU has brought it up to date, or taken it away.
    unsafe { atomic::exchange(slot.value(), value.0, life.put(value.0)) };
    Some(())
}

/// Brings a flow up to date after a backend's packet; its reply half is at `reply_index`, and was `seen` there. State and
/// tick are those of `life`, a [`Life`] that the packet has brought about. [`REFRESHED`], or that the place is being given to
/// another flow: whoever has seen an answer must not lose its port at that very moment.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn refresh_by_reply(reply_index: u32, seen: u64, life: u64) -> i32 {
    match by_reply(reply_index, seen, Life::of(life)) {
        Some(()) => REFRESHED,
        None => LOST,
    }
}

#[inline(always)]
fn by_reply(reply_index: u32, seen: u64, life: Life) -> Option<()> {
    let entry = NAT_REPLIES.get_ptr_mut(reply_index)?;
    // SAFETY: words of a map's value.
    let (word, peer) = unsafe {
        let word = ReplyWord(atomic::read(&raw const (*entry).word));
        (word, ReplyPeer(atomic::read(&raw const (*entry).peer)))
    };
    if is_given_away(word.0, seen) {
        return None;
    }
    let classes = ServiceRef::at(BackendRef::at(peer.backend())?.service())?.classes();
    let slot = ForwardSlot::at(word.forward_slot())?;
    // SAFETY: words of a map's value; the value of another flow is told by its parts and left alone.
    unsafe {
        let value = NatValue(atomic::read(slot.value()));
        let other = value.life().state();
        if !are_halves(value, word, peer) || matches!(other, FlowState::Empty) {
            let is_its = atomic::exchange(&raw mut (*entry).word, word.0, life.put(word.0));
            return (is_its || !is_given_away(atomic::read(&raw const (*entry).word), seen)).then_some(());
        }
        let own = Life::new(life.state().beside(other), classes, life.tick());
        let other = Life::new(other.beside(life.state()), classes, life.tick());
        let is_its = atomic::exchange(&raw mut (*entry).word, word.0, own.put(word.0));
        if !is_its && is_given_away(atomic::read(&raw const (*entry).word), seen) {
            return None;
        }
        atomic::exchange(slot.value(), value.0, other.put(value.0));
    }
    Some(())
}

/// Whether a place, whose word is `now`, is no more the flow's that was `seen` there.
#[inline(always)]
fn is_given_away(now: u64, seen: u64) -> bool {
    let is_taken = matches!(Life::of(now).state(), FlowState::Empty | FlowState::Claimed);
    is_taken || (now ^ seen) >> Life::BITS != 0
}

/// Brings a flow's reply half up to date, if it is still that flow's, and says in what state it was.
#[inline(always)]
fn touch_reply(
    entry: *mut NatReply,
    value: NatValue,
    state: FlowState,
    arrival: &Arrival,
    classes: Classes,
) -> Option<FlowState> {
    // SAFETY: words of a map's value; a word of another flow is told by its peer and left alone.
    let known = unsafe {
        let word = ReplyWord(atomic::read(&raw const (*entry).word));
        let peer = ReplyPeer(atomic::read(&raw const (*entry).peer));
        let client = atomic::read_addr(&raw const (*entry).client);
        let ours = are_halves(value, word, peer)
            && client == arrival.packet.source
            && peer.client_port() == arrival.packet.source_port;
        let known = word.life().state();
        if !ours || matches!(known, FlowState::Empty | FlowState::Claimed) {
            return None;
        }
        let life = Life::new(known.beside(state), classes, arrival.now);
        if !atomic::exchange(&raw mut (*entry).word, word.0, life.put(word.0)) {
            // Either an answer has brought it up to date at this moment, or the place is being given to another flow.
            if is_given_away(atomic::read(&raw const (*entry).word), word.0) {
                return None;
            }
        }
        // Where there is no room for another neighbour, answers go on to the one that is known.
        if let Ok(client_hop) = egress::remember_client_hop(arrival.packet.source_mac)
            && client_hop != peer.client_hop()
        {
            let moved = ReplyPeer::new(peer.client_port(), peer.nat_port(), peer.backend(), client_hop);
            atomic::write(&raw mut (*entry).peer, moved.0);
        }
        known
    };
    Some(known)
}
