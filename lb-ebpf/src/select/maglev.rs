//! The ring: one look-up, made by the agent (Eisenbud and others, NSDI 2016, 3.4).

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use lb_common::{
    Reason,
    ring::{LINE_SLOTS, RingLine, RingRef},
};

use crate::{
    backend::BackendRef,
    service::{IN_MEMORY, ServiceRef},
};

/// The agent sets the size at load.
#[btf_map]
static RINGS: Array<RingLine, 1, IN_MEMORY> = Array::new();

/// The backend at a hash's place on the service's ring.
#[inline(always)]
pub fn choose(service: &ServiceRef, ring_hash: u32) -> Result<BackendRef, Reason> {
    let ring = RingRef::unpack(service.ring());
    if ring.slots == 0 {
        return Err(Reason::NoBackend);
    }
    let (line, slot) = ring.locate(ring_hash);
    let line = RINGS.get(line).ok_or(Reason::BadState)?;
    let index = line.0[(slot % LINE_SLOTS) as usize];
    let backend = BackendRef::at(index).ok_or(Reason::BadState)?;
    // The ring without a backend is in place before the backend is disabled, but a packet may have read the old one.
    if !backend.takes_new_flow_of(service) {
        return Err(Reason::NoBackend);
    }
    Ok(backend)
}
