//! What is not ours reaches the kernel as it came.

use std::net::SocketAddr;

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4::DestUnreachableHeader};
use harness::{
    dataplane::{Action, BALANCER_MACS, CLIENT_MAC, DataPlane, Kind},
    packets::{Packet, Parsed},
};
use lb_common::{Mode, Reason};

const ETHERNET: usize = 14;

/// A data plane with a service of every kind: each mode's on a port of its own.
fn plane() -> DataPlane {
    let mut plane = DataPlane::new();
    let services: Vec<_> =
        Kind::all().map(|kind| kind.service_at(address(kind), vec![kind.backend(11)])).collect();
    plane.apply(&services);
    plane
}

fn address(kind: Kind) -> SocketAddr {
    let port = match kind.mode {
        Mode::FullNat => 80,
        Mode::Dsr => 81,
        Mode::Nat => 83,
        Mode::Ipip => 84,
        Mode::Gue => 85,
    };
    SocketAddr::new(kind.address().ip(), port)
}

fn request(kind: Kind, client: u32) -> Packet {
    kind.packet(kind.client(client), address(kind)).macs(CLIENT_MAC, BALANCER_MACS[0])
}

/// The frame with some bytes replaced.
fn with(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut changed = frame.to_vec();
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    changed
}

#[test]
fn other_protocols_of_the_link() {
    let plane = plane();
    let [v4, v6] = [false, true].map(|v6| request(Kind { mode: Mode::FullNat, v6, udp: false }, 1).frame());
    for (name, ether_type) in [
        ("ARP", [0x08, 0x06]),
        ("LLDP", [0x88, 0xcc]),
        ("MPLS", [0x88, 0x47]),
        ("PPPoE", [0x88, 0x64]),
        ("a length: 802.3", [0x00, 0x2e]),
        ("nothing", [0, 0]),
        ("the bytes the wrong way round", [0x00, 0x08]),
    ] {
        for frame in [&v4, &v6] {
            plane.case(name).send(&with(frame, 12, &ether_type)).passes(Reason::NotIp);
            plane.case(name).send(&with(frame, 12, &ether_type)[..14]).passes(Reason::NotIp);
        }
    }
    // IPv4 by its type, IPv6 by its bytes, and the other way round.
    plane.case("v6 as v4").send(&with(&v6, 12, &[0x08, 0x00])).passes(Reason::Malformed);
    plane.case("v4 as v6").send(&with(&v4, 12, &[0x86, 0xdd])).passes(Reason::Malformed);
}

#[test]
fn tagged_frames() {
    let plane = plane();
    for kind in Kind::all() {
        for vlans in [&[7][..], &[0], &[100, 7]] {
            let frame = request(kind, 1).vlans(vlans).frame();
            plane.case(format!("{kind}, tags {vlans:?}")).send(&frame).passes(Reason::VlanTagged);
            plane.case(format!("{kind}, tags {vlans:?}, cut")).send(&frame[..14]).passes(Reason::VlanTagged);
        }
    }
}

/// "Don't fragment" and the reserved bit (RFC 791, 3.1) make no fragment.
#[test]
fn flags_of_whole_packets_are_no_reason() {
    let plane = plane();
    let kind = Kind { mode: Mode::Dsr, v6: false, udp: false };
    for (client, flags) in [0x00, 0x40, 0x80, 0xc0].into_iter().enumerate() {
        let frame = with(&request(kind, client as u32).frame(), ETHERNET + 6, &[flags, 0]);
        assert_eq!(plane.run(0, &frame).action, Action::Tx, "{flags:#x}");
    }
}

