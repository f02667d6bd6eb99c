//! dsr: only the MAC addresses change, as by a switch.

use std::ops::Range;

use harness::{
    dataplane::{Action, BALANCER_MACS, CLIENT_MAC, DataPlane, Kind, Options, backend_mac, behind},
    packets::{Packet, flags},
};
use lb_common::{Explanation, Mode, Reason};

fn kinds() -> [Kind; 4] {
    Kind::of_mode(Mode::Dsr)
}

#[test]
fn requests_go_to_the_backends_mac_address() {
    for kind in kinds() {
        let mut plane = DataPlane::new();
        let backend = kind.backend(11);
        plane.apply(&[kind.service(vec![backend.clone()])]);
        let client = kind.client(1);
        for (packet, flows) in
            [(kind.request(client), 1), (kind.more(client), 0), (kind.more(client).ttl(1), 0)]
        {
            plane
                .case(format!("{kind}"))
                .send(&packet.frame())
                .expect(Action::Tx, &kind.sent_to(&packet, &backend).frame())
                .credits(backend.address, [1, packet.frame().len() as u64, 0, 0, flows])
                .moves([(Reason::Forwarded, 1)]);
        }
    }
}

#[test]
fn between_two_interfaces_frames_are_redirected() {
    for kind in kinds() {
        let mut plane = DataPlane::new();
        let backend = behind(kind.backend(11), 1);
        plane.apply(&[kind.service(vec![backend.clone()])]);
        let request = kind.request(kind.client(1));
        let expected = request.clone().macs(BALANCER_MACS[1], backend_mac(backend.address));
        for (slot, action, flows) in [(0, Action::Redirect, 1), (1, Action::Tx, 0)] {
            plane
                .case(format!("{kind}, by slot {slot}"))
                .by(slot)
                .send(&request.frame())
                .expect(action, &expected.frame())
                .credits(backend.address, [1, request.frame().len() as u64, 0, 0, flows])
                .moves([(Reason::Forwarded, 1)]);
        }
    }
}

/// Whatever else a packet has stays: a hop limit at its end, options, class, label, wrong or missing checksums.
#[test]
fn nothing_else_changes() {
    for kind in kinds() {
        let mut plane = DataPlane::new();
        let backend = kind.backend(11);
        plane.apply(&[kind.service(vec![backend.clone()])]);
        let plain = kind.request(kind.client(1)).payload(b"odd");
        let mut shapes: Vec<Packet> = [0, 1, 2, 255].map(|ttl| plain.clone().ttl(ttl)).to_vec();
        shapes.push(
            plain.clone().traffic_class(0xff).flow_label(0xf_ffff).identification(0).dont_fragment(false),
        );
        if !kind.v6 {
            shapes.extend((1..=10).map(|words| plain.clone().ip_options(&vec![1; words * 4])));
        }
        if kind.udp {
            shapes.push(plain.clone().without_checksum());
        } else {
            shapes.extend((1..=10).map(|words| plain.clone().tcp_options(&vec![1; words * 4])));
            shapes.extend([0, flags::FIN, flags::RST, 0xff].map(|set| plain.clone().flags(set)));
        }
        for shape in shapes {
            let frame = shape.frame();
            let mut wrong = frame.clone();
            *wrong.last_mut().expect("a frame has bytes") ^= 0xff;
            for frame in [frame, wrong] {
                let mut expected = frame.clone();
                expected[..6].copy_from_slice(&backend_mac(backend.address).0);
                expected[6..12].copy_from_slice(&BALANCER_MACS[0].0);
                let fate = plane.run(0, &frame);
                assert_eq!((fate.action, fate.frame), (Action::Tx, expected), "{kind}: {shape:?}");
            }
        }
    }
}

/// Backends answer clients themselves; where such an answer comes by, it is none of ours.
#[test]
fn answers_pass() {
    for kind in kinds() {
        let mut plane = DataPlane::new();
        let backend = kind.backend(11);
        plane.apply(&[kind.service(vec![backend.clone()])]);
        let request = kind.request(kind.client(1));
        assert_eq!(plane.run(0, &request.frame()).action, Action::Tx);
        let answer = request.reversed().macs(backend_mac(backend.address), CLIENT_MAC);
        plane.case(format!("{kind}: answer")).send(&answer.frame()).passes(Reason::NotService);
    }
}

/// dsr and full-nat at one address, on two ports, with the same clients.
#[test]
fn modes_live_side_by_side() {
    for dsr in kinds() {
        let nat = Kind { mode: Mode::FullNat, ..dsr };
        let mut plane = DataPlane::new();
        let mut nat_address = nat.address();
        nat_address.set_port(81);
        plane
            .apply(&[dsr.service(vec![dsr.backend(11)]), nat.service_at(nat_address, vec![nat.backend(11)])]);
        for n in 0..100 {
            let client = dsr.client(n);
            let direct = dsr.request(client);
            let fate = plane.run(0, &direct.frame());
            assert_eq!(fate.frame, dsr.sent_to(&direct, &dsr.backend(11)).frame(), "{dsr}");
            let translated = direct.between(client, nat_address);
            let fate = plane.run(0, &translated.frame());
            let source = harness::packets::Parsed::of(&fate.frame).source();
            let expected = nat.translated(&translated, source, nat.backend(11).address);
            assert_eq!(fate.frame, expected.frame(), "{nat}");
        }
        let flows = plane.flows();
        assert_eq!((flows.steered, flows.translated), (100, 100), "{dsr}");
    }
}

/// SYNs that nobody follows up fill the table many times over; they push out one another.
#[test]
fn a_syn_flood_neither_ends_connections_nor_keeps_others_out() {
    for kind in kinds().into_iter().filter(|kind| !kind.udp) {
        let mut plane = DataPlane::with(&Options::default().flows(512));
        let [mut old, new] = [11, 12].map(|n| kind.backend(n));
        plane.apply(&[kind.service(vec![old.clone()])]);
        for client in (0..200).map(|n| kind.client(n)) {
            let _ = plane.run(0, &kind.request(client).frame());
            let _ = plane.run(0, &kind.more(client).frame());
        }
        // Whoever is forgotten goes to the other one from now on.
        old.ring_weight = 0;
        plane.apply(&[kind.service(vec![old.clone(), new.clone()])]);
        flood(&plane, kind, 10_000..30_000);
        for client in (0..200).map(|n| kind.client(n)) {
            let more = kind.more(client);
            let fate = plane.run(0, &more.frame());
            assert_eq!(fate.frame, kind.sent_to(&more, &old).frame(), "{kind}: {client} was connected");
        }
        // Newcomers, while the flood goes on: each is still known when it goes on.
        let known = (0..200).filter(|n| {
            let client = kind.client(1000 + n);
            let _ = plane.run(0, &kind.request(client).frame());
            flood(&plane, kind, 40_000 + 20 * n..40_020 + 20 * n);
            let more = kind.more(client).frame();
            let is_known = plane.explain(&more).flow == Explanation::GOES_ON;
            assert_eq!(plane.run(0, &more).frame[..6], backend_mac(new.address).0, "{kind}: {client}");
            is_known
        });
        // By chance a SYN of the flood takes a newcomer's place before that goes on: about one in forty.
        let known = known.count();
        assert!(known >= 170, "{kind}: {known} of 200 newcomers were known");
    }
}

/// The SYNs of clients that never send anything else.
fn flood(plane: &DataPlane, kind: Kind, clients: Range<u32>) {
    for client in clients {
        assert!(plane.run(0, &kind.request(kind.client(client)).frame()).action.is_sent(), "{kind}");
    }
}
