//! Per-CPU counters. Nothing is summed here that the agent can sum when somebody asks.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use lb_common::{
    BackendCounter, Reason,
    abi::MAX_INTERFACES,
    counters::BackendCounters,
    reason::{REASONS, counter_index},
};

use crate::{globals, steer::Steered};

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

/// Counts a packet from a client.
#[inline(always)]
pub fn count_request(steered: &Steered, bytes: u32) {
    if globals::explains() {
        return;
    }
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(u32::from(steered.backend.index)) {
        // SAFETY: as in `count_packet`.
        let counters = unsafe { &mut *counters };
        counters[BackendCounter::PacketsIn as usize] += 1;
        counters[BackendCounter::BytesIn as usize] += u64::from(bytes);
        counters[BackendCounter::Flows as usize] += u64::from(steered.is_new);
    }
}

/// Counts a packet from a backend.
#[inline(always)]
pub fn count_reply(backend_index: u16, bytes: u32) {
    if globals::explains() {
        return;
    }
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(u32::from(backend_index)) {
        // SAFETY: as in `count_packet`.
        let counters = unsafe { &mut *counters };
        counters[BackendCounter::PacketsOut as usize] += 1;
        counters[BackendCounter::BytesOut as usize] += u64::from(bytes);
    }
}
