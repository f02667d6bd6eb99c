use std::time::Duration;

use proptest::prelude::*;

use super::{Candidate, Placement, Policy, Share, WHOLE, place, ramp};
use crate::model::{AdminState, Health, PanicAction};

const POLICY: Policy = Policy {
    slow_start: Duration::ZERO,
    panic_threshold: 0,
    panic_action: PanicAction::All,
    failover_below: 50,
};

fn candidate(host: u8, health: Health) -> Candidate {
    Candidate {
        address: ([10, 2, 0, host], 8080).into(),
        weight: 10,
        priority: 0,
        health,
        admin_state: AdminState::Enabled,
        is_reachable: true,
        starting_for: None,
        flows: None,
        max_flows: 0,
    }
}

/// Candidates of a priority, of which the first `up` are up.
fn tier(priority: u8, up: usize, all: usize) -> Vec<Candidate> {
    (0..all)
        .map(|n| {
            let health = if n < up { Health::Up } else { Health::Down };
            Candidate { priority, ..candidate(priority * 50 + n as u8 + 1, health) }
        })
        .collect()
}

fn on_ring(placement: &Placement) -> usize {
    placement.shares.iter().filter(|share| share.ring_weight > 0).count()
}

/// What is decided of two tiers of four, of the first of which `up` are up.
fn two_tiers(up: usize, before: &Placement) -> Placement {
    place(&[tier(0, up, 4), tier(1, 4, 4)].concat(), &POLICY, before)
}

#[test]
fn who_is_up_enabled_weighted_and_reachable_gets_flows() {
    let up = candidate(1, Health::Up);
    let others = [
        Candidate { health: Health::Down, ..up },
        Candidate { health: Health::Checking, ..up },
        Candidate { admin_state: AdminState::Draining, ..up },
        Candidate { admin_state: AdminState::Disabled, ..up },
        Candidate { weight: 0, ..up },
        Candidate { is_reachable: false, ..up },
    ];
    for other in others {
        let placement = place(&[up, other], &POLICY, &Placement::default());
        assert_eq!(placement.shares[0].ring_weight, 10);
        assert_eq!(placement.shares[1].ring_weight, 0, "{other:?}");
        assert!(!placement.panic);
    }
}

#[test]
fn the_next_priority_joins_where_too_few_are_up_and_leaves_late() {
    let none = Placement::default();
    assert_eq!(on_ring(&two_tiers(4, &none)), 4);
    assert_eq!(on_ring(&two_tiers(2, &none)), 2, "half is not below half");
    let joined = two_tiers(1, &none);
    assert_eq!(on_ring(&joined), 1 + 4, "the first stays in use");
    // 50 % is not enough to leave again, 75 % is.
    let still = two_tiers(2, &joined);
    assert_eq!(on_ring(&still), 2 + 4);
    assert_eq!(on_ring(&two_tiers(3, &still)), 3);
    assert_eq!(on_ring(&two_tiers(0, &none)), 4);
}

#[test]
fn who_cannot_be_reached_is_missing() {
    // A host that dies on the local network has no next hop any more.
    let dead = |priority, up| {
        tier(priority, up, 4)
            .into_iter()
            .map(|candidate| Candidate { is_reachable: candidate.health == Health::Up, ..candidate })
    };
    let candidates: Vec<_> = dead(0, 1).chain(dead(1, 4)).collect();
    let placement = place(&candidates, &POLICY, &Placement::default());
    assert_eq!(on_ring(&placement), 1 + 4);
    let policy = Policy { panic_threshold: 60, panic_action: PanicAction::None, ..POLICY };
    assert!(!place(&candidates, &policy, &Placement::default()).panic, "5 of 8 are up");
    let candidates: Vec<_> = dead(0, 1).chain(dead(1, 3)).collect();
    assert!(place(&candidates, &policy, &Placement::default()).panic, "4 of 8 are up");
}

#[test]
fn a_backend_that_is_alone_has_everything_at_once() {
    let policy = Policy { slow_start: Duration::from_secs(60), ..POLICY };
    let starting = Candidate { starting_for: Some(Duration::ZERO), ..candidate(1, Health::Up) };
    let down = candidate(2, Health::Down);
    let alone = place(&[starting, down], &policy, &Placement::default());
    assert_eq!(alone.shares[0].ramp_permille, WHOLE);
    let other = candidate(2, Health::Up);
    assert_eq!(place(&[starting, other], &policy, &alone).shares[0].ramp_permille, 100);
}

