//! What the data plane is told, for each way in which a backend can stand.

use std::{collections::HashMap, net::SocketAddr, time::Instant};

use lb_common::{FlowState, life::Life};

use super::{
    testing::{BACKENDS, desired, facts_of, next_hop},
    *,
};
use crate::{
    health::HealthEvent,
    model::{AgentSettings, OnDown, Override},
    neigh::{self, NextHopEvent, Unresolved},
};

fn backend() -> SocketAddr {
    BACKENDS[0].parse().expect("an address and a port")
}

/// Facts about the first backend: up, and reached by `result`.
fn facts(desired: &Desired, health: Health, result: Result<neigh::NextHop, Unresolved>) -> Facts {
    let mut facts = Facts::new(HashMap::from([(7, 3)]), &AgentSettings::default());
    let service = desired.services.keys().next().expect("a service").clone();
    facts.on_health(HealthEvent {
        service,
        backend: backend(),
        health,
        reason: String::new(),
        at: Instant::now(),
    });
    facts.on_next_hop(NextHopEvent { address: backend().ip(), result });
    facts
}

/// The plan, where nothing was decided before.
fn plan_anew(desired: &Desired, facts: &Facts) -> Vec<WantedService> {
    let mut placements = Placements::default();
    placements.decide(desired, facts, &|_, _| None, Instant::now());
    plan(desired, facts, &placements)
}

fn first(desired: &Desired, facts: &Facts) -> WantedBackend {
    plan_anew(desired, facts)[0].backends[0].clone()
}

#[test]
fn on_down_decides_over_the_flows_of_the_dead_and_of_nobody_else() {
    for (on_down, dead) in [
        (OnDown::Keep, (true, true, false)),
        (OnDown::Rehash, (false, true, false)),
        (OnDown::Reset, (true, true, true)),
    ] {
        let mut desired = desired("full-nat");
        desired.services.values_mut().for_each(|entry| entry.service.on_down = on_down);
        for (health, expected) in [
            (Health::Down, dead),
            (Health::Checking, (true, true, false)),
            (Health::Up, (true, false, false)),
        ] {
            let wanted = first(&desired, &facts_of(&desired, [health, Health::Up]));
            assert_eq!((wanted.usable, wanted.down, wanted.reset), expected, "{on_down}, {health}");
        }
    }
}

/// Else a SYN from the port meets a backend that takes it for one of the connection before.
#[test]
fn where_nothing_is_said_a_port_waits_as_long_as_linux_is_in_time_wait() {
    let desired = desired("full-nat");
    let timeouts = plan_anew(&desired, &Facts::default())[0].timeouts;
    let last = Life::new(FlowState::Closing, timeouts.classes(), 0);
    let time_wait = ticks_of_ms(60_000);
    assert!(!last.expired(time_wait) && !last.expired_for(time_wait, timeouts));
}

#[test]
fn a_backend_that_is_up_is_on_the_ring_with_its_way_and_its_source_address() {
    let desired = desired("full-nat");
    let wanted = first(&desired, &facts(&desired, Health::Up, Ok(next_hop(true))));
    let expected = WantedBackend {
        address: backend(),
        usable: true,
        down: false,
        reset: false,
        ring_weight: 10,
        ramp_permille: 1000,
        max_flows: 0,
        next_hop: Some(NextHop {
            destination_mac: [2, 0, 0, 0, 0, 11],
            source_mac: [2, 0, 0, 0, 0, 1],
            interface_slot: 3,
            mtu: 1500,
        }),
        sources: vec!["10.2.0.1".parse().expect("an address")],
        source_host_bits: 0,
    };
    assert_eq!(wanted, expected);
}

#[test]
fn what_is_not_up_gets_no_new_flows_and_keeps_its_old_ones() {
    let desired = desired("full-nat");
    for health in [Health::Down, Health::Checking] {
        let wanted = first(&desired, &facts(&desired, health, Ok(next_hop(true))));
        assert_eq!((wanted.usable, wanted.down, wanted.ring_weight), (true, true, 0), "{health}");
    }
    let nothing_known = Facts::new(HashMap::new(), &AgentSettings::default());
    let wanted = first(&desired, &nothing_known);
    assert_eq!((wanted.usable, wanted.down, wanted.ring_weight), (true, true, 0));
}

