//! The table of steered flows on the map's memory; its rules are in `lb_common::flow_table`.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use lb_common::{
    Explanation, FlowState, Life, Mode, Reason,
    flow_table::{BUCKET_SLOTS, Bucket, BucketHops, Place, Slot, Vacancy, find},
    hash::{FlowKey, flow_hash},
};

use crate::{
    arrival::{Arrival, Begun},
    atomic,
    backend::BackendRef,
    clock, egress, explain, globals, loads,
    packet::Packet,
    service::{IN_MEMORY, ServiceRef},
    steer::words_of,
};

/// The agent sets the size of both at load.
#[btf_map]
static FLOWS: Array<Bucket, 1, IN_MEMORY> = Array::new();
#[btf_map]
static FLOW_HOPS: Array<BucketHops, 1, IN_MEMORY> = Array::new();

/// One word of a bucket.
#[derive(Clone, Copy)]
struct FlowSlot {
    bucket: *mut Bucket,
    /// Bucket times eight, plus slot.
    number: u32,
}

impl FlowSlot {
    #[inline(always)]
    fn new(bucket: *mut Bucket, bucket_index: u32, slot: usize) -> Self {
        Self { bucket, number: bucket_index * BUCKET_SLOTS as u32 + slot as u32 }
    }

    /// The slot of that number.
    #[inline(always)]
    fn at(number: u32) -> Option<Self> {
        let bucket = FLOWS.get_ptr_mut(number / BUCKET_SLOTS as u32)?;
        Some(Self { bucket, number })
    }

    /// The slot that remembers a flow.
    #[inline(always)]
    fn of(place: Place) -> Result<Option<Self>, Reason> {
        // Both lines are asked for before either is looked at, so that their misses overlap.
        let first = FLOWS.get_ptr_mut(place.first).ok_or(Reason::BadState)?;
        let second = FLOWS.get_ptr_mut(place.second).ok_or(Reason::BadState)?;
        // SAFETY: values of the map; words that other CPUs write meanwhile are whole words of some flow.
        let (in_first, in_second) = unsafe { (find(&(*first).0, place.tag), find(&(*second).0, place.tag)) };
        Ok(match (in_first, in_second) {
            (Some(index), _) => Some(Self::new(first, place.first, index)),
            (None, Some(index)) => Some(Self::new(second, place.second, index)),
            (None, None) => None,
        })
    }

    #[inline(always)]
    fn word(self) -> *mut u64 {
        // SAFETY: the mask keeps the index inside the bucket.
        unsafe { (&raw mut (*self.bucket).0).cast::<u64>().add(self.number as usize & 7) }
    }

    #[inline(always)]
    fn read(self) -> Slot {
        // SAFETY: a word of a bucket.
        Slot(unsafe { atomic::read(self.word()) })
    }

    /// Where the flow's clients' packets come from.
    #[inline(always)]
    fn hop(self) -> Option<*mut u16> {
        let hops = FLOW_HOPS.get_ptr_mut(self.number / BUCKET_SLOTS as u32)?;
        // SAFETY: the mask keeps the index inside the value.
        Some(unsafe { (&raw mut (*hops).0).cast::<u16>().add(self.number as usize & 7) })
    }
}

/// The backend of a steered flow, and whether the flow begins with this packet.
#[inline(always)]
pub fn steer(arrival: &mut Arrival, service: &ServiceRef) -> Result<(Begun, bool), Reason> {
    if let Some(slot) = FlowSlot::of(Place::of(arrival.hash, globals::flow_mask()))? {
        if let Some(backend) = go_on(slot, arrival, service)? {
            return Ok((Begun::new(backend.index, 0, 0), false));
        }
        arrival.slot = slot.number;
    }
    arrival.choose_backend()?;
    Ok((Begun::unpack(begin_steered(arrival))?, true))
}

/// What a FIN leads to where the server's is not seen: the client's ends the flow.
const ON_FIN: FlowState = FlowState::Closing;

/// Whether answers to the service's flows come back by this machine, although they are steered only.
#[inline(always)]
fn is_answered_here(service: &ServiceRef) -> bool {
    globals::has_mode(Mode::Nat) && service.mode() == Mode::Nat as u8
}

