//! full-nat: requests and replies, byte for byte.

use std::{net::SocketAddr, thread::sleep, time::Duration};

use harness::{
    dataplane::{Action, BALANCER_MACS, CLIENT_MAC, DataPlane, Kind, Options, behind},
    link::Mac,
    packets::{Packet, Parsed, flags},
};
use lb_common::{Mode, Reason};

/// full-nat's ports by default: from 1024 up to where the host's own begin.
const PORTS: std::ops::Range<u16> = 1024..32_768;

fn kinds() -> [Kind; 4] {
    Kind::of_mode(Mode::FullNat)
}

fn kind(v6: bool, udp: bool) -> Kind {
    Kind { mode: Mode::FullNat, v6, udp }
}

/// A data plane with one service and one backend.
fn plane_of(kind: Kind) -> (DataPlane, SocketAddr) {
    let mut plane = DataPlane::new();
    let backend = kind.backend(11);
    let address = backend.address;
    plane.apply(&[kind.service(vec![backend])]);
    (plane, address)
}

/// Begins a client's flow; the address and port that its backend sees.
fn begin(plane: &DataPlane, kind: Kind, client: SocketAddr) -> SocketAddr {
    let fate = plane.run(0, &kind.request(client).frame());
    assert_eq!(fate.action, Action::Tx, "{kind}: the flow of {client} begins");
    Parsed::of(&fate.frame).source()
}

#[test]
fn requests_go_out_and_replies_come_back() {
    for kind in kinds() {
        let (plane, backend) = plane_of(kind);
        let client = kind.client(1);
        let request = kind.request(client);
        let bytes = request.frame().len() as u64;

        let sent = plane.case(format!("{kind}: first")).send(&request.frame());
        let source = Parsed::of(&sent.fate().frame).source();
        assert_eq!(source.ip(), kind.source(), "{kind}");
        assert!(PORTS.contains(&source.port()), "{kind}: port {}", source.port());
        sent.expect(Action::Tx, &kind.translated(&request, source, backend).frame())
            .credits(backend, [1, bytes, 0, 0, 1])
            .moves([(Reason::Forwarded, 1)]);

        for _ in 0..3 {
            let answer = kind.answer(backend, source);
            plane
                .case(format!("{kind}: answer"))
                .send(&answer.frame())
                .expect(Action::Tx, &kind.returned(&answer, client, 0).frame())
                .credits(backend, [0, 0, 1, answer.frame().len() as u64, 0])
                .moves([(Reason::Replied, 1)]);
            let more = kind.more(client);
            plane
                .case(format!("{kind}: more"))
                .send(&more.frame())
                .expect(Action::Tx, &kind.translated(&more, source, backend).frame())
                .credits(backend, [1, more.frame().len() as u64, 0, 0, 0])
                .moves([(Reason::Forwarded, 1)]);
        }
    }
}

/// Clients behind slot 1, backends behind slot 0, and the other way round.
#[test]
fn between_two_interfaces_frames_are_redirected() {
    for kind in kinds() {
        for (inside, outside) in [(0, 1), (1, 0)] {
            let name = format!("{kind}, clients behind slot {outside}");
            let mut plane = DataPlane::new();
            let backend = behind(kind.backend(11), inside);
            plane.apply(&[kind.service(vec![backend.clone()])]);
            let backend = backend.address;
            let client = kind.client(1);
            let macs = |slot: u32| BALANCER_MACS[slot as usize];

            let request = kind.request(client).macs(CLIENT_MAC, macs(outside));
            let sent = plane.case(&name).by(outside).send(&request.frame());
            let source = Parsed::of(&sent.fate().frame).source();
            let expected = kind
                .translated(&request, source, backend)
                .macs(macs(inside), harness::dataplane::backend_mac(backend));
            sent.expect(Action::Redirect, &expected.frame())
                .credits(backend, [1, request.frame().len() as u64, 0, 0, 1])
                .moves([(Reason::Forwarded, 1)]);

            let answer = kind.answer(backend, source);
            plane
                .case(&name)
                .by(inside)
                .send(&answer.frame())
                .expect(Action::Redirect, &kind.returned(&answer, client, outside as usize).frame())
                .credits(backend, [0, 0, 1, answer.frame().len() as u64, 0])
                .moves([(Reason::Replied, 1)]);
            // Where the backend's answer comes in is the network's choice.
            plane
                .case(&name)
                .by(outside)
                .send(&answer.frame())
                .expect(Action::Tx, &kind.returned(&answer, client, outside as usize).frame())
                .credits(backend, [0, 0, 1, answer.frame().len() as u64, 0])
                .moves([(Reason::Replied, 1)]);
        }
    }
}

