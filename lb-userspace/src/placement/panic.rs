//! Panic: so few backends are up that the probes are to be doubted, or the rest is to be spared.

use super::{Candidate, is_below};
use crate::model::Health;

/// Whether fewer backends are up, by weight, than `threshold` percent of those that there is a verdict on.
pub(super) fn sets_in(candidates: &[Candidate], counted: &[bool], threshold: u8, before: bool) -> bool {
    if threshold == 0 {
        return false;
    }
    let judged = candidates
        .iter()
        .zip(counted)
        .filter(|(candidate, counted)| **counted && candidate.health != Health::Checking)
        .map(|(candidate, _)| candidate);
    let weight = |candidate: &Candidate| u32::from(candidate.weight);
    let all: u32 = judged.clone().map(weight).sum();
    let up: u32 = judged.filter(|candidate| candidate.health == Health::Up).map(weight).sum();
    is_below(up, all, threshold, before)
}
