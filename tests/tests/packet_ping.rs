//! Pings to services' addresses: who gets an answer, and what it is, byte for byte.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use flowgate::datapath::apply::WantedService;
use harness::{
    dataplane::{Action, BALANCER_MACS, CLIENT_MAC, DataPlane, Kind},
    link::Mac,
};
use lb_common::{Mode, Reason};
use proptest::prelude::*;

/// What comes before the ICMP message.
fn headers(v6: bool) -> usize {
    14 + if v6 { 40 } else { 20 }
}

fn kinds() -> impl Iterator<Item = Kind> {
    Kind::that_steer().filter(|kind| !kind.udp)
}

fn answering(kind: Kind, address: SocketAddr) -> WantedService {
    WantedService { answer_ping: true, ..kind.service_at(address, vec![kind.backend(11)]) }
}

fn plane_of(kind: Kind) -> DataPlane {
    let mut plane = DataPlane::new();
    plane.apply(&[answering(kind, kind.address())]);
    plane
}

/// An ICMP message that etherparse has made, checksums and all.
#[derive(Clone, Copy)]
enum Echo {
    Request,
    Reply,
}

fn echo(macs: [Mac; 2], from: IpAddr, to: IpAddr, ttl: u8, echo: Echo, data: &[u8]) -> Vec<u8> {
    let (id, number) = (0x1234, 7);
    let link = PacketBuilder::ethernet2(macs[0].0, macs[1].0);
    let mut frame = Vec::new();
    let written = match (from, to, echo) {
        (IpAddr::V4(from), IpAddr::V4(to), Echo::Request) => {
            link.ipv4(from.octets(), to.octets(), ttl).icmpv4_echo_request(id, number).write(&mut frame, data)
        }
        (IpAddr::V4(from), IpAddr::V4(to), Echo::Reply) => {
            link.ipv4(from.octets(), to.octets(), ttl).icmpv4_echo_reply(id, number).write(&mut frame, data)
        }
        (IpAddr::V6(from), IpAddr::V6(to), Echo::Request) => {
            link.ipv6(from.octets(), to.octets(), ttl).icmpv6_echo_request(id, number).write(&mut frame, data)
        }
        (IpAddr::V6(from), IpAddr::V6(to), Echo::Reply) => {
            link.ipv6(from.octets(), to.octets(), ttl).icmpv6_echo_reply(id, number).write(&mut frame, data)
        }
        _ => panic!("{from} and {to}"),
    };
    written.expect("a frame");
    frame
}

fn ping(kind: Kind, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let macs = [CLIENT_MAC, BALANCER_MACS[0]];
    echo(macs, kind.client(1).ip(), to.ip(), 9, Echo::Request, data)
}

fn answer(kind: Kind, from: SocketAddr, data: &[u8]) -> Vec<u8> {
    let macs = [BALANCER_MACS[0], CLIENT_MAC];
    echo(macs, from.ip(), kind.client(1).ip(), 64, Echo::Reply, data)
}

#[test]
fn a_ping_to_a_service_that_asks_for_it_is_answered() {
    for kind in kinds() {
        let plane = plane_of(kind);
        for data in [&b""[..], b"x", &[0x5a; 56], &[0xff; 1_400]] {
            plane
                .case(format!("{kind}: {} bytes", data.len()))
                .send(&ping(kind, kind.address(), data))
                .expect(Action::Tx, &answer(kind, kind.address(), data))
                .moves([(Reason::PingAnswered, 1)]);
        }
    }
}

#[test]
fn what_is_no_ping_to_it_passes() {
    for kind in kinds() {
        let plane = plane_of(kind);
        let good = ping(kind, kind.address(), b"some data");
        let at = headers(kind.v6);
        let mut cases = vec![
            ("another address", ping(kind, kind.backend(11).address, b"some data")),
            (
                "an answer",
                echo(
                    [CLIENT_MAC, BALANCER_MACS[0]],
                    kind.client(1).ip(),
                    kind.address().ip(),
                    9,
                    Echo::Reply,
                    b"some data",
                ),
            ),
        ];
        for (name, byte, value) in [
            ("another type", at, 3),
            ("another code", at + 1, 1),
            ("another protocol", if kind.v6 { 20 } else { 23 }, 2),
        ] {
            let mut frame = good.clone();
            frame[byte] = value;
            cases.push((name, frame));
        }
        if !kind.v6 {
            let mut frame = good.clone();
            // Total length: the IP header and seven bytes.
            frame[16..18].copy_from_slice(&27u16.to_be_bytes());
            cases.push(("less than a message", frame));
        } else {
            let mut frame = good.clone();
            frame[18..20].copy_from_slice(&7u16.to_be_bytes());
            cases.push(("less than a message", frame));
        }
        for (name, frame) in cases {
            plane.case(format!("{kind}: {name}")).send(&frame).passes(Reason::NotTransport);
        }
        for length in at..good.len() {
            plane.case(format!("{kind}: {length} bytes")).send(&good[..length]).passes(Reason::Malformed);
        }
    }
}