#[test]
fn replies_follow_a_client_to_another_router() {
    let kind = kind(false, false);
    let (plane, backend) = plane_of(kind);
    let client = kind.client(1);
    let source = begin(&plane, kind, client);
    let other = Mac([2, 0, 0, 0, 0xc0, 2]);
    // The way back is looked at once in a tick, which is a little more than a second.
    sleep(Duration::from_millis(1100));
    let moved = kind.more(client).macs(other, BALANCER_MACS[1]).frame();
    assert_eq!(plane.run(1, &moved).action, Action::Redirect);
    let answer = kind.answer(backend, source);
    let expected = kind.returned(&answer, client, 1).macs(BALANCER_MACS[1], other);
    let fate = plane.run(0, &answer.frame());
    assert_eq!((fate.action, fate.frame), (Action::Redirect, expected.frame()));
}

#[test]
fn headers_of_every_length_are_translated() {
    for udp in [false, true] {
        let kind = kind(false, udp);
        let (plane, backend) = plane_of(kind);
        for words in 0..=10_u8 {
            let options: Vec<u8> = (0..words * 4).map(|n| if n + 1 == words * 4 { 0 } else { 1 }).collect();
            for payload in [0, 1, 2, 3, 1001, 1400] {
                let client = kind.client(10_000 * u32::from(words) + payload);
                let shape =
                    |packet: Packet| packet.ip_options(&options).payload(&vec![0xa5; payload as usize]);
                let request = shape(kind.request(client));
                let sent = plane.case(format!("{kind}, {words} words of options")).send(&request.frame());
                let source = Parsed::of(&sent.fate().frame).source();
                sent.expect(Action::Tx, &kind.translated(&request, source, backend).frame())
                    .credits(backend, [1, request.frame().len() as u64, 0, 0, 1])
                    .moves([(Reason::Forwarded, 1)]);
                let answer = shape(kind.answer(backend, source));
                let fate = plane.run(0, &answer.frame());
                assert_eq!(fate.frame, kind.returned(&answer, client, 0).frame());
            }
        }
    }
}

/// Bytes behind the IP packet, with which short frames are filled up, stay what they are.
#[test]
fn padding_behind_the_packet_stays() {
    for kind in kinds() {
        let (plane, backend) = plane_of(kind);
        let request = kind.request(kind.client(1));
        let padded = |packet: &Packet| [packet.frame(), vec![0xee; 7]].concat();
        let sent = plane.case(format!("{kind}: padded")).send(&padded(&request));
        let source = Parsed::of(&sent.fate().frame).source();
        sent.expect(Action::Tx, &padded(&kind.translated(&request, source, backend)))
            .credits(backend, [1, request.frame().len() as u64 + 7, 0, 0, 1])
            .moves([(Reason::Forwarded, 1)]);
    }
}

#[test]
fn a_udp_checksum_that_is_not_there_is_not_made_up() {
    let kind = kind(false, true);
    let (plane, backend) = plane_of(kind);
    let client = kind.client(1);
    let source = begin(&plane, kind, client);
    let request = kind.more(client).without_checksum();
    let expected = kind.translated(&request, source, backend).frame();
    assert_eq!(expected[40..42], [0, 0]);
    assert_eq!(plane.run(0, &request.frame()).frame, expected);
    let answer = kind.answer(backend, source).without_checksum();
    assert_eq!(plane.run(0, &answer.frame()).frame, kind.returned(&answer, client, 0).frame());
}

/// Of all two-byte payloads one gives the translated packet a sum of zero: UDP sends that as all ones, TCP as it is.
#[test]
fn a_checksum_that_comes_out_as_zero() {
    for kind in kinds() {
        let (plane, backend) = plane_of(kind);
        let client = kind.client(1);
        let source = begin(&plane, kind, client);
        let place = 14 + if kind.v6 { 40 } else { 20 } + if kind.udp { 6 } else { 16 };
        let zero = if kind.udp { [0xff, 0xff] } else { [0, 0] };
        let found = (0..=u16::MAX).find_map(|word| {
            let request = kind.more(client).payload(&word.to_be_bytes());
            let expected = kind.translated(&request, source, backend).frame();
            (expected[place..place + 2] == zero).then_some((request, expected))
        });
        let (request, expected) = found.expect("one payload in 65,536 does");
        assert_ne!(request.frame()[place..place + 2], zero);
        assert_eq!(plane.run(0, &request.frame()).frame, expected, "{kind}");
    }
}