#[test]
fn icmp() {
    let plane = plane();
    let macs = (CLIENT_MAC.0, BALANCER_MACS[0].0);
    let echo = etherparse::IcmpEchoHeader { id: 1, seq: 1 };
    let unreachable = || Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port);
    for kind in Kind::of_mode(Mode::FullNat) {
        let (client, service) = (kind.client(1).ip(), kind.address().ip());
        let quoted = request(kind, 1).reversed().frame()[ETHERNET..].to_vec();
        let frames = match (client, service) {
            (std::net::IpAddr::V4(client), std::net::IpAddr::V4(service)) => {
                let ip =
                    || PacketBuilder::ethernet2(macs.0, macs.1).ipv4(client.octets(), service.octets(), 64);
                [
                    built(|out| ip().icmpv4(Icmpv4Type::EchoRequest(echo)).write(out, &[0; 32])),
                    built(|out| ip().icmpv4(unreachable()).write(out, &quoted)),
                ]
            }
            (std::net::IpAddr::V6(client), std::net::IpAddr::V6(service)) => {
                let ip =
                    || PacketBuilder::ethernet2(macs.0, macs.1).ipv6(client.octets(), service.octets(), 64);
                let too_big = Icmpv6Type::PacketTooBig { mtu: 1280 };
                [
                    built(|out| ip().icmpv6(Icmpv6Type::EchoRequest(echo)).write(out, &[0; 32])),
                    built(|out| ip().icmpv6(too_big).write(out, &quoted)),
                ]
            }
            _ => unreachable!("both are of one version"),
        };
        for frame in frames {
            plane.case(format!("{kind}, icmp")).send(&frame).passes(Reason::NotTransport);
        }
    }
}

fn built<E: std::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut frame = Vec::new();
    write(&mut frame).expect("a vector takes everything");
    frame
}

#[test]
fn other_transports() {
    let plane = plane();
    for kind in Kind::of_mode(Mode::FullNat) {
        let frame = request(kind, 1).frame();
        let place = if kind.v6 { ETHERNET + 6 } else { ETHERNET + 9 };
        // IPv4 and IPv6 inside, GRE, ESP, AH, none, SCTP, UDP-Lite; those of `packet_extensions` are for IPv6 alone.
        let extensions = if kind.v6 { &[][..] } else { &[0, 43, 44, 60] };
        for protocol in [4, 41, 47, 50, 51, 59, 132, 136, 255].iter().chain(extensions) {
            let frame = with(&frame, place, &[*protocol]);
            plane.case(format!("{kind}, protocol {protocol}")).send(&frame).passes(Reason::NotTransport);
        }
    }
}

#[test]
fn what_no_service_is_asked_for() {
    let plane = plane();
    for kind in Kind::all() {
        let at = address(kind);
        let other = SocketAddr::new(
            if kind.v6 { "2001:db8:1::11" } else { "192.0.2.11" }.parse().unwrap(),
            at.port(),
        );
        for (name, to) in [
            ("another port", SocketAddr::new(at.ip(), 82)),
            ("port 0", SocketAddr::new(at.ip(), 0)),
            ("the port's bytes the wrong way round", SocketAddr::new(at.ip(), at.port().swap_bytes())),
            ("another address", other),
            ("the backend itself", kind.backend(11).address),
            ("a port of full-nat's", SocketAddr::new(kind.source(), 2000)),
        ] {
            for ttl in [64, 1, 0] {
                let packet = kind.packet(kind.client(1), to).macs(CLIENT_MAC, BALANCER_MACS[0]).ttl(ttl);
                plane
                    .case(format!("{kind}, {name}, ttl {ttl}"))
                    .send(&packet.frame())
                    .passes(Reason::NotService);
            }
        }
    }
    // A service of one protocol has nothing to do with the other.
    let mut plane = DataPlane::new();
    for kind in Kind::all() {
        plane.apply(&[kind.service(vec![kind.backend(11)])]);
        let other = Kind { udp: !kind.udp, ..kind };
        plane
            .case(format!("{kind}'s twin"))
            .send(&other.request(kind.client(1)).frame())
            .passes(Reason::NotService);
    }
}

