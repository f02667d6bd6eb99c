//! The first packet of a translated flow: a slot for its forward half, a port whose place for the reply half is
//! free, both claimed, written and then published.

use lb_common::{
    Addr, FlowState, Mode, Reason, ServiceKey,
    abi::CLIENT_ITSELF,
    branchless::{less, select},
    flow_table::Vacancy,
    nat_table::{
        KEY_CLAIMED, KEY_EMPTY, NatReply, NatValue, PORT_TRIES, ReplyPeer, ReplyWord, buckets_of, key_of,
        port_of,
    },
};

use super::{ForwardSlot, NAT_FLOWS, ON_FIN, are_halves, reply_at, source_of};
use crate::{
    arrival::{Arrival, Begun},
    atomic,
    backend::{self, BackendRef},
    egress, explain, globals, loads,
    service::{self, ServiceRef},
};

/// Begins a flow to the backend that was chosen. Three steps, each a function of its own for the verifier (see
/// [`crate::arrival`]) and one after the other, since together they would need more of the stack than there is.
#[inline(always)]
pub fn begin(arrival: &Arrival) -> Result<Begun, Reason> {
    let slot = claim_forward(arrival);
    if slot < 0 {
        return Err(reason_of(slot));
    }
    let port = publish_reply(arrival, slot as u32);
    Begun::unpack(publish_forward(arrival, slot as u32, port))
}

/// A refusal as a function of its own returns it: negative.
#[inline(always)]
fn refusal(reason: Reason) -> i64 {
    Begun::pack(Err(reason))
}

#[inline(always)]
fn reason_of(refusal: i64) -> Reason {
    match Begun::unpack(refusal) {
        Err(reason) => reason,
        Ok(_) => Reason::BadState,
    }
}

/// What a flow is begun with, the same at each step.
struct Plan<'a> {
    service: ServiceRef,
    backend: BackendRef,
    source_index: u8,
    source: &'a Addr,
}

impl<'a> Plan<'a> {
    #[inline(always)]
    fn of(arrival: &'a Arrival) -> Result<Self, Reason> {
        let service = ServiceRef::at(arrival.service).ok_or(Reason::BadState)?;
        let backend = arrival.chosen()?;
        let keeps_client = globals::shares_servers() && service.mode() == Mode::Nat as u8;
        let source_index =
            if keeps_client { CLIENT_ITSELF } else { backend.source_for(key_of(arrival.hash))? };
        let source = source_of(source_index, arrival).ok_or(Reason::BadState)?;
        Ok(Self { service, backend, source_index, source })
    }
}

/// Claims a slot for a flow's forward half: its number, or a refusal. Whatever may refuse the flow comes before anything
/// is written.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim_forward(arrival: *const Arrival) -> i64 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    let Some(arrival) = (unsafe { arrival.as_ref() }) else { return refusal(Reason::BadState) };
    match claim_slot(arrival) {
        Ok(number) => i64::from(number),
        Err(reason) => refusal(reason),
    }
}

#[inline(always)]
fn claim_slot(arrival: &Arrival) -> Result<u32, Reason> {
    let plan = Plan::of(arrival)?;
    egress::next_hop(plan.backend.next_hop())?;
    if globals::explains() {
        return Ok(0);
    }
    egress::remember_client_hop(arrival.packet.source_mac)?;
    let (slot, worth) = choose_slot(arrival, key_of(arrival.hash))?;
    claim(slot, worth, arrival)?;
    Ok(slot.number)
}

/// Writes a flow's reply half, its forward half's slot being claimed: the port, or a refusal.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn publish_reply(arrival: *const Arrival, slot: u32) -> i64 {
    // SAFETY: as above.
    let Some(arrival) = (unsafe { arrival.as_ref() }) else { return refusal(Reason::BadState) };
    match fill_a_place(arrival, slot) {
        Ok(port) => i64::from(port),
        Err(reason) => refusal(reason),
    }
}

#[inline(always)]
fn fill_a_place(arrival: &Arrival, slot: u32) -> Result<u16, Reason> {
    let plan = Plan::of(arrival)?;
    if globals::explains() {
        // Which port it would be is not looked for.
        explain::translation(0, plan.source_index);
        return Ok(0);
    }
    let life = arrival.begun(&plan.service, ON_FIN);
    let client_hop = egress::remember_client_hop(arrival.packet.source_mac)?;
    let word = ReplyWord::new(slot, plan.source_index, life);
    let half = Entry { backend: plan.backend, source: plan.source, client_hop, word };
    find_place(&half, key_of(arrival.hash), arrival).ok_or(Reason::PortsExhausted)
}