#[test]
fn without_a_threshold_the_next_priority_is_for_when_nobody_is_up() {
    let policy = Policy { failover_below: 0, ..POLICY };
    for (up, expected) in [(4, 4), (1, 1), (0, 4)] {
        let candidates = [tier(0, up, 4), tier(1, 4, 4)].concat();
        assert_eq!(on_ring(&place(&candidates, &policy, &Placement::default())), expected, "{up} up");
    }
}

#[test]
fn in_panic_all_are_used_or_none() {
    let policy = |panic_action| Policy { panic_threshold: 50, panic_action, ..POLICY };
    let none = Placement::default();
    let all = place(&tier(0, 1, 4), &policy(PanicAction::All), &none);
    assert!(all.panic && on_ring(&all) == 4);
    let spared = |share: &&Share| share.in_spite_of_health;
    assert_eq!(all.shares.iter().filter(spared).count(), 3);
    let nobody = place(&tier(0, 1, 4), &policy(PanicAction::None), &none);
    assert!(nobody.panic && on_ring(&nobody) == 0);
    // It ends above 60 %, and does not begin at 50 %.
    assert!(!place(&tier(0, 2, 4), &policy(PanicAction::All), &none).panic);
    assert!(place(&tier(0, 2, 4), &policy(PanicAction::All), &all).panic);
    assert!(!place(&tier(0, 3, 4), &policy(PanicAction::All), &all).panic);
}

#[test]
fn panic_is_no_reason_to_use_what_has_no_verdict_or_no_way() {
    let policy = Policy { panic_threshold: 100, ..POLICY };
    let lost = Candidate { is_reachable: false, ..candidate(2, Health::Down) };
    let candidates = [candidate(1, Health::Checking), lost, candidate(3, Health::Down)];
    let placement = place(&candidates, &policy, &Placement::default());
    assert!(placement.panic);
    assert_eq!(placement.shares.iter().map(|share| share.ring_weight).collect::<Vec<_>>(), [0, 0, 10]);
    let unjudged = [candidate(1, Health::Checking), candidate(2, Health::Checking)];
    assert!(!place(&unjudged, &policy, &Placement::default()).panic);
}

#[test]
fn a_full_backend_leaves_until_there_is_room() {
    let with = |flows| Candidate { flows: Some(flows), max_flows: 100, ..candidate(1, Health::Up) };
    let other = candidate(2, Health::Up);
    let decide = |flows, before: &Placement| place(&[with(flows), other], &POLICY, before);
    let room = decide(99, &Placement::default());
    assert_eq!(on_ring(&room), 2);
    let full = decide(100, &room);
    assert_eq!(on_ring(&full), 1);
    assert!(full.shares[0].is_full);
    let still = decide(96, &full);
    assert_eq!(on_ring(&still), 1, "a flow that ends is no room yet");
    assert_eq!(on_ring(&decide(95, &still)), 2);
    // A bound of one.
    let one = |flows| Candidate { flows: Some(flows), max_flows: 1, ..candidate(1, Health::Up) };
    let full = place(&[one(1), other], &POLICY, &Placement::default());
    assert_eq!(on_ring(&full), 1);
    assert_eq!(on_ring(&place(&[one(0), other], &POLICY, &full)), 2);
}

#[test]
fn where_all_are_full_all_stay() {
    let full = Candidate { flows: Some(7), max_flows: 7, ..candidate(1, Health::Up) };
    let down = candidate(2, Health::Down);
    let placement = place(&[full, down], &POLICY, &Placement::default());
    assert_eq!(placement.shares[0].ring_weight, 10);
    assert!(placement.shares[0].is_full);
    assert_eq!(placement.shares[1].ring_weight, 0);
}

#[test]
fn a_slow_start_rises_to_the_whole() {
    let minute = Duration::from_secs(60);
    let at = |seconds| ramp(Some(Duration::from_secs(seconds)), minute);
    assert_eq!([at(0), at(30), at(59), at(60), at(600)], [100, 550, 950, WHOLE, WHOLE]);
    assert_eq!(ramp(None, minute), WHOLE);
    assert_eq!(ramp(Some(Duration::ZERO), Duration::ZERO), WHOLE);
}

