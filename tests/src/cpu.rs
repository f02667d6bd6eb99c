//! Threads on a CPU of their own.

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Pins the calling thread to the `n`-th CPU that it may run on; where there is but one, to that.
///
/// # Panics
/// Where the kernel refuses.
pub fn pin_to(n: u32) {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread).expect("a thread may ask for its CPUs");
    let cpus: Vec<_> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    let mut one = CpuSet::new();
    one.set(cpus[n as usize % cpus.len()]).expect("the number of a CPU");
    sched_setaffinity(this_thread, &one).expect("a CPU that the thread may run on");
}
