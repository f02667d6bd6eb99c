//! The first packet of a translated flow: a slot for its forward half, a port whose place for the reply half is
//! free, both claimed, written and then published.

use lb_common::{
    Addr, FlowState, Life, Reason,
    flow_table::{BUCKET_SLOTS, Vacancy},
    nat_table::{
        KEY_CLAIMED, KEY_EMPTY, NatReply, NatValue, PORT_TRIES, ReplyPeer, ReplyWord, buckets_of, key_of,
        port_of,
    },
};

use super::{ForwardSlot, NAT_FLOWS, reply_at};
use crate::{
    arrival::{Arrival, Begun},
    atomic,
    backend::{self, BackendRef},
    egress, globals,
    service::ServiceRef,
};

/// Begins a translated flow: a [`Begun`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn begin_translated(arrival: *const Arrival) -> i64 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    match unsafe { arrival.as_ref() } {
        Some(arrival) => Begun::pack(begin(arrival)),
        None => Begun::pack(Err(Reason::BadState)),
    }
}

#[inline(always)]
fn begin(arrival: &Arrival) -> Result<Begun, Reason> {
    // Whatever may refuse the flow comes before anything is written.
    let service = ServiceRef::at(arrival.service).ok_or(Reason::BadState)?;
    let backend = arrival.choose_backend(&service)?;
    let key = key_of(arrival.hash);
    let source_index = backend.source_for(key)?;
    let source = backend::source(source_index).ok_or(Reason::BadState)?;
    let client_hop = egress::remember_client_hop(arrival.packet.source_mac)?;
    let life = arrival.begun(&service);

    let slot = choose_slot(arrival, key)?;
    claim(slot, arrival.protocol())?;
    let entry = Entry { backend, source, client_hop, word: ReplyWord::new(slot.number, source_index, life) };
    let Some(port) = publish_reply(&entry, key, arrival) else {
        // SAFETY: a slot that this CPU has claimed.
        unsafe {
            atomic::write(slot.value(), 0);
            atomic::write(slot.key(), KEY_EMPTY);
        }
        return Err(Reason::PortsExhausted);
    };
    // SAFETY: as above; the exchange orders the value before the key on every architecture.
    unsafe {
        atomic::write(slot.value(), NatValue::new(port, backend.index, source_index, life).0);
        atomic::exchange(slot.key(), KEY_CLAIMED, key);
    }
    Ok(Begun::new(backend.index, port, source_index))
}

/// The slot that the flow had before, or that of its two buckets' whose flow is worth least.
#[inline(always)]
fn choose_slot(arrival: &Arrival, key: u64) -> Result<ForwardSlot, Reason> {
    if arrival.slot != Arrival::NOWHERE {
        let bucket = NAT_FLOWS.get_ptr_mut(arrival.slot / BUCKET_SLOTS as u32).ok_or(Reason::BadState)?;
        return Ok(ForwardSlot { bucket, number: arrival.slot });
    }
    let (first_index, second_index) = buckets_of(key, globals::nat_mask());
    let first = NAT_FLOWS.get_ptr_mut(first_index).ok_or(Reason::BadState)?;
    let second = NAT_FLOWS.get_ptr_mut(second_index).ok_or(Reason::BadState)?;
    // SAFETY: values of the map; words that other CPUs write meanwhile are whole words of some flow.
    let (one, two) =
        unsafe { (Vacancy::of(&(*first).values, arrival.now), Vacancy::of(&(*second).values, arrival.now)) };
    if two.better_than(one) {
        Ok(ForwardSlot::new(second, second_index, two.slot as usize))
    } else {
        Ok(ForwardSlot::new(first, first_index, one.slot as usize))
    }
}

/// Claims a slot, and takes away the reply half of the flow that was in it.
#[inline(always)]
fn claim(slot: ForwardSlot, protocol: u8) -> Result<(), Reason> {
    // SAFETY: words of a bucket.
    let (key, value) = unsafe { (atomic::read(slot.key()), NatValue(atomic::read(slot.value()))) };
    // SAFETY: as above.
    if key == KEY_CLAIMED || !unsafe { atomic::exchange(slot.key(), key, KEY_CLAIMED) } {
        return Err(Reason::TableContended);
    }
    // A closing flow's reply half is left to expire: its port is not used again while late packets may come.
    if key != KEY_EMPTY && !matches!(value.life().state(), FlowState::Closing) {
        release_reply(value, protocol);
    }
    Ok(())
}

/// Frees the reply half of a flow whose forward half is gone, if it is still that flow's.
#[inline(always)]
fn release_reply(value: NatValue, own_protocol: u8) {
    let Some(backend) = BackendRef::at(value.backend()) else { return };
    let Some(source) = backend::source(value.source()) else { return };
    // The protocol of the flow that is pushed out is its service's.
    let protocol = ServiceRef::at(backend.service()).map_or(own_protocol, |service| service.protocol());
    let Some(entry) = reply_at(backend.addr(), backend.port(), source, value.port(), protocol) else {
        return;
    };
    // SAFETY: words of a map's value.
    unsafe {
        let word = atomic::read(&raw const (*entry).word);
        let peer = ReplyPeer(atomic::read(&raw const (*entry).peer));
        let ours = peer.nat_port() == value.port() && peer.backend() == value.backend();
        if ours && !matches!(ReplyWord(word).life().state(), FlowState::Claimed) {
            // Where the word has changed meanwhile the flow is in use again, and its place ends by its age.
            atomic::exchange(&raw mut (*entry).word, word, 0);
        }
    }
}

/// What a reply half is filled with, but for its port.
struct Entry<'a> {
    backend: BackendRef,
    source: &'a Addr,
    client_hop: u16,
    word: ReplyWord,
}

/// Finds a port whose place is free, fills the place, and says which port it is.
#[inline(always)]
fn publish_reply(half: &Entry<'_>, key: u64, arrival: &Arrival) -> Option<u16> {
    let (first, count) = globals::nat_ports();
    let backend = &half.backend;
    for attempt in 0..PORT_TRIES {
        let port = port_of(key, attempt, first, count);
        let entry = reply_at(backend.addr(), backend.port(), half.source, port, arrival.protocol())?;
        if claim_reply(entry, arrival.now) {
            let peer = ReplyPeer::new(arrival.packet.source_port, port, backend.index, half.client_hop);
            // SAFETY: an entry that this CPU has claimed; the exchange orders what was written before it.
            unsafe {
                atomic::write(&raw mut (*entry).peer, peer.0);
                (*entry).client = arrival.packet.source;
                atomic::exchange(&raw mut (*entry).word, CLAIM, half.word.0);
            }
            return Some(port);
        }
    }
    None
}

/// The word of an entry that is being written.
const CLAIM: u64 = FlowState::Claimed as u64;

#[inline(always)]
fn claim_reply(entry: *mut NatReply, now: u16) -> bool {
    // SAFETY: a word of a map's value.
    unsafe {
        let word = atomic::read(&raw const (*entry).word);
        Life::of(word).worth(now) <= 1 && atomic::exchange(&raw mut (*entry).word, word, CLAIM)
    }
}
