//! Per-CPU counters. Nothing is summed here that the agent can sum when somebody asks.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use lb_common::{
    BackendCounter, Reason,
    abi::MAX_INTERFACES,
    counters::BackendCounters,
    reason::{REASONS, counter_index},
};

use crate::globals;

#[btf_map]
static PACKETS: PerCpuArray<u64, { (MAX_INTERFACES * REASONS) as usize }> = PerCpuArray::new();

/// The agent sets the size at load.
#[btf_map]
static BACKEND_COUNTERS: PerCpuArray<BackendCounters, 1> = PerCpuArray::new();

/// Counts a packet of this interface.
#[inline(always)]
pub fn count_packet(reason: Reason) {
    if globals::explains() {
        return;
    }
    if let Some(counter) = PACKETS.get_ptr_mut(counter_index(globals::interface_slot(), reason)) {
        // SAFETY: this CPU's own value, and programs do not interrupt each other on one CPU's receive path.
        unsafe { *counter += 1 };
    }
}

/// Counts a packet of a backend: one that goes to it, or comes from it; `is_new` where a flow begins with it.
#[inline(always)]
pub fn count_backend(reason: Reason, backend: u16, is_new: bool, bytes: u32) {
    if globals::explains() {
        return;
    }
    let (packets, all_bytes) = if matches!(reason, Reason::Replied) {
        (BackendCounter::PacketsOut, BackendCounter::BytesOut)
    } else {
        (BackendCounter::PacketsIn, BackendCounter::BytesIn)
    };
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(u32::from(backend)) {
        // SAFETY: as in `count_packet`.
        let counters = unsafe { &mut *counters };
        counters[packets as usize] += 1;
        counters[all_bytes as usize] += u64::from(bytes);
        counters[BackendCounter::Flows as usize] += u64::from(is_new);
    }
}