#[test]
fn what_a_starting_backend_lacks_goes_to_the_others() {
    let share = |host: u8, ring_weight, ramp_permille| Share {
        address: ([10, 2, 0, host], 8080).into(),
        ring_weight,
        ramp_permille,
        in_spite_of_health: false,
        is_full: false,
    };
    let parts = |shares: Vec<Share>| -> Vec<u32> {
        let placement = Placement { shares, ..Placement::default() };
        let part = |share| (placement.part_of_new_flows(share) * 1000.0).round() as u32;
        placement.shares.iter().map(part).collect()
    };
    assert_eq!(parts(vec![share(1, 10, WHOLE), share(2, 30, WHOLE), share(3, 0, WHOLE)]), [250, 750, 0]);
    assert_eq!(parts(vec![share(1, 10, WHOLE), share(2, 10, 500)]), [750, 250]);
    assert_eq!(parts(vec![share(1, 10, 100), share(2, 30, 100)]), [250, 750]);
    assert_eq!(parts(vec![share(1, 20, WHOLE), share(2, 10, WHOLE), share(3, 10, 200)]), [633, 317, 50]);
    assert_eq!(parts(vec![share(1, 0, WHOLE)]), [0]);
}

prop_compose! {
    fn any_candidate(host: u8)(
        weight in 0_u16..=20, priority in 0_u8..3, health in 0_usize..3, admin in 0_usize..4,
        is_reachable in prop::bool::weighted(0.9), flows in 0_u64..20, max_flows in 0_u32..20,
    ) -> Candidate {
        Candidate {
            weight, priority, is_reachable, max_flows,
            flows: Some(flows),
            health: [Health::Up, Health::Down, Health::Checking][health],
            admin_state: [AdminState::Enabled, AdminState::Enabled, AdminState::Draining, AdminState::Disabled][admin],
            ..candidate(host, Health::Up)
        }
    }
}

fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    (1_usize..12).prop_flat_map(|count| (1..=count as u8).map(any_candidate).collect::<Vec<_>>())
}

prop_compose! {
    fn any_policy()(panic_threshold in 0_u8..=100, all: bool, failover_below in 0_u8..=100) -> Policy {
        let panic_action = if all { PanicAction::All } else { PanicAction::None };
        Policy { panic_threshold, panic_action, failover_below, ..POLICY }
    }
}

proptest! {
    #[test]
    fn nothing_flaps(candidates in any_candidates(), others in any_candidates(), policy in any_policy()) {
        let before = place(&others, &policy, &Placement::default());
        let once = place(&candidates, &policy, &before);
        prop_assert_eq!(&place(&candidates, &policy, &once), &once);
    }

    #[test]
    fn weights_are_whole_or_nothing_and_never_for_whom_they_must_not_be(
        candidates in any_candidates(), policy in any_policy(),
    ) {
        let placement = place(&candidates, &policy, &Placement::default());
        for (candidate, share) in candidates.iter().zip(&placement.shares) {
            prop_assert!(share.ring_weight == 0 || share.ring_weight == candidate.weight);
            let may = candidate.admin_state == AdminState::Enabled && candidate.is_reachable
                && (candidate.health == Health::Up || placement.panic && candidate.health == Health::Down);
            prop_assert!(may || share.ring_weight == 0);
        }
    }

    #[test]
    fn where_somebody_can_take_flows_somebody_does(candidates in any_candidates(), policy in any_policy()) {
        let placement = place(&candidates, &policy, &Placement::default());
        let can = candidates.iter().any(|candidate| {
            candidate.admin_state == AdminState::Enabled && candidate.weight > 0 && candidate.is_reachable
                && candidate.health == Health::Up
        });
        let spared = placement.panic && policy.panic_action == PanicAction::None;
        prop_assert!(!can || spared || on_ring(&placement) > 0);
    }

    #[test]
    fn a_ramp_never_goes_back(early in 0_u64..100_000, later in 0_u64..100_000, slow_start in 0_u64..100_000) {
        let at = |millis| ramp(Some(Duration::from_millis(millis)), Duration::from_millis(slow_start));
        prop_assert!(at(early.min(later)) <= at(early.max(later)));
    }
}
