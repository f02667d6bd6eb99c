//! The client's packets.

use lb_common::{
    Explanation, Reason,
    flow_table::find_key,
    nat_table::{NatBucket, NatValue, buckets_of, key_of},
};

use super::{
    ForwardSlot, NAT_FLOWS, ON_FIN,
    refresh::{REFRESHED, refresh_by_request},
};
use crate::{
    arrival::{Arrival, Begun},
    atomic,
    backend::BackendRef,
    explain, globals,
    service::ServiceRef,
};

/// The flow that a client's packet goes on with; where it is over, `arrival.slot` is its place.
#[inline(always)]
pub fn known(arrival: &mut Arrival, service: &ServiceRef) -> Result<Option<Begun>, Reason> {
    if let Some(slot) = slot_of(arrival.hash)? {
        if let Some(forward) = go_on(slot, arrival, service)? {
            return Ok(Some(forward));
        }
        arrival.slot = slot.number;
    }
    Ok(None)
}

/// The flow of a client's packet, left as it is; none where it is over.
#[inline(always)]
pub fn seen(arrival: &Arrival, service: &ServiceRef) -> Option<Begun> {
    let slot = slot_of(arrival.hash).ok()??;
    // SAFETY: a word of a bucket.
    let value = NatValue(unsafe { atomic::read(slot.value()) });
    let is_live = !value.life().expired_for(arrival.now, service.timeouts());
    is_live.then(|| Begun::new(value.backend(), value.port(), value.source()))
}

/// The slot that holds the flow of this hash.
#[inline(always)]
fn slot_of(hash: u64) -> Result<Option<ForwardSlot>, Reason> {
    let key = key_of(hash);
    let (first_index, second_index) = buckets_of(key, globals::nat_mask());
    // Both buckets are asked for before either is looked at, so that their misses overlap.
    let first = NAT_FLOWS.get_ptr_mut(first_index).ok_or(Reason::BadState)?;
    let second = NAT_FLOWS.get_ptr_mut(second_index).ok_or(Reason::BadState)?;
    Ok(match (find(first, key), find(second, key)) {
        (Some(slot), _) => Some(ForwardSlot::new(first, first_index, slot)),
        (None, Some(slot)) => Some(ForwardSlot::new(second, second_index, slot)),
        (None, None) => None,
    })
}

/// The slot of `bucket` that holds `key`.
#[inline(always)]
fn find(bucket: *mut NatBucket, key: u64) -> Option<usize> {
    // SAFETY: a value of the map; keys that other CPUs write meanwhile are whole keys of some flow, or claims.
    find_key(unsafe { &(*bucket).keys }, key)
}

/// The flow in `slot`, age and state brought up to date; none where it is over.
#[inline(always)]
fn go_on(slot: ForwardSlot, arrival: &mut Arrival, service: &ServiceRef) -> Result<Option<Begun>, Reason> {
    // SAFETY: a word of a bucket.
    let value = NatValue(unsafe { atomic::read(slot.value()) });
    let life = value.life();
    if arrival.ends(life, service) {
        explain::flow(Explanation::IS_OVER, slot.number, life);
        return Ok(None);
    }
    let backend = BackendRef::at(value.backend()).ok_or(Reason::BadState)?;
    explain::flow(Explanation::LEAVES, slot.number, life);
    if !backend.keeps_flow_of(service, arrival.has_begun())? {
        return Ok(None);
    }
    if arrival.used(life, service, ON_FIN) != life && !globals::explains() {
        arrival.slot = slot.number;
        if refresh_by_request(arrival) != REFRESHED {
            return Ok(None);
        }
    }
    explain::flow(Explanation::GOES_ON, slot.number, life);
    explain::backend(backend.index);
    explain::translation(value.port(), value.source());
    Ok(Some(Begun::new(value.backend(), value.port(), value.source())))
}
