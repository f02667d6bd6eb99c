//! The ring: one look-up, made by the agent (Eisenbud and others, NSDI 2016, 3.4).

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use lb_common::{
    Reason,
    ring::{LINE_SLOTS, RingLine, RingRef},
};

use super::Chosen;
use crate::{
    backend::BackendRef,
    loads,
    service::{IN_MEMORY, ServiceRef},
};

/// The agent sets the size at load.
#[btf_map]
static RINGS: Array<RingLine, 1, IN_MEMORY> = Array::new();

/// The backend at a place on the service's ring, if it takes another flow.
#[inline(always)]
pub fn at(service: &ServiceRef, ring: RingRef, slot: u32) -> Result<Chosen, Reason> {
    let (line, index) = ring.place(slot);
    let line = RINGS.get(line).ok_or(Reason::BadState)?;
    let index = line.0[(index % LINE_SLOTS) as usize];
    let backend = BackendRef::at(index).ok_or(Reason::BadState)?;
    // The ring without a backend is in place before the backend is disabled, but a packet may have read the old one.
    if !backend.takes_new_flow_of(service) {
        return Err(Reason::NoBackend);
    }
    let flows = if service.counts_flows() { loads::flows(&backend) } else { 0 };
    if backend.max_flows() != 0 && flows >= u64::from(backend.max_flows()) {
        return Err(Reason::BackendsFull);
    }
    Ok(Chosen { backend, slot, flows })
}
