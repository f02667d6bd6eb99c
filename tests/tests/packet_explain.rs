//! `flowgate lookup`'s source: what the program says that it would do is what it then does, and asking changes nothing.

use std::{thread, time::Duration};

use harness::{
    cpu::pin_to,
    dataplane::{DataPlane, Kind, backend_mac},
    packets::{Packet, Parsed, flags},
};
use lb_common::{FlowState, Life, Mode, Reason, Scheduler};

use flowgate::datapath::{
    apply::{WantedBackend, WantedService},
    flows::now_tick,
};

/// Asks about a packet and then lets it come in: the answer and what happens are both `expected`.
fn assert_explained(plane: &DataPlane, kind: Kind, packet: &Packet, expected: Reason) {
    let frame = packet.frame();
    let explained = Reason::from_index(plane.explain(&frame).reason);
    let before = plane.counters();
    let fate = plane.run(0, &frame);
    let moved = plane.counters().since(&before);
    let happened = Reason::ALL.iter().filter(|reason| moved.packets(0, **reason) != 0);
    let happened: Vec<_> = happened.copied().collect();
    assert_eq!((explained, happened), (expected, vec![expected]), "{kind}: {:?}", fate.action);
}

/// Whatever becomes of a packet that begins a flow, goes on with one or answers one.
#[test]
fn the_reason_that_is_explained_is_what_then_happens() {
    for kind in Kind::all() {
        let mut plane = DataPlane::new();
        assert_refusals_are_explained(&mut plane, kind);
        assert_fate_of_a_flow_is_explained(&mut plane, kind);
    }
}

/// A new flow that finds no backend, none with room, or none that can be reached.
fn assert_refusals_are_explained(plane: &mut DataPlane, kind: Kind) {
    let first = kind.request(kind.client(1));
    let second = kind.request(kind.client(2));
    for (reject, none, full) in [
        (false, Reason::NoBackend, Reason::BackendsFull),
        (true, Reason::RejectedNoBackend, Reason::RejectedFull),
    ] {
        plane.apply(&[WantedService { reject, ..kind.service(Vec::new()) }]);
        assert_explained(plane, kind, &first, none);
        let backend = WantedBackend { max_flows: 1, ..kind.backend(11) };
        plane.apply(&[WantedService { reject, ..kind.service(vec![backend]) }]);
        assert_explained(plane, kind, &first, Reason::Forwarded);
        assert_explained(plane, kind, &second, full);
    }
    plane.apply(&[kind.service(vec![WantedBackend { next_hop: None, ..kind.backend(12) }])]);
    assert_explained(plane, kind, &second, Reason::NoNextHop);
    if kind.is_full_nat() {
        plane.apply(&[kind.service(vec![WantedBackend { sources: Vec::new(), ..kind.backend(13) }])]);
        assert_explained(plane, kind, &second, Reason::NoSourceAddress);
    }
}

/// Packets of a flow while its backend is up, and when it is down and has its connections reset.
fn assert_fate_of_a_flow_is_explained(plane: &mut DataPlane, kind: Kind) {
    let backend = kind.backend(11);
    plane.apply(&[kind.service(vec![backend.clone()])]);
    let client = kind.client(3);
    assert_explained(plane, kind, &kind.request(client), Reason::Forwarded);
    assert_explained(plane, kind, &kind.more(client), Reason::Forwarded);
    let sent = plane.run(0, &kind.more(client).frame()).frame;
    let source = if kind.rewrites() { Parsed::of(&sent).source() } else { client };
    let answer =
        if kind.is_tunnel() { kind.more(client).reversed() } else { kind.answer(backend.address, source) };
    let (answered, at_its_end) = match kind.mode {
        Mode::FullNat | Mode::Nat => (Reason::Replied, Reason::TimeExceeded),
        Mode::Dsr => (Reason::NotService, Reason::Forwarded),
        Mode::Ipip | Mode::Gue => (Reason::NotService, Reason::TimeExceeded),
    };
    assert_explained(plane, kind, &answer, answered);
    assert_explained(plane, kind, &kind.more(client).ttl(1), at_its_end);
    let down = WantedBackend { down: true, reset: true, ring_weight: 0, ..backend };
    plane.apply(&[kind.service(vec![down])]);
    // A datagram, like a SYN, has nothing to lose: it looks for another backend, which there is not.
    let then = if kind.udp { Reason::NoBackend } else { Reason::BackendReset };
    assert_explained(plane, kind, &kind.more(client), then);
    assert_explained(plane, kind, &kind.request(client), Reason::NoBackend);
}