/// Writes the forward half of a flow that has a port, or gives its slot back: a [`Begun`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn publish_forward(arrival: *const Arrival, slot: u32, port: i64) -> i64 {
    // SAFETY: as above.
    let Some(arrival) = (unsafe { arrival.as_ref() }) else { return refusal(Reason::BadState) };
    Begun::pack(fill_slot(arrival, slot, port))
}

#[inline(always)]
fn fill_slot(arrival: &Arrival, slot: u32, port: i64) -> Result<Begun, Reason> {
    let plan = Plan::of(arrival)?;
    if globals::explains() {
        return Ok(Begun::new(plan.backend.index, 0, plan.source_index));
    }
    let slot = ForwardSlot::at(slot).ok_or(Reason::BadState)?;
    if port < 0 {
        // SAFETY: a slot that this CPU has claimed.
        unsafe {
            atomic::write(slot.value(), 0);
            atomic::write(slot.key(), KEY_EMPTY);
        }
        return Err(reason_of(port));
    }
    let life = arrival.begun(&plan.service, ON_FIN);
    let value = NatValue::new(port as u16, plan.backend.index, plan.source_index, life);
    // SAFETY: as above; the exchange orders the value before the key on every architecture.
    unsafe {
        atomic::write(slot.value(), value.0);
        atomic::exchange(slot.key(), KEY_CLAIMED, key_of(arrival.hash));
    }
    loads::place(&plan.service, &plan.backend);
    Ok(Begun::new(plan.backend.index, port as u16, plan.source_index))
}

/// The slot that the flow had before, or that of its two buckets' whose flow is worth least; and what that is worth.
#[inline(always)]
fn choose_slot(arrival: &Arrival, key: u64) -> Result<(ForwardSlot, u32), Reason> {
    if arrival.slot != Arrival::NOWHERE {
        return Ok((ForwardSlot::at(arrival.slot).ok_or(Reason::BadState)?, u32::MAX));
    }
    let (first_index, second_index) = buckets_of(key, globals::nat_mask());
    let first = NAT_FLOWS.get_ptr_mut(first_index).ok_or(Reason::BadState)?;
    let second = NAT_FLOWS.get_ptr_mut(second_index).ok_or(Reason::BadState)?;
    // SAFETY: values of the map; words that other CPUs write meanwhile are whole words of some flow.
    let (first_values, second_values) = unsafe { (&(*first).values, &(*second).values) };
    let salt = key >> 61;
    let one = Vacancy::of(first_values, arrival.now, salt);
    let two = Vacancy::of(second_values, arrival.now, salt);
    if two.better_than(one) {
        Ok((ForwardSlot::new(second, second_index, two.slot as usize), two.worth))
    } else {
        Ok((ForwardSlot::new(first, first_index, one.slot as usize), one.worth))
    }
}

/// Claims a slot, and takes away the reply half of the flow that was in it. Not where that is worth more than it was
/// when the slot was chosen: another CPU has begun a flow there since, or has gone on with it.
#[inline(always)]
fn claim(slot: ForwardSlot, worth: u32, arrival: &Arrival) -> Result<(), Reason> {
    // SAFETY: words of a bucket.
    let (key, value) = unsafe { (atomic::read(slot.key()), NatValue(atomic::read(slot.value()))) };
    let is_other = key == KEY_CLAIMED || value.life().worth(arrival.now) > worth;
    // SAFETY: as above.
    if is_other || !unsafe { atomic::exchange(slot.key(), key, KEY_CLAIMED) } {
        return Err(Reason::TableContended);
    }
    // SAFETY: as above.
    if unsafe { atomic::read(slot.value()) } != value.0 {
        // SAFETY: a slot that this CPU has claimed.
        unsafe { atomic::exchange(slot.key(), KEY_CLAIMED, key) };
        return Err(Reason::TableContended);
    }
    let protocol = arrival.protocol();
    // A closing flow's reply half is left to expire: its port is not used again soon while there are others.
    if key != KEY_EMPTY && !matches!(value.life().state(), FlowState::Closing) {
        release_reply(slot.number, value, protocol);
    }
    Ok(())
}