/// IP options are the kernel's, and so are extension headers.
#[test]
fn a_ping_with_options_passes() {
    let kind = Kind { mode: Mode::FullNat, v6: false, udp: false };
    let plane = plane_of(kind);
    let good = ping(kind, kind.address(), b"some data");
    let mut frame = good[..34].to_vec();
    frame[14] = 0x46;
    frame[16..18].copy_from_slice(&(20u16 + 4 + 8 + 9).to_be_bytes());
    frame.extend_from_slice(&[1, 1, 1, 1]);
    frame.extend_from_slice(&good[34..]);
    plane.case("options").send(&frame).passes(Reason::NotTransport);
    let v6 = Kind { v6: true, ..kind };
    let plane = plane_of(v6);
    let good = ping(v6, v6.address(), b"some data");
    let mut frame = good[..54].to_vec();
    let payload_bytes = u16::from_be_bytes([frame[18], frame[19]]) + 8;
    frame[18..20].copy_from_slice(&payload_bytes.to_be_bytes());
    // Hop-by-hop options, then the message.
    frame[20] = 0;
    frame.extend_from_slice(&[58, 0, 1, 4, 0, 0, 0, 0]);
    frame.extend_from_slice(&good[54..]);
    plane.case("extension header").send(&frame).passes(Reason::NotTransport);
}

/// Addresses are services' together: the last one that asks decides.
#[test]
fn an_address_is_answered_for_as_long_as_a_service_of_it_asks() {
    for kind in kinds() {
        let mut plane = DataPlane::new();
        let mut other = kind.address();
        other.set_port(81);
        let (one, two) = (answering(kind, kind.address()), answering(kind, other));
        let silent = |service: &WantedService| WantedService { answer_ping: false, ..service.clone() };
        let sent = ping(kind, kind.address(), b"data");
        for (name, services, is_answered) in [
            ("both", vec![one.clone(), two.clone()], true),
            ("the second", vec![silent(&one), two.clone()], true),
            ("the second alone", vec![two.clone()], true),
            ("none", vec![silent(&two)], false),
            ("the first", vec![one.clone(), silent(&two)], true),
            ("no service", vec![], false),
        ] {
            plane.apply(&services);
            let case = plane.case(format!("{kind}: {name}")).send(&sent);
            if is_answered {
                case.moves([(Reason::PingAnswered, 1)]);
            } else {
                case.passes(Reason::NotTransport);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    /// Checksums are brought up to date, whatever the data; what was wrong before stays wrong by as much.
    #[test]
    fn any_data_comes_back(
        pings in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<u16>()), 100),
        v6: bool,
    ) {
        let kind = Kind { mode: Mode::Dsr, v6, udp: false };
        let plane = plane_of(kind);
        for (data, error) in pings {
            let (mut sent, mut expected) =
                (ping(kind, kind.address(), &data), answer(kind, kind.address(), &data));
            prop_assert_eq!(&plane.run(0, &sent).frame, &expected);
            let at = headers(v6) + 2;
            for frame in [&mut sent, &mut expected] {
                let sum = u16::from_be_bytes([frame[at], frame[at + 1]]);
                // One's complement addition.
                let (wrong, carry) = sum.overflowing_add(error);
                frame[at..at + 2].copy_from_slice(&(wrong + u16::from(carry)).to_be_bytes());
            }
            let sum = |frame: &[u8]| [frame[at], frame[at + 1]].map(|byte| byte == 0 || byte == 0xff);
            let got = plane.run(0, &sent).frame;
            // Zero has two forms.
            prop_assert!(got == expected || sum(&got) == [true; 2] && sum(&expected) == [true; 2]);
        }
    }
}
