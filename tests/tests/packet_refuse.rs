//! Refusals that answer: RST and "port unreachable", byte for byte, and connections that end with their backend.

use std::net::SocketAddr;

use harness::{
    checksums::verify_checksums,
    dataplane::{Action, BALANCER_MACS, CLIENT_MAC, DataPlane, Kind},
    link::Mac,
    packets::{Packet, flags},
};
use lb_common::{
    Reason,
    reject::{IcmpError, REFUSALS_PER_TICK},
};

use flowgate::datapath::apply::{WantedBackend, WantedService};

fn rejecting(kind: Kind, backends: Vec<WantedBackend>) -> WantedService {
    WantedService { reject: true, ..kind.service(backends) }
}

/// What a RST to a client is, whole.
fn reset(kind: Kind, client: SocketAddr, set: u8, numbers: (u32, u32)) -> Vec<u8> {
    let packet = Packet::tcp(kind.address(), client).macs(BALANCER_MACS[0], CLIENT_MAC);
    packet.flags(set).numbers(numbers.0, numbers.1).identification(0).frame()
}

#[test]
fn a_connection_without_a_backend_is_reset() {
    for kind in Kind::that_steer().filter(|kind| !kind.udp) {
        let mut plane = DataPlane::new();
        plane.apply(&[rejecting(kind, Vec::new())]);
        let client = kind.client(1);
        let syn = kind.request(client).numbers(7_000, 0);
        for (name, packet, expected) in [
            ("a SYN", syn.clone(), reset(kind, client, flags::RST | flags::ACK, (0, 7_001))),
            (
                "a SYN with data",
                syn.payload(b"early"),
                reset(kind, client, flags::RST | flags::ACK, (0, 7_006)),
            ),
            (
                "a segment",
                kind.more(client).numbers(u32::MAX, 4_242),
                reset(kind, client, flags::RST, (4_242, 0)),
            ),
            (
                "a FIN without ACK",
                kind.more(client).flags(flags::FIN).numbers(u32::MAX, 0).payload(b"12345"),
                reset(kind, client, flags::RST | flags::ACK, (0, 5)),
            ),
            (
                "a long one with options",
                kind.more(client).numbers(1, 2).tcp_options(&[1; 20]).payload(&[0x55; 1_300]),
                reset(kind, client, flags::RST, (2, 0)),
            ),
        ] {
            plane
                .case(format!("{kind}: {name}"))
                .send(&packet.frame())
                .expect(Action::Tx, &expected)
                .moves([(Reason::RejectedNoBackend, 1)]);
        }
        // A RST is never answered (RFC 9293, 3.10.7.1).
        let rst = kind.more(client).flags(flags::RST).frame();
        plane.case(format!("{kind}: a RST")).send(&rst).dropped(Reason::NoBackend);
    }
}

#[test]
fn ip_options_are_not_in_the_reset() {
    let kind = Kind { mode: lb_common::Mode::FullNat, v6: false, udp: false };
    let mut plane = DataPlane::new();
    plane.apply(&[rejecting(kind, Vec::new())]);
    let client = kind.client(1);
    let syn = kind.request(client).numbers(9, 0).ip_options(&[1, 1, 1, 1]).frame();
    let expected = reset(kind, client, flags::RST | flags::ACK, (0, 10));
    plane.case("options").send(&syn).expect(Action::Tx, &expected).moves([(Reason::RejectedNoBackend, 1)]);
}

#[test]
fn a_datagram_without_a_backend_is_unreachable() {
    for kind in Kind::that_steer().filter(|kind| kind.udp) {
        let mut plane = DataPlane::new();
        plane.apply(&[rejecting(kind, Vec::new())]);
        let client = kind.client(1);
        for payload in [&b""[..], b"question", &[0x55; 1_200]] {
            let request = kind.request(client).payload(payload).frame();
            let fate = plane
                .case(format!("{kind}: {} bytes", payload.len()))
                .send(&request)
                .moves([(Reason::RejectedNoBackend, 1)]);
            assert_eq!(fate.action, Action::Tx, "{kind}");
            kind.assert_icmp_error(&fate.frame, client, &request, IcmpError::PortUnreachable);
        }
    }
}

/// As a router would (RFC 1812, 5.3.1; RFC 4443, 3.3): `traceroute` finds the balancer. dsr is no hop.
#[test]
fn a_client_is_told_that_its_packet_may_live_no_longer() {
    for kind in Kind::that_steer().filter(|kind| kind.rewrites()) {
        let mut plane = DataPlane::new();
        plane.apply(&[kind.service(vec![kind.backend(11)])]);
        let client = kind.client(1);
        let first = (0..=1).map(|ttl| (format!("the first, ttl {ttl}"), kind.request(client).ttl(ttl)));
        let more = (0..=1).map(|ttl| (format!("more, ttl {ttl}"), kind.more(client).ttl(ttl)));
        for (name, packet) in first.chain(more) {
            let frame = packet.payload(b"twenty bytes of data").frame();
            let fate = plane.case(format!("{kind}: {name}")).send(&frame).moves([(Reason::TimeExceeded, 1)]);
            assert_eq!(fate.action, Action::Tx, "{kind}: {name}");
            kind.assert_icmp_error(&fate.frame, client, &frame, IcmpError::TimeExceeded);
            let flows = plane.flows();
            assert_eq!(flows.translated + flows.steered, 0, "{kind}: {name}: it begins no flow");
        }
        assert!(plane.run(0, &kind.request(client).frame()).action.is_sent(), "{kind}");
        let frame = kind.more(client).ttl(1).frame();
        let fate = plane.case(format!("{kind}: of a flow")).send(&frame).moves([(Reason::TimeExceeded, 1)]);
        kind.assert_icmp_error(&fate.frame, client, &frame, IcmpError::TimeExceeded);
    }
}