/// The backend of a flow that goes on, its age and state brought up to date; none where it is over.
#[inline(always)]
fn go_on(slot: FlowSlot, arrival: &mut Arrival, service: &ServiceRef) -> Result<Option<BackendRef>, Reason> {
    let found = slot.read();
    let life = found.life();
    if arrival.ends(life, service) {
        explain::flow(Explanation::IS_OVER, slot.number, life);
        return Ok(None);
    }
    let backend = BackendRef::at(found.backend()).ok_or(Reason::BadState)?;
    explain::flow(Explanation::LEAVES, slot.number, life);
    if !backend.keeps_flow_of(service, arrival.has_begun())? {
        return Ok(None);
    }
    explain::flow(Explanation::GOES_ON, slot.number, life);
    explain::backend(backend.index);
    let answered_here = is_answered_here(service);
    let used = if answered_here {
        life.asked(arrival.protocol(), arrival.packet.tcp_flags, arrival.now, service.classes())
    } else {
        arrival.used(life, service, ON_FIN)
    };
    if used != life && !globals::explains() {
        // SAFETY: a word of a bucket.
        unsafe { atomic::write(slot.word(), used.put(found.0)) };
        if answered_here {
            arrival.slot = slot.number;
            follow_client(arrival);
        }
    }
    Ok(Some(backend))
}

/// Takes note of where the client's packets come from, once a tick: its router may have changed.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn follow_client(arrival: *const Arrival) -> i32 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    let Some(arrival) = (unsafe { arrival.as_ref() }) else { return 0 };
    let Some(hop) = FlowSlot::at(arrival.slot).and_then(FlowSlot::hop) else { return 0 };
    // Where there is no room for another neighbour, answers go on to the one that is known.
    if let Ok(client_hop) = egress::remember_client_hop(arrival.packet.source_mac) {
        // SAFETY: an aligned half-word of a map's value. Where another CPU gives the slot to another flow at this very
        // moment, that flow's answers go astray for a tick.
        unsafe { atomic::write(hop, client_hop) };
    }
    0
}

/// The flow of a client's packet, left as it is; none where it is over.
#[inline(always)]
pub fn seen(arrival: &Arrival, service: &ServiceRef) -> Option<Begun> {
    let found = find_flow(arrival.hash);
    if found < 0 {
        return None;
    }
    let flow = FlowSlot::at(found as u32)?.read();
    let is_live = !flow.life().expired_for(arrival.now, service.timeouts());
    is_live.then(|| Begun::new(flow.backend(), 0, 0))
}

/// Of the flow of `service` that a packet answers, if it answers one: the backend, and where its client's packets come
/// from. Where it `peeks`, the flow is left as it is.
#[inline(always)]
pub fn answered(packet: &Packet, service: &ServiceRef, peeks: bool) -> Option<(u16, u16)> {
    let (client, client_port) = (words_of(&packet.destination.addr), packet.destination.port);
    let slot = slot_of(&FlowKey { client, client_port, service: service.index })?;
    let found = slot.read();
    let now = clock::now();
    let backend = BackendRef::at(found.backend())?;
    let is_its = backend.service() == service.index
        && *backend.addr() == packet.source
        && backend.port() == packet.source_port;
    if !is_its || found.life().expired_for(now, service.timeouts()) {
        return None;
    }
    // SAFETY: an aligned half-word of a map's value.
    let client_hop = unsafe { atomic::read(slot.hop()?) };
    // The place may have become another flow's meanwhile.
    if (slot.read().0 ^ found.0) >> Life::BITS != 0 {
        return None;
    }
    explain::flow(Explanation::IS_ANSWER, slot.number, found.life());
    explain::backend(backend.index);
    let protocol = packet.destination.protocol;
    let used = found.life().answered(protocol, packet.tcp_flags, now, service.classes());
    if used != found.life() && !peeks && !globals::explains() {
        // SAFETY: a word of a bucket.
        unsafe { atomic::write(slot.word(), used.put(found.0)) };
    }
    Some((backend.index, client_hop))
}

/// Whether a live flow between a client and a service goes to a server.
#[inline(always)]
pub fn is_known(key: &FlowKey, server: &BackendRef) -> bool {
    let Some((slot, service)) = slot_of(key).zip(ServiceRef::at(key.service)) else { return false };
    let found = slot.read();
    let same = BackendRef::at(found.backend())
        .is_some_and(|backend| backend.service() == key.service && backend.is_server(server));
    same && !found.life().expired_for(clock::now(), service.timeouts())
}

/// Forgets a flow.
#[inline(always)]
pub fn forget(key: &FlowKey) {
    if let Some(slot) = slot_of(key) {
        // SAFETY: a word of a bucket.
        unsafe { atomic::write(slot.word(), 0) };
    }
}