/// Frees the reply half of the flow whose forward half was in a slot, if it is still that flow's: its port may have been
/// given to another after it was over.
#[inline(always)]
fn release_reply(slot_number: u32, value: NatValue, own_protocol: u8) {
    let Some(backend) = BackendRef::at(value.backend()) else { return };
    let Some(source) = backend::source(value.source()) else { return };
    // The protocol of the flow that is pushed out is its service's.
    let protocol = ServiceRef::at(backend.service()).map_or(own_protocol, |service| service.protocol());
    let Some(entry) = reply_at(backend.addr(), backend.port(), source, value.port(), protocol) else {
        return;
    };
    // SAFETY: words of a map's value.
    unsafe {
        let word = ReplyWord(atomic::read(&raw const (*entry).word));
        let peer = ReplyPeer(atomic::read(&raw const (*entry).peer));
        let is_its = word.forward_slot() == slot_number && are_halves(value, word, peer);
        if is_its && !matches!(word.life().state(), FlowState::Claimed) {
            // Where the word has changed meanwhile the flow is in use again, and its place ends by its age.
            atomic::exchange(&raw mut (*entry).word, word.0, 0);
        }
    }
}

/// Whether a client's port is what a translated flow of the same client to the same server has been given (`nat`).
#[inline(always)]
pub fn is_taken(arrival: &Arrival, backend: &BackendRef, port: [u8; 2]) -> bool {
    let client = arrival.packet.source;
    let place =
        reply_at(backend.addr(), backend.port(), &client, u16::from_be_bytes(port), arrival.protocol());
    let Some(entry) = place else { return false };
    // SAFETY: words of a map's value.
    let (word, peer) = unsafe {
        let word = ReplyWord(atomic::read(&raw const (*entry).word));
        (word, ReplyPeer(atomic::read(&raw const (*entry).peer)))
    };
    // Where this is another client's place, the new flow gets a port that it would not need: no harm.
    word.source() == CLIENT_ITSELF
        && peer.nat_port() == u16::from_be_bytes(port)
        && word.life().worth(arrival.now) > 1
}

/// Forgets a flow that has just begun.
#[inline(always)]
pub fn forget(arrival: &Arrival, flow: Begun) {
    let (Some(backend), Some(source)) = (BackendRef::at(flow.backend()), source_of(flow.source(), arrival))
    else {
        return;
    };
    let place = reply_at(backend.addr(), backend.port(), source, flow.port(), arrival.protocol());
    let Some(entry) = place else { return };
    // SAFETY: words of a map's value.
    let (word, peer) = unsafe {
        let word = ReplyWord(atomic::read(&raw const (*entry).word));
        (word, ReplyPeer(atomic::read(&raw const (*entry).peer)))
    };
    let is_its = peer.nat_port() == flow.port() && peer.backend() == flow.backend();
    if is_its && forget_forward(word, peer).is_some() {
        // SAFETY: as above; where the word has changed meanwhile, the place ends by its age.
        unsafe { atomic::exchange(&raw mut (*entry).word, word.0, 0) };
    }
}

/// What a reply half is filled with, but for its port.
struct Entry<'a> {
    backend: BackendRef,
    source: &'a Addr,
    client_hop: u16,
    word: ReplyWord,
}

/// More willing than any flow yields a port: there is none.
const FREE: u64 = 1 << 20;

/// Finds a port whose place is free, or may be taken from another flow, fills the place, and says which port it is.
#[inline(always)]
fn find_place(half: &Entry<'_>, key: u64, arrival: &Arrival) -> Option<u16> {
    // How willingly in the upper half, which port in the lower: the larger goes first. Ports are mixed with the flow's
    // key, lest every new flow takes the same one of those that are equally willing.
    let mut yielding = 0u64;
    for attempt in 0..PORT_TRIES {
        let port = half.port(key, attempt.wrapping_add(arrival.first_try));
        let entry = half.place(port, arrival)?;
        // SAFETY: a word of a map's value.
        let word = ReplyWord(unsafe { atomic::read(&raw const (*entry).word) });
        let is_free = less(u64::from(word.life().worth(arrival.now)), 2);
        let willing = select(is_free, FREE, u64::from(word.life().yields(arrival.now)));
        // An answer to a port of a service would be taken for a request.
        if willing == 0 || half.is_service(port, arrival) {
            continue;
        }
        if willing != FREE {
            let other = willing << 32 | u64::from(port ^ key as u16);
            yielding = select(less(yielding, other), other, yielding);
        } else if half.fill(entry, word, port, arrival) {
            return Some(port);
        }
    }
    if yielding == 0 {
        return None;
    }
    take_over(half, yielding as u16 ^ key as u16, arrival)
}