/// A packet with IP options, of which the quoted part would be another; one to everybody, or from nobody in particular.
#[test]
fn what_cannot_be_answered_is_dropped() {
    for kind in Kind::of_mode(lb_common::Mode::FullNat) {
        let mut plane = DataPlane::new();
        plane.apply(&[kind.service(vec![kind.backend(11)])]);
        let last = kind.request(kind.client(1)).ttl(1);
        let nobody: SocketAddr =
            if kind.v6 { "[ff02::1]:4000" } else { "127.0.0.1:4000" }.parse().expect("one");
        let mut cases = vec![
            ("broadcast", last.clone().macs(CLIENT_MAC, Mac([0xff; 6]))),
            ("from nobody", last.clone().between(nobody, kind.address())),
        ];
        if !kind.v6 {
            cases.push(("options", last.ip_options(&[1, 1, 1, 1])));
        }
        for (name, packet) in cases {
            plane.case(format!("{kind}: {name}")).send(&packet.frame()).dropped(Reason::TtlExpired);
        }
    }
}

#[test]
fn icmp_errors_are_limited() {
    let of_mode = |mode| Kind { mode, v6: false, udp: true };
    let (dsr, nat) = (of_mode(lb_common::Mode::Dsr), of_mode(lb_common::Mode::Nat));
    for (kind, service, ttl, dropped) in [
        (dsr, rejecting(dsr, Vec::new()), 64, Reason::NoBackend),
        (nat, nat.service(vec![nat.backend(11)]), 1, Reason::TtlExpired),
    ] {
        let mut plane = DataPlane::new();
        plane.apply(&[service]);
        let sent = 4 * REFUSALS_PER_TICK;
        let request = kind.request(kind.client(1)).ttl(ttl).frame();
        let answered = (0..sent).filter(|_| plane.run(0, &request).action == Action::Tx).count() as u64;
        // The clock may move on meanwhile, and the test may run on another CPU.
        assert!(answered >= REFUSALS_PER_TICK && answered < sent, "{kind}: {answered} of {sent}");
        assert_eq!(plane.counters().packets(0, dropped), sent - answered, "{kind}");
    }
}

#[test]
fn where_all_are_full_new_flows_are_refused_and_old_ones_go_on() {
    for kind in Kind::all() {
        let mut plane = DataPlane::new();
        let backend = WantedBackend { max_flows: 1, ..kind.backend(11) };
        plane.apply(&[rejecting(kind, vec![backend])]);
        assert!(plane.run(0, &kind.request(kind.client(1)).frame()).action.is_sent(), "{kind}");
        let fate = plane
            .case(format!("{kind}: one too many"))
            .send(&kind.request(kind.client(2)).frame())
            .moves([(Reason::RejectedFull, 1)]);
        assert_eq!(fate.action, Action::Tx, "{kind}");
        verify_checksums(&fate.frame);
        let more = plane.run(0, &kind.more(kind.client(1)).frame());
        assert_eq!(more.frame[..6], harness::dataplane::backend_mac(kind.backend(11).address).0, "{kind}");
    }
}

#[test]
fn a_connection_ends_with_its_backend_where_that_is_asked_for() {
    for kind in Kind::all() {
        let mut plane = DataPlane::new();
        let backends = vec![kind.backend(11), kind.backend(12)];
        plane.apply(&[kind.service(backends.clone())]);
        let client = kind.client(1);
        let begun = plane.run(0, &kind.request(client).frame()).frame[5];
        let _ = plane.run(0, &kind.more(client).frame());
        let down: Vec<_> = backends
            .into_iter()
            .map(|backend| {
                let is_down = harness::dataplane::backend_mac(backend.address).0[5] == begun;
                let ring_weight = if is_down { 0 } else { backend.ring_weight };
                WantedBackend { down: is_down, reset: is_down, ring_weight, ..backend }
            })
            .collect();
        plane.apply(&[kind.service(down)]);
        if kind.udp {
            let moved = plane.run(0, &kind.more(client).frame());
            assert!(moved.action.is_sent() && moved.frame[5] != begun, "{kind}: datagrams move");
            continue;
        }
        // Again and again, since the client may not have got the first.
        for _ in 0..2 {
            plane
                .case(format!("{kind}: a segment"))
                .send(&kind.more(client).numbers(10, 20).frame())
                .expect(Action::Tx, &reset(kind, client, flags::RST, (20, 0)))
                .moves([(Reason::BackendReset, 1)]);
        }
        let rst = kind.more(client).flags(flags::RST).frame();
        plane.case(format!("{kind}: a RST")).send(&rst).dropped(Reason::BackendDown);
        let again = plane.run(0, &kind.request(client).frame());
        assert!(again.action.is_sent() && again.frame[5] != begun, "{kind}: a new connection");
    }
}
