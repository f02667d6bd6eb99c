//! `flowgate lookup`: the same program, loaded once more as an instance that writes down what it would do and does
//! nothing. In every other instance the verifier removes all of this.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use lb_common::{Explanation, Life, Reason};

use crate::{globals, service::IN_MEMORY};

/// The agent asks one question at a time.
#[btf_map]
static EXPLANATION: Array<Explanation, 1, IN_MEMORY> = Array::new();

#[inline(always)]
fn note(write: impl FnOnce(&mut Explanation)) {
    if !globals::explains() {
        return;
    }
    if let Some(explanation) = EXPLANATION.get_ptr_mut(0) {
        // SAFETY: the map's one value; this instance runs for one question at a time, and the agent reads it after.
        write(unsafe { &mut *explanation });
    }
}

/// The packet is for a service, or answers a flow of one.
#[inline(always)]
pub fn service(index: u16) {
    note(|explanation| explanation.service = u32::from(index));
}

/// A flow is remembered; `what` is one of `Explanation`'s words.
#[inline(always)]
pub fn flow(what: u32, slot: u32, life: Life) {
    note(|explanation| {
        explanation.flow = what;
        explanation.slot = slot;
        explanation.life = life.put(0) as u32;
    });
}

/// What a flow is translated by.
#[inline(always)]
pub fn translation(port: u16, source: u8) {
    note(|explanation| {
        explanation.nat_port = u32::from(port);
        explanation.source = u32::from(source);
    });
}

/// A new flow's backend is from this place on the ring.
#[inline(always)]
pub fn ring_slot(slot: u32) {
    note(|explanation| explanation.ring_slot = slot + 1);
}

/// Where the packet would go.
#[inline(always)]
pub fn next_hop(index: u32) {
    note(|explanation| explanation.next_hop = index);
}

/// The backend that the packet goes to or comes from.
#[inline(always)]
pub fn backend(index: u16) {
    note(|explanation| explanation.backend = u32::from(index));
}

/// What would become of the packet.
#[inline(always)]
pub fn reason(reason: Reason) {
    note(|explanation| explanation.reason = reason as u32);
}
