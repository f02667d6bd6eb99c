//! Round-robin: a ring that is laid out in turns, gone through slot by slot.

use aya_ebpf::{btf_maps::PerCpuArray, helpers::bpf_get_smp_processor_id, macros::btf_map};

use crate::{globals, service::ServiceRef};

/// By the service's index. The agent sets the size at load.
#[btf_map]
static TURNS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The next slot, modulo the ring's length. Each CPU goes through the ring on its own, from a place of its own: no line
/// that they share is written, and shares are exact on each.
#[inline(always)]
pub fn next(service: &ServiceRef) -> u32 {
    let Some(turn) = TURNS.get_ptr_mut(u32::from(service.index)) else { return 0 };
    // SAFETY: this CPU's own value, and programs do not interrupt each other on one CPU's receive path.
    let placed = unsafe { *turn };
    if !globals::explains() {
        // SAFETY: as above.
        unsafe { *turn = placed.wrapping_add(1) };
    }
    // SAFETY: the helper takes nothing and always answers.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    (placed as u32).wrapping_add(cpu.wrapping_mul(0x9e37_79b1) >> 16)
}