/// Neither a segment that would establish a connection nor a RST or FIN does anything to one that is asked about, and
/// its age goes on. A flow that would begin does not.
#[test]
fn a_question_leaves_flows_as_they_are() {
    // All kinds wait at once.
    let planes: Vec<_> = Kind::all().map(|kind| (kind, begun(kind))).collect();
    let tick = now_tick();
    while now_tick() == tick {
        thread::sleep(Duration::from_millis(10));
    }
    for (kind, (plane, halves)) in planes {
        let lives = || halves.clone().map(|packet| plane.explain(&packet.frame()).life);
        let before = lives();
        let state = if kind.udp { FlowState::Datagrams } else { FlowState::HalfOpen };
        for life in before.map(|life| Life::of(life.into())) {
            assert_eq!((life.state(), life.age(now_tick()) > 0), (state, true), "{kind}");
        }
        for set in [flags::ACK, flags::ACK | flags::FIN, flags::RST, flags::SYN] {
            for packet in halves.clone() {
                let packet = if kind.udp { packet } else { packet.flags(set) };
                let _ = plane.explain(&packet.frame());
            }
        }
        assert_eq!(lives(), before, "{kind}: state and last use");
        let new = kind.request(kind.client(2)).frame();
        let flows = plane.flows();
        let asked = [plane.explain(&new), plane.explain(&new)];
        assert_eq!(asked.map(|explanation| explanation.flow), [0, 0], "{kind}: nothing is remembered");
        assert_eq!(plane.flows(), flows, "{kind}");
    }
}

/// A data plane with one flow, and packets by which each half of it can be asked about.
fn begun(kind: Kind) -> (DataPlane, [Packet; 2]) {
    let mut plane = DataPlane::new();
    let backend = kind.backend(11);
    plane.apply(&[kind.service(vec![backend.clone()])]);
    let client = kind.client(1);
    let sent = plane.run(0, &kind.request(client).frame()).frame;
    let other = match kind.mode {
        Mode::FullNat | Mode::Nat => kind.answer(backend.address, Parsed::of(&sent).source()),
        Mode::Dsr | Mode::Ipip | Mode::Gue => kind.request(client),
    };
    (plane, [kind.more(client), other])
}

/// However often it is asked: round-robin does not go on by it, and least-conn counts nothing.
#[test]
fn the_backend_that_is_explained_is_the_one_that_a_new_flow_gets() {
    for kind in Kind::all() {
        let mut plane = DataPlane::new();
        let backends: Vec<_> = (11..14).map(|n| kind.backend(n)).collect();
        for (scheduler, first) in [
            (Scheduler::Maglev, 0),
            (Scheduler::SourceHash, 100),
            (Scheduler::RoundRobin, 200),
            (Scheduler::LeastConn, 300),
        ] {
            plane.apply(&[WantedService { scheduler, ..kind.service(backends.clone()) }]);
            // Each CPU takes turns of its own.
            let asked = || {
                pin_to(0);
                (first..first + 10).for_each(|n| assert_backend_is_explained(&plane, kind, n));
            };
            thread::scope(|scope| scope.spawn(asked).join().expect("what is explained comes true"));
        }
    }
}

/// Asks three times which backend the flow of client `n` would get, and begins it.
fn assert_backend_is_explained(plane: &DataPlane, kind: Kind, n: u32) {
    let request = kind.request(kind.client(n)).frame();
    let explained = [(); 3].map(|()| plane.explain(&request).backend);
    let got = plane.run(0, &request).frame[5];
    let backend = (11..14).map(|n| kind.backend(n).address).find(|address| backend_mac(*address).0[5] == got);
    let index = backend.map(|address| plane.live(0, address).index);
    assert_eq!(explained.map(Some), [index; 3], "{kind}: client {n}");
}
