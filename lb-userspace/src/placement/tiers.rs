//! Priorities: the next one is used as well where too few backends of those before it are.

use std::collections::BTreeSet;

use super::{Candidate, is_below};

/// The priorities in use: the first that there is, and each next one while less than `failover_below` percent of the
/// weight of those before it is usable, or none of it.
pub(super) fn in_use(
    candidates: &[Candidate],
    counted: &[bool],
    usable: &[bool],
    failover_below: u8,
    before: &BTreeSet<u8>,
) -> BTreeSet<u8> {
    let all: BTreeSet<u8> = candidates
        .iter()
        .zip(counted)
        .filter(|(_, counted)| **counted)
        .map(|(candidate, _)| candidate.priority)
        .collect();
    let mut used = BTreeSet::new();
    for priority in all {
        if !used.is_empty() {
            let weight_of = |counts: &[bool]| -> u32 {
                candidates
                    .iter()
                    .zip(counts)
                    .filter(|(candidate, counts)| **counts && used.contains(&candidate.priority))
                    .map(|(candidate, _)| u32::from(candidate.weight))
                    .sum()
            };
            let (has, of) = (weight_of(usable), weight_of(counted));
            if has > 0 && !is_below(has, of, failover_below, before.contains(&priority)) {
                break;
            }
        }
        used.insert(priority);
    }
    used
}
