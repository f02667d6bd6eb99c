//! What becomes of flows when backends come, go and change: every mode, version and protocol, on the real program.

use std::collections::BTreeMap;

use harness::{
    dataplane::{Action, DataPlane, Kind, Options, backend_mac},
    packets::{Parsed, flags},
};
use lb_common::Reason;

use flowgate::datapath::apply::WantedBackend;

const FLOWS: u32 = 1_000;

/// A plane of four backends with `FLOWS` flows that go on, and the backend of each.
fn plane(kind: Kind) -> (DataPlane, Vec<WantedBackend>, BTreeMap<u32, u8>) {
    let mut plane = DataPlane::with(&Options::default().flows(4096));
    let backends: Vec<_> = (11..15).map(|n| kind.backend(n)).collect();
    plane.apply(&[kind.service(backends.clone())]);
    for n in 0..FLOWS {
        assert!(plane.run(0, &kind.request(kind.client(n)).frame()).action.is_sent(), "{kind}: flow {n}");
    }
    let flows = go_on(&plane, kind);
    assert_eq!(flows.len(), FLOWS as usize, "{kind}");
    (plane, backends, flows)
}

/// One further packet of every flow: which backend it goes to, by the last byte of its MAC address.
fn go_on(plane: &DataPlane, kind: Kind) -> BTreeMap<u32, u8> {
    let more = |n| plane.run(0, &kind.more(kind.client(n)).frame());
    (0..FLOWS).filter_map(|n| destination(&more(n)).map(|backend| (n, backend))).collect()
}

fn destination(fate: &harness::dataplane::Fate) -> Option<u8> {
    fate.action.is_sent().then(|| fate.frame[5])
}

fn last_byte(backend: &WantedBackend) -> u8 {
    backend_mac(backend.address).0[5]
}

/// How many flows are not where they were.
fn moved(before: &BTreeMap<u32, u8>, after: &BTreeMap<u32, u8>) -> usize {
    before.iter().filter(|(flow, backend)| after.get(flow) != Some(backend)).count()
}

#[test]
fn no_flow_moves_when_others_are_added_drained_or_given_another_weight() {
    for kind in Kind::that_steer() {
        let (mut plane, mut backends, before) = plane(kind);
        backends.push(kind.backend(15));
        plane.apply(&[kind.service(backends.clone())]);
        assert_eq!(moved(&before, &go_on(&plane, kind)), 0, "{kind}: one was added");
        backends[1].ring_weight = 500;
        plane.apply(&[kind.service(backends.clone())]);
        assert_eq!(moved(&before, &go_on(&plane, kind)), 0, "{kind}: another weight");
        // A drain: no new flows, the old ones go on.
        backends[0].ring_weight = 0;
        plane.apply(&[kind.service(backends.clone())]);
        assert_eq!(moved(&before, &go_on(&plane, kind)), 0, "{kind}: one is drained");
        let drained = last_byte(&backends[0]);
        let new: Vec<_> = (FLOWS..2 * FLOWS)
            .filter_map(|n| destination(&plane.run(0, &kind.request(kind.client(n)).frame())))
            .collect();
        assert!(new.len() == FLOWS as usize && !new.contains(&drained), "{kind}");
    }
}

#[test]
fn the_flows_of_a_backend_that_is_gone_or_disabled_move_and_no_others() {
    for kind in Kind::that_steer() {
        for disable in [false, true] {
            let (mut plane, mut backends, before) = plane(kind);
            let gone = last_byte(&backends[2]);
            if disable {
                backends[2].usable = false;
                backends[2].ring_weight = 0;
            } else {
                backends.remove(2);
            }
            plane.apply(&[kind.service(backends)]);
            let after = go_on(&plane, kind);
            assert_eq!(after.len(), FLOWS as usize, "{kind}");
            assert!(after.values().all(|backend| *backend != gone), "{kind}");
            let others = before.iter().filter(|(_, backend)| **backend != gone);
            let others: BTreeMap<_, _> = others.map(|(flow, backend)| (*flow, *backend)).collect();
            assert_eq!(moved(&others, &after), 0, "{kind}: disabled {disable}");
        }
    }
}

/// A client that connects again from the same port is not sent to the backend that is gone, and what that one still
/// has to say to the old connection does not meet the new one.
#[test]
fn a_syn_or_datagram_to_a_backend_that_is_gone_or_disabled_begins_a_flow_at_another() {
    for kind in Kind::that_steer() {
        for disable in [false, true] {
            let (mut plane, mut backends, before) = plane(kind);
            let gone = backends[2].address;
            let its_flows = before.iter().filter(|(_, byte)| **byte == last_byte(&backends[2]));
            let source_of = |client| Parsed::of(&plane.run(0, &kind.more(client).frame()).frame).source();
            let its_flows: Vec<_> =
                its_flows.map(|(n, _)| kind.client(*n)).map(|client| (client, source_of(client))).collect();
            if disable {
                backends[2].usable = false;
                backends[2].ring_weight = 0;
            } else {
                backends.remove(2);
            }
            plane.apply(&[kind.service(backends)]);
            for (client, old_source) in its_flows {
                let again = plane.run(0, &kind.request(client).frame());
                let to = destination(&again);
                assert!(to.is_some() && to != Some(backend_mac(gone).0[5]), "{kind}: {client}: {again:?}");
                if kind.is_full_nat() {
                    let late = kind.answer(gone, old_source).frame();
                    plane.case(format!("{kind}: a late answer")).send(&late).passes(Reason::NotService);
                    let again = Parsed::of(&again.frame);
                    let answer = kind.answer(again.destination(), again.source());
                    let fate = plane.run(0, &answer.frame());
                    assert_eq!(fate.frame, kind.returned(&answer, client, 0).frame(), "{kind}: {client}");
                }
            }
        }
    }
}

