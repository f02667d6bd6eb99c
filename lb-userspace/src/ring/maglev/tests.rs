use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Member, build};
use crate::ring::size;

fn member(at: u16, weight: u16) -> Member {
    let identity = format!("10.2.{}.{}:8080", at / 250, at % 250 + 1).parse().unwrap();
    Member { identity, weight, index: at + 1 }
}

fn members(weights: &[u16]) -> Vec<Member> {
    weights.iter().zip(0..).map(|(weight, at)| member(at, *weight)).collect()
}

fn slots(ring: &[u16]) -> BTreeMap<u16, usize> {
    let mut slots = BTreeMap::new();
    for index in ring {
        *slots.entry(*index).or_default() += 1;
    }
    slots
}

/// The share of the slots of `old` that were not `gone`'s and that `new` gives to another backend.
fn moved(old: &[u16], new: &[u16], gone: u16) -> f64 {
    let others = || old.iter().zip(new).filter(|(old, _)| **old != gone);
    others().filter(|(old, new)| old != new).count() as f64 / others().count().max(1) as f64
}

#[test]
fn nothing_to_choose_from_is_an_empty_ring() {
    assert!(build(&[], 1021).is_empty());
    assert!(build(&members(&[0, 0]), 1021).is_empty());
    assert!(build(&members(&[1]), 0).is_empty());
}

#[test]
fn a_lone_backend_has_every_slot() {
    assert_eq!(build(&members(&[0, 7]), 1021), vec![2; 1021]);
    assert_eq!(build(&members(&[1]), 1), vec![1]);
}

/// Nodes of one fleet may run different versions: what this ring is must never change.
#[test]
fn the_ring_is_the_same_in_every_version() {
    let mixed = [
        Member { identity: "10.2.0.11:8080".parse().unwrap(), weight: 10, index: 1 },
        Member { identity: "10.2.0.12:8080".parse().unwrap(), weight: 20, index: 2 },
        Member { identity: "[2001:db8::13]:8080".parse().unwrap(), weight: 1, index: 3 },
    ];
    let ring = build(&mixed, 1021);
    let first =
        [1, 1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 1, 2];
    assert_eq!(ring[..32], first);
    let digest =
        ring.iter().fold(0_u32, |digest, index| digest.wrapping_mul(31).wrapping_add(u32::from(*index)));
    assert_eq!(digest, 3_184_450_522);
}

#[test]
fn a_tiny_weight_beside_large_ones_still_has_its_share() {
    assert_eq!(slots(&build(&members(&[1000, 1]), 1021))[&2], 1);
    assert_eq!(slots(&build(&members(&[1000, 1000, 1000, 1]), 1021))[&4], 1);
    for large in [1, 3, 9, 99] {
        let weights: Vec<u16> = std::iter::repeat_n(1000, large).chain([1]).collect();
        let size = size(weights.iter().copied());
        let own = slots(&build(&members(&weights), size))[&(large as u16 + 1)] as f64;
        let exact = f64::from(size) / (large as f64 * 1000.0 + 1.0);
        assert!((own / exact - 1.0).abs() < 0.15, "beside {large}: {own} slots of {exact:.2}");
    }
}

#[test]
fn shares_are_right_to_a_thousandth_of_the_ring_whatever_the_weights() {
    let one_large: Vec<u16> = std::iter::once(1000).chain([1; 999]).collect();
    for weights in [&[1, 2, 3, 4][..], &[1000, 1], &[999, 1000], &[10; 7], &one_large] {
        let size = size(weights.iter().copied());
        let total: u32 = weights.iter().copied().map(u32::from).sum();
        let slots = slots(&build(&members(weights), size));
        for (member, weight) in members(weights).iter().zip(weights) {
            let exact = f64::from(*weight) * f64::from(size) / f64::from(total);
            let error = (slots[&member.index] as f64 - exact).abs();
            assert!(error <= 1.0 + f64::from(size) / 1000.0, "{} of {weight}: {error}", weights.len());
        }
    }
}

#[test]
fn a_backend_that_goes_moves_few_slots_of_others() {
    for count in [2, 3, 5, 10, 40, 100, 500] {
        let all = members(&vec![10; count]);
        let size = size(std::iter::repeat_n(10, count));
        let full = build(&all, size);
        let gone = all[count / 2];
        let rest: Vec<Member> = all.iter().copied().filter(|member| *member != gone).collect();
        let moved = moved(&full, &build(&rest, size), gone.index);
        println!("{count} backends, {size} slots: {:.2} % moved", moved * 100.0);
        assert!(moved <= 0.05, "{count}: {moved}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn shares_follow_weights_within_a_percent_of_the_ring(
        weights in prop::collection::vec(prop_oneof![0_u16..=1000, 1_u16..=10], 1..80),
    ) {
        let size = size(weights.iter().copied());
        let ring = build(&members(&weights), size);
        let total: u32 = weights.iter().copied().map(u32::from).sum();
        prop_assert_eq!(ring.len(), if total == 0 { 0 } else { size as usize });
        let slots = slots(&ring);
        for (member, weight) in members(&weights).iter().zip(&weights) {
            let got = slots.get(&member.index).copied().unwrap_or(0) as f64;
            let exact = f64::from(*weight) * f64::from(size) / f64::from(total.max(1));
            prop_assert!((got - exact).abs() <= f64::from(size) / 100.0, "weight {weight}: {got}, not \
                {exact}");
            prop_assert_eq!(got > 0.0, *weight > 0);
        }
    }

    #[test]
    fn the_order_of_the_members_does_not_matter(
        all in prop::collection::vec(0_u16..=1000, 1..40)
            .prop_flat_map(|weights| (Just(members(&weights)), Just(members(&weights)).prop_shuffle())),
    ) {
        let size = size(all.0.iter().map(|member| member.weight));
        prop_assert_eq!(build(&all.0, size), build(&all.1, size));
    }

    #[test]
    fn removal_moves_few_slots_of_others_whatever_the_weights(
        weights in prop::collection::vec(1_u16..=100, 2..60),
        gone in any::<prop::sample::Index>(),
    ) {
        let all = members(&weights);
        let size = size(all.iter().map(|member| member.weight));
        let gone = *gone.get(&all);
        let rest: Vec<Member> = all.iter().copied().filter(|member| *member != gone).collect();
        let moved = moved(&build(&all, size), &build(&rest, size), gone.index);
        prop_assert!(moved <= 0.1, "{moved}");
    }
}