#[test]
fn the_operator_decides_over_a_healthy_backend() {
    let cases = [
        (AdminState::Draining, None, (true, false, 0)),
        (AdminState::Disabled, None, (false, false, 0)),
        (AdminState::Enabled, Some(0), (true, false, 0)),
        (AdminState::Enabled, Some(70), (true, false, 70)),
    ];
    for (admin_state, weight, expected) in cases {
        let mut desired = desired("full-nat");
        let entry = desired.services.values_mut().next().expect("a service");
        entry.overrides.insert(backend(), Override { weight, admin_state: Some(admin_state) });
        let wanted = first(&desired, &facts(&desired, Health::Up, Ok(next_hop(true))));
        assert_eq!((wanted.usable, wanted.down, wanted.ring_weight), expected, "{admin_state} {weight:?}");
    }
}

#[test]
fn a_backend_without_a_way_is_down_whatever_probes_say() {
    let unresolved = Unresolved::settled("10.2.0.11 does not answer ARP on eth1".to_owned());
    let elsewhere = neigh::NextHop { ifindex: 8, ..next_hop(true) };
    let from_the_service =
        neigh::NextHop { source: Some("10.1.0.10".parse().expect("an address")), ..next_hop(true) };
    let cases = [
        ("full-nat", Err(unresolved), "does not answer ARP"),
        ("full-nat", Ok(elsewhere), "which Flowgate is not attached to"),
        ("full-nat", Ok(from_the_service), "preferred_lft 0"),
        ("dsr", Ok(next_hop(false)), "use mode full-nat"),
    ];
    for (mode, result, reason) in cases {
        let desired = desired(mode);
        let facts = facts(&desired, Health::Up, result);
        let wanted = first(&desired, &facts);
        assert!(wanted.down && wanted.ring_weight == 0, "{reason}");
        let entry = desired.services.values().next().expect("a service");
        let standing = facts.standing(&desired, entry, backend());
        assert_eq!(standing.health, Health::Down);
        assert!(standing.reason.contains(reason), "{}", standing.reason);
    }
}

#[test]
fn named_source_addresses_of_the_same_version_are_all_used() {
    let desired = desired("full-nat");
    let named = ["10.2.0.100", "10.2.0.101", "2001:db8::100"].map(|text| text.parse().expect("an address"));
    let mut facts = facts(&desired, Health::Up, Ok(next_hop(true)));
    facts.sources = named.to_vec();
    assert_eq!(first(&desired, &facts).sources, named[..2]);
}

#[test]
fn tunnels_begin_at_this_machine_or_in_the_network_that_is_named() {
    for mode in ["ipip", "gue"] {
        let desired = desired(mode);
        let mut facts = facts(&desired, Health::Up, Ok(next_hop(false)));
        let wanted = first(&desired, &facts);
        let own: std::net::IpAddr = "10.2.0.1".parse().expect("an address");
        assert_eq!((wanted.sources, wanted.source_host_bits), (vec![own], 0), "{mode}");
        facts.ipip_sources =
            ["fd00:99::/64", "10.99.0.0/16"].map(|text| text.parse().expect("a network")).into();
        let wanted = first(&desired, &facts);
        let named: std::net::IpAddr = "10.99.0.0".parse().expect("an address");
        let expected = if mode == "ipip" { (vec![named], 16) } else { (vec![own], 0) };
        assert_eq!((wanted.sources, wanted.source_host_bits), expected, "{mode}");
    }
}

#[test]
fn health_does_not_change_a_ring_s_size() {
    let desired = desired("full-nat");
    let up = plan_anew(&desired, &facts(&desired, Health::Up, Ok(next_hop(true))));
    let down = plan_anew(&desired, &facts(&desired, Health::Down, Ok(next_hop(true))));
    assert_eq!(up[0].ring_slots, down[0].ring_slots);
    assert!(up[0].ring_slots > 0);
}
