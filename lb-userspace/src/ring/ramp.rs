//! Slow start: the slots of a backend that starts slowly come to it one by one.

use std::collections::HashMap;

use super::{Member, hash::mix};

/// All of a backend's slots, in thousandths.
const WHOLE: u16 = 1000;

/// The ring that `layout` makes of `members`, of which some have no more than a part of their slots as yet: the number
/// beside each, in thousandths. The other slots are whose they would be without those members.
///
/// A slot that has come stays, and with all of its slots a backend has just the ring that `layout` makes: nothing
/// moves that need not. Where every member starts slowly none does, since there is nobody to take the rest.
#[must_use]
pub fn ramped(members: &[(Member, u16)], layout: impl Fn(&[Member]) -> Vec<u16>) -> Vec<u16> {
    let whole: Vec<_> = members.iter().map(|(member, _)| *member).collect();
    let mut ring = layout(&whole);
    let is_settled = |(_, ramp): &&(Member, u16)| *ramp >= WHOLE;
    let settled: Vec<_> = members.iter().filter(is_settled).map(|(member, _)| *member).collect();
    if settled.len() == members.len() {
        return ring;
    }
    let without = layout(&settled);
    if without.is_empty() {
        return ring;
    }
    let ramps: HashMap<u16, u16> = members.iter().map(|(member, ramp)| (member.index, *ramp)).collect();
    for (slot, index) in ring.iter_mut().enumerate() {
        let order = mix(slot as u64) % u64::from(WHOLE);
        if order >= u64::from(ramps.get(index).copied().unwrap_or(WHOLE)) {
            *index = without[slot % without.len()];
        }
    }
    ring
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::build, Member, ramped};

    fn members(count: u16) -> Vec<Member> {
        (1..=count)
            .map(|index| Member { identity: ([10, 0, 0, index as u8], 80).into(), weight: 10, index })
            .collect()
    }

    fn ring_at(ramp: u16) -> Vec<u16> {
        let ramp_of = |member: Member| (member, if member.index == 1 { ramp } else { 1000 });
        let members: Vec<_> = members(4).into_iter().map(ramp_of).collect();
        ramped(&members, |members| build(members, 4099))
    }

    fn slots_of(ring: &[u16], index: u16) -> usize {
        ring.iter().filter(|slot| **slot == index).count()
    }

    #[test]
    fn where_all_start_slowly_none_does() {
        let starting: Vec<_> = members(4).into_iter().map(|member| (member, 100)).collect();
        assert_eq!(ramped(&starting, |members| build(members, 4099)), build(&members(4), 4099));
    }

    #[test]
    fn a_part_is_a_part() {
        let whole = slots_of(&ring_at(1000), 1);
        for ramp in [100, 250, 500, 900] {
            let expected = whole as f64 * f64::from(ramp) / 1000.0;
            let has = slots_of(&ring_at(ramp), 1) as f64;
            assert!(
                (has - expected).abs() < 0.15 * whole as f64,
                "{has} slots at {ramp}, {expected} expected"
            );
        }
        assert_eq!(ring_at(1000), build(&members(4), 4099));
        assert_eq!(slots_of(&ring_at(0), 1), 0);
    }

    proptest! {
        #[test]
        fn a_slot_that_has_come_stays(early in 0_u16..=1000, later in 0_u16..=1000) {
            let (early, later) = (early.min(later), early.max(later));
            let (before, after) = (ring_at(early), ring_at(later));
            for (before, after) in before.iter().zip(&after) {
                prop_assert!(before == after || *after == 1, "only the starting backend gains");
            }
        }
    }
}
