//! Bounds: a backend that has as many flows as it may gets no new ones.

use super::{Candidate, Placement};

/// Percent of its bound at which a full backend gets flows again.
const FREE_PERCENT: u64 = 95;

/// Which candidates are full.
pub(super) fn full(
    candidates: &[Candidate],
    active: &impl Fn(usize) -> bool,
    before: &Placement,
) -> Vec<bool> {
    let is_full = |(index, candidate): (usize, &Candidate)| {
        let bound = u64::from(candidate.max_flows);
        let Some(flows) = candidate.flows.filter(|_| bound > 0 && active(index)) else { return false };
        let was_full = before.share(candidate.address).is_some_and(|share| share.is_full);
        let enough = if was_full { (bound * FREE_PERCENT / 100).min(bound - 1) + 1 } else { bound };
        flows >= enough
    };
    candidates.iter().enumerate().map(is_full).collect()
}
