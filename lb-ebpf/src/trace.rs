//! Debug lines into the agent's log. Off, the verifier removes them and they cost nothing.

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use lb_common::Reason;

use crate::globals;

/// What became of a frame.
#[inline(always)]
pub fn fate(ctx: &XdpContext, bytes: usize, reason: Reason) {
    if globals::debug_packets() {
        debug!(
            ctx,
            "interface slot {}: {} bytes, reason {}",
            globals::interface_slot(),
            bytes,
            reason as u32
        );
    }
}