#[test]
fn headers_that_contradict_themselves() {
    let plane = plane();
    for kind in Kind::all() {
        let frame = request(kind, 1).payload(b"12345678").frame();
        let ip_bytes = (frame.len() - ETHERNET) as u16;
        let transport = ETHERNET + if kind.v6 { 40 } else { 20 };
        let mut cases: Vec<(String, usize, Vec<u8>)> = Vec::new();
        let mut case = |name: String, at: usize, bytes: &[u8]| cases.push((name, at, bytes.to_vec()));
        for version in (0..16).filter(|version| *version != if kind.v6 { 6 } else { 4 }) {
            let low = if kind.v6 { 0 } else { 5 };
            case(format!("version {version}"), ETHERNET, &[version << 4 | low]);
        }
        if kind.v6 {
            let longer = ip_bytes - 40 + 1;
            case("longer than the frame".into(), ETHERNET + 4, &longer.to_be_bytes());
            case("as long as can be".into(), ETHERNET + 4, &[0xff, 0xff]);
            case("no payload".into(), ETHERNET + 4, &[0, 0]);
            case("payload shorter than a header".into(), ETHERNET + 4, &[0, 7]);
            // ::ffff:0:0/96 has no business on the wire (RFC 4942, 2.2).
            let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 10];
            case("from an IPv4-mapped address".into(), ETHERNET + 8, &mapped);
            case("to an IPv4-mapped address".into(), ETHERNET + 24, &mapped);
        } else {
            for words in 0..5 {
                case(format!("header of {words} words"), ETHERNET, &[0x40 | words]);
            }
            for length in [0, 1, 19, 20, 27, ip_bytes + 1, u16::MAX] {
                case(format!("length {length}"), ETHERNET + 2, &length.to_be_bytes());
            }
        }
        if kind.udp {
            for length in [0_u16, 1, 7, 17, u16::MAX] {
                case(format!("datagram of {length} bytes"), transport + 4, &length.to_be_bytes());
            }
        } else {
            for words in (0..5).chain(8..16) {
                case(format!("segment's header of {words} words"), transport + 12, &[words << 4]);
            }
        }
        for (name, at, bytes) in cases {
            plane.case(format!("{kind}, {name}")).send(&with(&frame, at, &bytes)).passes(Reason::Malformed);
        }
    }
}

/// Options that reach beyond the packet's end, or leave no room for a transport header.
#[test]
fn ipv4_headers_longer_than_the_packet() {
    let plane = plane();
    for kind in Kind::all().filter(|kind| !kind.v6) {
        let frame = request(kind, 1).payload(&[0; 8]).frame();
        for words in 6..16 {
            let fate = plane.run(0, &with(&frame, ETHERNET, &[0x40 | words]));
            assert!(!fate.action.is_sent(), "{kind}: IHL {words}");
            assert_eq!(fate.frame, with(&frame, ETHERNET, &[0x40 | words]), "{kind}: IHL {words}");
        }
    }
}

/// Cut anywhere, a frame is never touched; whole, it is sent on.
#[test]
fn truncations_of_every_length() {
    let plane = plane();
    for kind in Kind::all() {
        let plain = request(kind, 1).payload(b"some payload");
        let packets = match (kind.v6, kind.udp) {
            (false, false) => vec![plain.clone().ip_options(&[1; 8]).tcp_options(&[1; 12]), plain],
            (false, true) => vec![plain.clone().ip_options(&[1; 40]), plain],
            (true, false) => vec![plain.clone().tcp_options(&[1; 40]), plain],
            (true, true) => vec![plain],
        };
        for packet in packets {
            let frame = packet.frame();
            for length in ETHERNET..frame.len() {
                let sent =
                    plane.case(format!("{kind}, {length} bytes of {}", frame.len())).send(&frame[..length]);
                sent.passes(Reason::Malformed);
            }
            let fate = plane.run(0, &frame);
            assert_eq!(fate.action, Action::Tx, "{kind}");
            assert!(fate.frame.ends_with(b"some payload"), "{kind}");
        }
    }
    // The same for what comes back.
    for kind in Kind::of_mode(Mode::FullNat) {
        let sent = plane.run(0, &request(kind, 2).frame());
        let source = Parsed::of(&sent.frame).source();
        let answer = kind.answer(kind.backend(11).address, source).frame();
        for length in ETHERNET..answer.len() {
            plane.case(format!("{kind}, {length} bytes")).send(&answer[..length]).passes(Reason::Malformed);
        }
        assert_eq!(plane.run(0, &answer).action, Action::Tx, "{kind}");
    }
}

#[test]
fn without_services_everything_passes() {
    let plane = DataPlane::new();
    for kind in Kind::all() {
        plane.case(format!("{kind}")).send(&kind.request(kind.client(1)).frame()).passes(Reason::NotService);
    }
    let mut plane = plane;
    let kind = Kind { mode: Mode::FullNat, v6: false, udp: false };
    plane.apply(&[kind.service(vec![kind.backend(11)])]);
    assert_eq!(plane.run(0, &kind.request(kind.client(1)).frame()).action, Action::Tx);
    plane.apply(&[]);
    plane
        .case("a service that is gone")
        .send(&kind.request(kind.client(1)).frame())
        .passes(Reason::NotService);
}