/// Gives a flow's port to a new one, unless the other has gone on meanwhile. The other's forward half goes before the new
/// flow is there: it must not send by a port that is no longer its own.
#[inline(always)]
fn take_over(half: &Entry<'_>, port: u16, arrival: &Arrival) -> Option<u16> {
    let entry = half.place(port, arrival)?;
    // SAFETY: words of a map's value.
    let (word, peer) = unsafe {
        let word = ReplyWord(atomic::read(&raw const (*entry).word));
        (word, ReplyPeer(atomic::read(&raw const (*entry).peer)))
    };
    if word.life().yields(arrival.now) == 0 {
        return None;
    }
    // SAFETY: a word of a map's value.
    if !unsafe { atomic::exchange(&raw mut (*entry).word, word.0, CLAIM) } {
        return None;
    }
    // The slot that this flow has got may have been the other's: then there is no forward half of it any more.
    let is_own_slot = word.forward_slot() == half.word.forward_slot();
    if !is_own_slot && forget_forward(word, peer).is_none() {
        // SAFETY: a place that this CPU has claimed.
        unsafe { atomic::exchange(&raw mut (*entry).word, CLAIM, word.0) };
        return None;
    }
    half.write(entry, port, arrival);
    Some(port)
}

/// Takes away the forward half of a flow, if it is still there. None where another CPU is about to write it: a flow's
/// reply half is there first.
#[inline(always)]
fn forget_forward(word: ReplyWord, peer: ReplyPeer) -> Option<()> {
    let slot = ForwardSlot::at(word.forward_slot())?;
    // SAFETY: words of a bucket.
    unsafe {
        let key = atomic::read(slot.key());
        let value = NatValue(atomic::read(slot.value()));
        if key == KEY_CLAIMED {
            return None;
        }
        if key == KEY_EMPTY || !are_halves(value, word, peer) {
            return Some(());
        }
        if !atomic::exchange(slot.key(), key, KEY_CLAIMED) {
            return None;
        }
        atomic::write(slot.value(), 0);
        atomic::write(slot.key(), KEY_EMPTY);
    }
    Some(())
}

/// The word of an entry that is being written.
const CLAIM: u64 = FlowState::Claimed as u64;

impl Entry<'_> {
    /// The port of a try.
    #[inline(always)]
    fn port(&self, key: u64, attempt: u32) -> u16 {
        let (first, count) = globals::nat_ports();
        port_of(key, attempt, first, count)
    }

    #[inline(always)]
    fn place(&self, port: u16, arrival: &Arrival) -> Option<*mut NatReply> {
        reply_at(self.backend.addr(), self.backend.port(), self.source, port, arrival.protocol())
    }

    #[inline(always)]
    fn is_service(&self, port: u16, arrival: &Arrival) -> bool {
        service::lookup(&ServiceKey::new(*self.source, port.to_be_bytes(), arrival.protocol())).is_some()
    }

    /// Claims a place that is as `word` says, writes it, and publishes it.
    #[inline(always)]
    fn fill(&self, entry: *mut NatReply, word: ReplyWord, port: u16, arrival: &Arrival) -> bool {
        // SAFETY: a word of a map's value.
        if !unsafe { atomic::exchange(&raw mut (*entry).word, word.0, CLAIM) } {
            return false;
        }
        self.write(entry, port, arrival);
        true
    }

    /// Writes a place that is claimed, and publishes it.
    #[inline(always)]
    fn write(&self, entry: *mut NatReply, port: u16, arrival: &Arrival) {
        let peer = ReplyPeer::new(arrival.packet.source_port, port, self.backend.index, self.client_hop);
        // SAFETY: an entry that this CPU has claimed; the exchange orders what was written before it.
        unsafe {
            atomic::write(&raw mut (*entry).peer, peer.0);
            (*entry).client = arrival.packet.source;
            atomic::exchange(&raw mut (*entry).word, CLAIM, self.word.0);
        }
    }
}
