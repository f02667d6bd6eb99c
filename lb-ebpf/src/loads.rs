//! How many flows each backend has, for services that ask: see `lb_common::Load`.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use lb_common::Load;

use crate::{atomic, backend::BackendRef, service::IN_MEMORY, service::ServiceRef};

/// The agent sets the size at load.
#[btf_map]
static LOADS: Array<Load, 1, IN_MEMORY> = Array::new();

/// The flows of a backend.
#[inline(always)]
pub fn flows(backend: &BackendRef) -> u64 {
    let Some(load) = LOADS.get_ptr_mut(u32::from(backend.index)) else { return 0 };
    // SAFETY: two aligned words of a map's value; each is whole, and either order of reading them is right.
    let load = unsafe {
        Load { base: atomic::read(&raw const (*load).base), placed: atomic::read(&raw const (*load).placed) }
    };
    load.flows()
}

/// Counts a flow that begins.
#[inline(always)]
pub fn place(service: &ServiceRef, backend: &BackendRef) {
    if !service.counts_flows() {
        return;
    }
    if let Some(load) = LOADS.get_ptr_mut(u32::from(backend.index)) {
        // SAFETY: an aligned word of a map's value.
        unsafe { atomic::add(&raw mut (*load).placed, 1) };
    }
}