#[test]
fn what_has_no_hop_left_is_not_sent_on() {
    for kind in kinds() {
        let (plane, backend) = plane_of(kind);
        for ttl in [0, 1] {
            let request = kind.request(kind.client(1)).ttl(ttl);
            plane
                .case(format!("{kind}: ttl {ttl}"))
                .send(&request.frame())
                .moves([(Reason::TimeExceeded, 1)]);
        }
        assert_eq!(plane.flows().translated, 0, "{kind}: what is not sent on begins no flow");
        let client = kind.client(2);
        let source = begin(&plane, kind, client);
        for ttl in [0, 1] {
            let more = kind.more(client).ttl(ttl);
            plane
                .case(format!("{kind}: more, ttl {ttl}"))
                .send(&more.frame())
                .moves([(Reason::TimeExceeded, 1)]);
            let answer = kind.answer(backend, source).ttl(ttl);
            plane
                .case(format!("{kind}: answer, ttl {ttl}"))
                .send(&answer.frame())
                .dropped(Reason::TtlExpired);
        }
        for ttl in [2, 255] {
            let more = kind.more(client).ttl(ttl);
            let expected = kind.translated(&more, source, backend).ttl(ttl - 1);
            assert_eq!(plane.run(0, &more.frame()).frame, expected.frame(), "{kind}: ttl {ttl}");
        }
    }
}

#[test]
fn an_answer_to_nothing_of_ours_passes() {
    for kind in kinds() {
        let mut plane = DataPlane::new();
        let (backend, idle) = (kind.backend(11), kind.backend(12));
        plane.apply(&[kind.service(vec![backend.clone()])]);
        let backend = backend.address;
        let client = kind.client(1);
        let source = begin(&plane, kind, client);
        let at = |address: SocketAddr, port: u16| SocketAddr::new(address.ip(), port);
        let other_protocol = Kind { udp: !kind.udp, ..kind };
        for (name, answer) in [
            ("another port of the backend", kind.answer(at(backend, 8081), source)),
            ("another host", kind.answer(idle.address, source)),
            ("a port of no flow", kind.answer(backend, at(source, source.port() ^ 1))),
            ("a port of the host's own", kind.answer(backend, at(source, 40_000))),
            ("a well-known port", kind.answer(backend, at(source, 443))),
            ("another address of ours", kind.answer(backend, SocketAddr::new(kind.inside(2), source.port()))),
            ("another protocol", other_protocol.answer(backend, source)),
            ("no hop left", kind.answer(idle.address, source).ttl(1)),
        ] {
            plane.case(format!("{kind}: {name}")).send(&answer.frame()).passes(Reason::NotService);
        }
        let answer = kind.answer(backend, source);
        assert_eq!(plane.run(0, &answer.frame()).action, Action::Tx, "{kind}: the flow is still there");
    }
}

/// The data plane answers for the service's own address; an answer that pretends to come from there is a stranger.
#[test]
fn a_client_cannot_pass_for_a_backend() {
    for kind in kinds() {
        let (plane, _) = plane_of(kind);
        let client = kind.client(1);
        let source = begin(&plane, kind, client);
        let forged = kind.packet(client, source).macs(CLIENT_MAC, BALANCER_MACS[0]);
        plane.case(format!("{kind}: forged")).send(&forged.frame()).passes(Reason::NotService);
    }
}

#[test]
fn an_egress_interface_that_is_gone_drops() {
    let kind = kind(false, false);
    let mut plane = DataPlane::new();
    plane.apply(&[kind.service(vec![behind(kind.backend(11), 1)])]);
    let request = kind.request(kind.client(1)).frame();
    assert_eq!(plane.run(0, &request).action, Action::Redirect);
    plane.netns().ip("link del eth1").expect("the interface goes");
    plane.case("no egress").send(&request).dropped(Reason::NoEgress);
}

#[test]
fn a_reset_goes_both_ways() {
    for v6 in [false, true] {
        let kind = kind(v6, false);
        let (plane, backend) = plane_of(kind);
        let client = kind.client(1);
        let source = begin(&plane, kind, client);
        let reset = kind.answer(backend, source).flags(flags::RST | flags::ACK);
        assert_eq!(plane.run(0, &reset.frame()).frame, kind.returned(&reset, client, 0).frame());
        let reset = kind.more(client).flags(flags::RST);
        assert_eq!(plane.run(0, &reset.frame()).frame, kind.translated(&reset, source, backend).frame());
    }
}

#[test]
fn packets_that_are_logged_have_the_same_fate() {
    for kind in Kind::that_steer() {
        let mut plane = DataPlane::with(&Options { debug_packets: true, ..Options::default() });
        plane.apply(&[kind.service(vec![kind.backend(11)])]);
        let request = kind.request(kind.client(1));
        let sent = plane.case(format!("{kind}, logged")).send(&request.frame());
        let source = Parsed::of(&sent.fate().frame).source();
        let backend = kind.backend(11).address;
        let expected = if kind.rewrites() {
            kind.translated(&request, source, backend)
        } else {
            kind.sent_to(&request, &kind.backend(11))
        };
        sent.expect(Action::Tx, &expected.frame())
            .credits(backend, [1, request.frame().len() as u64, 0, 0, 1])
            .moves([(Reason::Forwarded, 1)]);
        plane
            .case("a stranger")
            .send(&kind.answer(kind.client(2), kind.client(3)).frame())
            .passes(Reason::NotService);
    }
}
