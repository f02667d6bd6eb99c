//! The order in which round-robin takes backends: smooth and weighted.

use super::{
    Member,
    turns::{First, turns},
};

/// Builds a ring to be gone through slot by slot, each slot the index of a member; empty where no member has a weight.
///
/// Where the weights' sum, reduced by their common divisor, fits into `size`, the ring is as many whole rounds as fit,
/// and shares are exact. Where it does not, the ring has `size` slots, shares are rounded, and every member has one.
/// `size` is not below the number of members. The order of `members` does not matter.
#[must_use]
pub fn sequence(members: &[Member], size: u32) -> Vec<u16> {
    let mut members: Vec<Member> = members.iter().copied().filter(|member| member.weight > 0).collect();
    members.sort_unstable();
    let divisor = members.iter().fold(0, |divisor, member| common_divisor(member.weight, divisor)).max(1);
    let round: u32 = members.iter().map(|member| u32::from(member.weight / divisor)).sum();
    if round == 0 || size == 0 {
        return Vec::new();
    }
    let indices = |slots, first| turns(&members, slots, first).map(|turn| members[turn].index).collect();
    if round > size {
        return indices(size, First::AtOnce);
    }
    let one: Vec<u16> = indices(round, First::InTurn);
    one.repeat((size / round) as usize)
}

fn common_divisor(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Member, sequence};

    fn members(weights: &[u16]) -> Vec<Member> {
        let member = |(weight, index): (&u16, u16)| Member {
            identity: ([10, 0, (index >> 8) as u8, index as u8], 80).into(),
            weight: *weight,
            index,
        };
        weights.iter().zip(1..).map(member).collect()
    }

    fn slots_of(ring: &[u16], index: u16) -> usize {
        ring.iter().filter(|slot| **slot == index).count()
    }

    #[test]
    fn turns_are_spread() {
        assert_eq!(sequence(&members(&[30, 10]), 4), [1, 1, 2, 1]);
        assert_eq!(sequence(&members(&[10, 10, 10]), 7), [1, 2, 3, 1, 2, 3]);
        assert_eq!(sequence(&members(&[0, 5]), 3), [2, 2, 2]);
        assert_eq!(sequence(&members(&[0]), 3), [0_u16; 0]);
        assert_eq!(sequence(&[], 3), [0_u16; 0]);
    }

    #[test]
    fn a_small_weight_has_a_turn_where_a_round_does_not_fit() {
        let ring = sequence(&members(&[1000, 999, 998, 997, 996, 1]), 4099);
        assert_eq!(ring.len(), 4099);
        assert_eq!(slots_of(&ring, 6), 1);
    }

    proptest! {
        #[test]
        fn shares_are_exact_in_each_round(weights in prop::collection::vec(0_u16..=50, 1..40)) {
            let ring = sequence(&members(&weights), 4099);
            let total: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            for (weight, index) in weights.iter().zip(1..) {
                prop_assert_eq!(slots_of(&ring, index) * total, ring.len() * usize::from(*weight));
            }
        }

        #[test]
        fn no_window_has_much_more_than_its_share(weights in prop::collection::vec(1_u16..=50, 2..20), at: usize) {
            let ring = sequence(&members(&weights), 4099);
            let total: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            let start = at % ring.len();
            let length = (ring.len() - start).min(total / 2 + 1);
            for (weight, index) in weights.iter().zip(1..) {
                let fair = length as f64 * f64::from(*weight) / total as f64;
                let has = slots_of(&ring[start..start + length], index) as f64;
                prop_assert!((has - fair).abs() <= 2.0, "{has} of {length} where {fair} would be fair");
            }
        }
    }
}