#[inline(always)]
fn slot_of(key: &FlowKey) -> Option<FlowSlot> {
    let [high, low] = key.client;
    let rest = u32::from(u16::from_ne_bytes(key.client_port)) << 16 | u32::from(key.service);
    let found = find_flow(hash_of_flow(high, low, rest));
    if found < 0 { None } else { FlowSlot::at(found as u32) }
}

/// The hash of the flow of a client, port and service. A function of its own for the verifier, see [`crate::arrival`], as
/// is the next one: one after the other they need less of the stack than together.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hash_of_flow(client_high: u64, client_low: u64, port_and_service: u32) -> u64 {
    let key = FlowKey {
        client: [client_high, client_low],
        client_port: ((port_and_service >> 16) as u16).to_ne_bytes(),
        service: port_and_service as u16,
    };
    flow_hash(globals::hash_key(), &key)
}

/// The number of the slot that remembers a flow; negative where none does.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_flow(hash: u64) -> i64 {
    match FlowSlot::of(Place::of(hash, globals::flow_mask())) {
        Ok(Some(slot)) => i64::from(slot.number),
        _ => -1,
    }
}

/// Begins a steered flow: a [`Begun`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn begin_steered(arrival: *const Arrival) -> i64 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    match unsafe { arrival.as_ref() } {
        Some(arrival) => Begun::pack(begin(arrival)),
        None => Begun::pack(Err(Reason::BadState)),
    }
}

#[inline(always)]
fn begin(arrival: &Arrival) -> Result<Begun, Reason> {
    let service = ServiceRef::at(arrival.service).ok_or(Reason::BadState)?;
    let backend = arrival.chosen()?;
    // What cannot be sent is no flow.
    egress::next_hop(backend.next_hop())?;
    if globals::explains() {
        return Ok(Begun::new(backend.index, 0, 0));
    }
    let place = Place::of(arrival.hash, globals::flow_mask());
    let (slot, worth) = if arrival.slot == Arrival::NOWHERE {
        vacancy(place, arrival)?
    } else {
        (FlowSlot::at(arrival.slot).ok_or(Reason::BadState)?, u32::MAX)
    };
    // Another CPU may have begun a flow there since, or gone on with it: that one stays.
    let before = slot.read();
    if before.life().worth(arrival.now) > worth {
        return Err(Reason::TableContended);
    }
    if is_answered_here(&service) {
        let flow = Slot::new(place.tag, backend.index, arrival.begun(&service, FlowState::HalfClosed));
        publish(slot, before, flow, egress::remember_client_hop(arrival.packet.source_mac)?)?;
    } else {
        let flow = Slot::new(place.tag, backend.index, arrival.begun(&service, ON_FIN));
        // SAFETY: a word of a bucket.
        if !unsafe { atomic::exchange(slot.word(), before.0, flow.0) } {
            return Err(Reason::TableContended);
        }
    }
    loads::place(&service, &backend);
    Ok(Begun::new(backend.index, 0, 0))
}

/// Claims a slot, writes down where answers go, and then the flow: nobody sees the one without the other.
#[inline(always)]
fn publish(slot: FlowSlot, before: Slot, flow: Slot, client_hop: u16) -> Result<(), Reason> {
    let hop = slot.hop().ok_or(Reason::BadState)?;
    let is_claimed = matches!(before.life().state(), FlowState::Claimed);
    // SAFETY: a word of a bucket, and an aligned half-word that is this CPU's while the word is claimed.
    unsafe {
        if is_claimed || !atomic::exchange(slot.word(), before.0, Slot::CLAIMED.0) {
            return Err(Reason::TableContended);
        }
        atomic::write(hop, client_hop);
        atomic::exchange(slot.word(), Slot::CLAIMED.0, flow.0);
    }
    Ok(())
}

/// The word of two buckets whose flow is worth least, and what it is worth.
#[inline(always)]
fn vacancy(place: Place, arrival: &Arrival) -> Result<(FlowSlot, u32), Reason> {
    let first = FLOWS.get_ptr_mut(place.first).ok_or(Reason::BadState)?;
    let second = FLOWS.get_ptr_mut(place.second).ok_or(Reason::BadState)?;
    // SAFETY: values of the map; words that other CPUs write meanwhile are whole words of some flow.
    let (first_words, second_words) = unsafe { (&(*first).0, &(*second).0) };
    let salt = arrival.hash >> 32;
    let one = Vacancy::of(first_words, arrival.now, salt);
    let two = Vacancy::of(second_words, arrival.now, salt);
    if two.better_than(one) {
        Ok((FlowSlot::new(second, place.second, two.slot as usize), two.worth))
    } else {
        Ok((FlowSlot::new(first, place.first, one.slot as usize), one.worth))
    }
}
