//! The table of steered flows on the map's memory; its rules are in `lb_common::flow_table`.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use lb_common::{
    Explanation, FlowState, Reason,
    flow_table::{BUCKET_SLOTS, Bucket, Place, Slot, Vacancy, find},
};

use crate::{
    arrival::{Arrival, Begun},
    atomic,
    backend::BackendRef,
    egress, explain, globals, loads,
    service::{IN_MEMORY, ServiceRef},
};

/// The agent sets the size at load.
#[btf_map]
static FLOWS: Array<Bucket, 1, IN_MEMORY> = Array::new();

/// The backend of a steered flow, and whether the flow begins with this packet.
#[inline(always)]
pub fn steer(arrival: &mut Arrival, service: &ServiceRef) -> Result<(BackendRef, bool), Reason> {
    let place = Place::of(arrival.hash, globals::flow_mask());
    // Both lines are asked for before either is looked at, so that their misses overlap.
    let first = FLOWS.get_ptr_mut(place.first).ok_or(Reason::BadState)?;
    let second = FLOWS.get_ptr_mut(place.second).ok_or(Reason::BadState)?;
    // SAFETY: values of the map; words that other CPUs write meanwhile are whole words of some flow.
    let (in_first, in_second) = unsafe { (find(&(*first).0, place.tag), find(&(*second).0, place.tag)) };
    let known = match (in_first, in_second) {
        (Some(index), _) => Some((first, place.first, index)),
        (None, Some(index)) => Some((second, place.second, index)),
        (None, None) => None,
    };
    if let Some((bucket, bucket_index, index)) = known {
        let slot = bucket_index * BUCKET_SLOTS as u32 + index as u32;
        if let Some(backend) = go_on(word_at(bucket, index), slot, arrival, service)? {
            return Ok((backend, false));
        }
        arrival.slot = slot;
    }
    arrival.choose_backend()?;
    let begun = Begun::unpack(begin_steered(arrival))?;
    Ok((BackendRef::at(begun.backend()).ok_or(Reason::BadState)?, true))
}

#[inline(always)]
fn word_at(bucket: *mut Bucket, index: usize) -> *mut u64 {
    // SAFETY: the mask keeps the index inside the bucket.
    unsafe { (&raw mut (*bucket).0).cast::<u64>().add(index & 7) }
}

/// What a FIN leads to: the server's is not seen, so the client's ends the flow.
const ON_FIN: FlowState = FlowState::Closing;

/// The backend of a flow that goes on, its age and state brought up to date; none where it is over.
#[inline(always)]
fn go_on(
    word: *mut u64,
    slot_number: u32,
    arrival: &Arrival,
    service: &ServiceRef,
) -> Result<Option<BackendRef>, Reason> {
    // SAFETY: a word of a bucket.
    let slot = Slot(unsafe { atomic::read(word) });
    let life = slot.life();
    if arrival.ends(life, service) {
        explain::flow(Explanation::IS_OVER, slot_number, life);
        return Ok(None);
    }
    let backend = BackendRef::at(slot.backend()).ok_or(Reason::BadState)?;
    explain::flow(Explanation::LEAVES, slot_number, life);
    if !backend.keeps_flow_of(service, arrival.has_begun())? {
        return Ok(None);
    }
    explain::flow(Explanation::GOES_ON, slot_number, life);
    explain::backend(backend.index);
    let used = arrival.used(life, service, ON_FIN);
    if used != life && !globals::explains() {
        // SAFETY: as above.
        unsafe { atomic::write(word, used.put(slot.0)) };
    }
    Ok(Some(backend))
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
    let word = if arrival.slot == Arrival::NOWHERE {
        vacancy(place, arrival)?
    } else {
        let bucket = FLOWS.get_ptr_mut(arrival.slot / BUCKET_SLOTS as u32).ok_or(Reason::BadState)?;
        word_at(bucket, arrival.slot as usize)
    };
    // SAFETY: a word of a bucket.
    unsafe { atomic::write(word, Slot::new(place.tag, backend.index, arrival.begun(&service, ON_FIN)).0) };
    loads::place(&service, &backend);
    Ok(Begun::new(backend.index, 0, 0))
}

/// The word of two buckets whose flow is worth least.
#[inline(always)]
fn vacancy(place: Place, arrival: &Arrival) -> Result<*mut u64, Reason> {
    let first = FLOWS.get_ptr_mut(place.first).ok_or(Reason::BadState)?;
    let second = FLOWS.get_ptr_mut(place.second).ok_or(Reason::BadState)?;
    // SAFETY: values of the map; words that other CPUs write meanwhile are whole words of some flow.
    let (first_words, second_words) = unsafe { (&(*first).0, &(*second).0) };
    let salt = arrival.hash >> 32;
    let one = Vacancy::of(first_words, arrival.now, salt);
    let two = Vacancy::of(second_words, arrival.now, salt);
    if two.better_than(one) {
        Ok(word_at(second, two.slot as usize))
    } else {
        Ok(word_at(first, one.slot as usize))
    }
}
