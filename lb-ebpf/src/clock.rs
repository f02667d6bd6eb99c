//! The coarse clock.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use lb_common::life::tick_of_ns;

/// The tick of this moment. The coarse clock is as old as the kernel's last timer tick, and costs a load.
#[inline(always)]
pub fn now() -> u16 {
    // SAFETY: the helper takes nothing and touches nothing of ours.
    tick_of_ns(unsafe { bpf_ktime_get_coarse_ns() })
}