/// Established connections stay (the machine may only be slow to answer probes); datagrams and SYNs go elsewhere.
#[test]
fn what_has_not_begun_leaves_a_backend_that_is_down() {
    for kind in Kind::that_steer() {
        let (mut plane, mut backends, before) = plane(kind);
        let half_open: Vec<_> = (FLOWS..2 * FLOWS).collect();
        for n in &half_open {
            assert!(plane.run(0, &kind.request(kind.client(*n)).frame()).action.is_sent());
        }
        let down = last_byte(&backends[3]);
        backends[3].down = true;
        backends[3].ring_weight = 0;
        plane.apply(&[kind.service(backends)]);
        for n in half_open {
            let again = plane.run(0, &kind.request(kind.client(n)).frame());
            assert_ne!(destination(&again), Some(down), "{kind}: a SYN or datagram is sent again");
        }
        let on_it = |flows: &BTreeMap<u32, u8>| flows.values().filter(|backend| **backend == down).count();
        let after = go_on(&plane, kind);
        let expected = if kind.udp { 0 } else { on_it(&before) };
        assert_eq!(on_it(&after), expected, "{kind}");
    }
}

#[test]
fn a_connection_after_one_that_has_ended_is_a_new_flow() {
    for kind in Kind::that_steer().filter(|kind| !kind.udp) {
        for end in [flags::FIN | flags::ACK, flags::RST] {
            let (mut plane, backends, before) = plane(kind);
            let client = kind.client(0);
            let last = plane.run(0, &kind.more(client).flags(end).frame());
            assert!(last.action.is_sent());
            if kind.rewrites() && end & flags::FIN != 0 {
                // Both sides have to end it, where both are seen.
                let last = Parsed::of(&last.frame);
                let fin = kind.answer(last.destination(), last.source()).flags(end).frame();
                assert!(plane.run(0, &fin).action.is_sent(), "{kind}");
            }
            // Late packets of the old one still find its backend.
            assert_eq!(destination(&plane.run(0, &kind.more(client).frame())), Some(before[&0]), "{kind}");
            // The only backend for new flows is another one.
            let only: Vec<_> = backends
                .into_iter()
                .map(|backend| {
                    let ring_weight = if last_byte(&backend) == before[&0] { 0 } else { 10 };
                    WantedBackend { ring_weight, ..backend }
                })
                .collect();
            plane.apply(&[kind.service(only)]);
            let again = destination(&plane.run(0, &kind.request(client).frame()));
            assert!(again.is_some() && again != Some(before[&0]), "{kind}: {again:?}");
        }
    }
}

#[test]
fn without_a_backend_a_next_hop_or_a_source_address_packets_are_dropped_and_counted() {
    for kind in Kind::that_steer() {
        let mut plane = DataPlane::new();
        let request = kind.request(kind.client(0)).frame();
        plane.apply(&[kind.service(Vec::new())]);
        plane.case(format!("{kind}: no backend")).send(&request).dropped(Reason::NoBackend);
        let lost = WantedBackend { next_hop: None, ..kind.backend(11) };
        plane.apply(&[kind.service(vec![lost])]);
        plane.case(format!("{kind}: no next hop")).send(&request).dropped(Reason::NoNextHop);
        if kind.is_full_nat() {
            let mute = WantedBackend { sources: Vec::new(), ..kind.backend(12) };
            plane.apply(&[kind.service(vec![mute])]);
            plane.case(format!("{kind}: no source")).send(&request).dropped(Reason::NoSourceAddress);
        }
        plane.apply(&[kind.service(vec![kind.backend(11)])]);
        assert_eq!(plane.run(0, &request).action, Action::Tx, "{kind}");
        plane.apply(&[kind.service(Vec::new())]);
        plane.case(format!("{kind}: the last has gone")).send(&request).dropped(Reason::NoBackend);
        plane.apply(&[]);
        plane.case(format!("{kind}: the service has gone")).send(&request).passes(Reason::NotService);
    }
}

#[test]
fn the_agent_counts_flows_and_sweeps_those_that_are_over() {
    for kind in Kind::that_steer() {
        let (mut plane, backends, before) = plane(kind);
        let counts = plane.flows();
        assert_eq!(counts.steered + counts.translated, u64::from(FLOWS), "{kind}");
        for backend in &backends {
            let index = plane.live(0, backend.address).index as usize;
            let expected = before.values().filter(|byte| **byte == last_byte(backend)).count() as u64;
            assert_eq!(counts.by_backend[index], expected, "{kind}");
        }
        // A moment later all are still there; long after, none is.
        plane.sweep(1);
        assert_eq!(plane.flows(), counts, "{kind}");
        plane.apply(&[kind.service(backends[1..].to_vec())]);
        plane.sweep(1);
        let left = before.values().filter(|byte| **byte != last_byte(&backends[0])).count() as u64;
        assert_eq!(plane.flows().steered + plane.flows().translated, left, "{kind}: one backend has gone");
        plane.sweep(0x7000);
        assert_eq!(plane.flows().steered + plane.flows().translated, 0, "{kind}");
    }
}
