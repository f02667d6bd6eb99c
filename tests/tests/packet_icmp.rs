//! ICMP errors about packets that went through here: what is in them, and to whom they go.

use std::net::{IpAddr, SocketAddr};

use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, PacketBuilder};
use harness::{
    checksums,
    dataplane::{Action, BALANCER_MACS, CLIENT_MAC, DataPlane, Kind, backend_mac},
    extensions::{DESTINATION, HOP_BY_HOP, extended, options},
    link::Mac,
    packets::{Packet, Parsed, flags},
    tunnel::Tunnel,
};
use lb_common::{Mode, Reason, tunnel::GUE_PORT};

const ETHERNET: usize = 14;

/// Kinds of errors: type and code for IPv4, and for IPv6.
const ERRORS: [([u8; 2], [u8; 2]); 5] =
    [([3, 4], [2, 0]), ([3, 1], [1, 3]), ([3, 3], [1, 4]), ([11, 0], [3, 0]), ([12, 0], [4, 0])];

/// An error of some kind with these four bytes behind the checksum, from `router` to `to`, which quotes `bytes` of the
/// packet in the frame `about`.
fn error(
    kind: ([u8; 2], [u8; 2]),
    macs: (Mac, Mac),
    router: IpAddr,
    to: IpAddr,
    about: &[u8],
    bytes: usize,
) -> Vec<u8> {
    const REST: [u8; 4] = [0, 0, 5, 0x78];
    let packet = &about[ETHERNET..];
    let quote = &packet[..bytes.min(packet.len())];
    let ethernet = PacketBuilder::ethernet2(macs.0.0, macs.1.0);
    let mut frame = Vec::new();
    let written = match (router, to) {
        (IpAddr::V4(router), IpAddr::V4(to)) => {
            let unknown = Icmpv4Type::Unknown { type_u8: kind.0[0], code_u8: kind.0[1], bytes5to8: REST };
            let header = Icmpv4Header { icmp_type: unknown, checksum: 0 };
            ethernet.ipv4(router.octets(), to.octets(), 60).icmpv4(header.icmp_type).write(&mut frame, quote)
        }
        (IpAddr::V6(router), IpAddr::V6(to)) => {
            let unknown = Icmpv6Type::Unknown { type_u8: kind.1[0], code_u8: kind.1[1], bytes5to8: REST };
            let header = Icmpv6Header { icmp_type: unknown, checksum: 0 };
            ethernet.ipv6(router.octets(), to.octets(), 60).icmpv6(header.icmp_type).write(&mut frame, quote)
        }
        (router, to) => panic!("from {router} to {to}"),
    };
    written.expect("a frame");
    checksums::verify_checksums(&frame);
    frame
}

/// How much of a packet is quoted: the least there is, all of the headers, and more.
fn quotes(kind: Kind, packet: &[u8]) -> [usize; 3] {
    let ip = if kind.v6 { 40 } else { 20 };
    [ip + 8, ip + 20, packet.len() - ETHERNET]
}

fn router(kind: Kind) -> IpAddr {
    if kind.v6 { "2001:db8:ffff::1" } else { "203.0.113.1" }.parse().expect("an address")
}

/// That a frame is the error `expected`, but for TTL, both of whose checksums were written by another library.
fn assert_error(name: &str, frame: &[u8], expected: &[u8]) {
    checksums::verify_checksums(frame);
    let [frame, expected] = [frame, expected].map(|frame| {
        let mut frame = frame.to_vec();
        if frame[12..14] == [0x08, 0x00] {
            frame[22] = 0;
            frame[24..26].fill(0);
        } else {
            frame[21] = 0;
        }
        frame
    });
    assert_eq!(frame, expected, "{name}\n {frame:02x?}\nwhere expected\n {expected:02x?}");
}

const NAT: [Mode; 2] = [Mode::FullNat, Mode::Nat];
const TUNNELS: [Mode; 2] = [Mode::Ipip, Mode::Gue];
const ALL: [Mode; 5] = [Mode::FullNat, Mode::Nat, Mode::Dsr, Mode::Ipip, Mode::Gue];

/// Asks every kind of these modes, all of a mode on one data plane.
fn every(modes: &[Mode], test: impl Fn(&DataPlane, Kind)) {
    for mode in modes {
        let kinds = Kind::of_mode(*mode);
        let mut plane = DataPlane::new();
        plane.apply(&kinds.map(|kind| kind.service(vec![kind.backend(11)])));
        kinds.into_iter().for_each(|kind| test(&plane, kind));
    }
}

/// What a service has sent to a client that cannot be delivered: a server's answer, as the client's side has it.
fn undelivered(kind: Kind, client: SocketAddr) -> Packet {
    let packet = kind.packet(kind.address(), client).macs(BALANCER_MACS[0], CLIENT_MAC).payload(&[7; 100]);
    if kind.udp { packet } else { packet.flags(flags::ACK).numbers(77, 88) }
}

/// Routers on the way to clients speak to the service; its backend is told about its own packet.
#[test]
fn errors_from_the_clients_side_reach_the_backend() {
    every(&ALL[..3], |plane, kind| {
        let (client, backend) = (kind.client(1), kind.backend(11).address);
        let sent = plane.run(0, &kind.request(client).frame()).frame;
        let known_as = if kind.rewrites() { Parsed::of(&sent).source() } else { client };
        let about = undelivered(kind, client).ttl(9);
        // As the backend has sent it; routers took hops from it.
        let own = if kind.rewrites() { about.clone().between(backend, known_as) } else { about.clone() };
        let (about, own) = (about.frame(), own.frame());
        for error_kind in ERRORS {
            for bytes in quotes(kind, &about) {
                let name = format!("{kind}, {error_kind:?}, {bytes} bytes");
                let macs = (CLIENT_MAC, BALANCER_MACS[0]);
                let frame = error(error_kind, macs, router(kind), kind.address().ip(), &about, bytes);
                let fate = plane.case(&name).send(&frame).moves([(Reason::IcmpError, 1)]);
                assert_eq!(fate.action, Action::Tx, "{name}");
                let macs = (BALANCER_MACS[0], backend_mac(backend));
                // The router's own address, but where the backend has never heard of the client's side.
                let from = if kind.is_full_nat() { kind.source() } else { router(kind) };
                let to = if kind.rewrites() { backend.ip() } else { kind.address().ip() };
                assert_error(&name, &fate.frame, &error(error_kind, macs, from, to, &own, bytes));
                let hops = if kind.rewrites() { 59 } else { 60 };
                assert_eq!(Parsed::of(&fate.frame).ttl, hops, "{name}");
            }
        }
    });
}

/// Routers on the way to backends, and backends themselves: a client is told about its own packet.
#[test]
fn errors_from_the_backends_side_reach_the_client() {
    every(&NAT, |plane, kind| {
        let (client, backend) = (kind.client(1), kind.backend(11).address);
        let request = kind.request(client).payload(&[7; 100]);
        let sent = plane.run(0, &request.frame()).frame;
        let source = Parsed::of(&sent).source();
        let own = request.ttl(63).frame();
        for from in [router(kind), backend.ip()] {
            for error_kind in ERRORS {
                for bytes in quotes(kind, &sent) {
                    let name = format!("{kind}, {error_kind:?}, {bytes} bytes, from {from}");
                    let macs = (backend_mac(backend), BALANCER_MACS[0]);
                    let frame = error(error_kind, macs, from, source.ip(), &sent, bytes);
                    let fate = plane.case(&name).send(&frame).moves([(Reason::IcmpError, 1)]);
                    assert_eq!(fate.action, Action::Tx, "{name}");
                    let macs = (BALANCER_MACS[0], CLIENT_MAC);
                    let expected = error(error_kind, macs, kind.address().ip(), client.ip(), &own, bytes);
                    assert_error(&name, &fate.frame, &expected);
                }
            }
        }
    });
}

/// Of a packet in parts the first is quoted, behind IPv6's fragment header; and behind other extension headers.
#[test]
fn errors_about_parts_and_behind_extension_headers() {
    every(&NAT, |plane, kind| {
        let (client, backend) = (kind.client(1), kind.backend(11).address);
        let request = kind.request(client).payload(&[7; 400]);
        let sent = plane.run(0, &request.frame()).frame;
        let source = Parsed::of(&sent).source();
        let translated = kind.translated(&request, source, backend);
        let own = request.ttl(63);
        let mut pairs =
            vec![(translated.fragments(200).swap_remove(0), own.fragments(200).swap_remove(0), 8)];
        if kind.v6 {
            let chain = [options(HOP_BY_HOP, 1), options(DESTINATION, 2)];
            pairs.push((extended(&translated.frame(), &chain), extended(&own.frame(), &chain), 24));
        }
        for (about, own, behind) in pairs {
            let headers = if kind.v6 { 40 + behind } else { 20 };
            for bytes in [headers + 8, about.len() - ETHERNET] {
                let name = format!("{kind}, {bytes} bytes");
                let macs = (backend_mac(backend), BALANCER_MACS[0]);
                let frame = error(ERRORS[0], macs, router(kind), source.ip(), &about, bytes);
                let fate = plane.case(&name).send(&frame).moves([(Reason::IcmpError, 1)]);
                let macs = (BALANCER_MACS[0], CLIENT_MAC);
                let expected = error(ERRORS[0], macs, kind.address().ip(), client.ip(), &own, bytes);
                assert_error(&name, &fate.frame, &expected);
            }
        }
    });
}

/// A tunnel's backend gets the error as it came, through its tunnel.
#[test]
fn errors_go_through_tunnels() {
    every(&TUNNELS, |plane, kind| {
        let (client, backend) = (kind.client(1), kind.backend(11).address);
        assert_eq!(plane.run(0, &kind.request(client).frame()).action, Action::Tx);
        let about = undelivered(kind, client).frame();
        let macs = (CLIENT_MAC, BALANCER_MACS[0]);
        let frame = error(ERRORS[0], macs, router(kind), kind.address().ip(), &about, 48);
        let fate = plane.case(format!("{kind}")).send(&frame).moves([(Reason::IcmpError, 1)]);
        let gue_port = (kind.mode == Mode::Gue).then_some(GUE_PORT);
        let is_v4 = !kind.v6;
        let tunnel = Tunnel {
            source: kind.source(),
            destination: backend.ip(),
            gue_port,
            // As the error's own header.
            dont_fragment: !is_v4 || frame[20] & 0x40 != 0,
        };
        let mut inner = frame.clone();
        if is_v4 {
            inner[22] -= 1;
            let old = u16::from_be_bytes([inner[24], inner[25]]);
            // One hop less in the upper byte of a word: one more in the sum.
            let sum = u32::from(old) + 0x100;
            let sum = (sum & 0xffff) + (sum >> 16);
            inner[24..26].copy_from_slice(&(sum as u16).to_be_bytes());
        } else {
            inner[21] -= 1;
        }
        checksums::verify_checksums(&inner);
        let expected = tunnel.around((BALANCER_MACS[0], backend_mac(backend)), &inner, &fate.frame);
        assert_eq!((fate.action, fate.frame), (Action::Tx, expected), "{kind}");
    });
}

/// Which flow is meant is known, and nothing about it changes: no flow begins, and none grows older or younger.
#[test]
fn an_error_changes_no_flow() {
    every(&ALL, |plane, kind| {
        let (client, stranger) = (kind.client(1), kind.client(2));
        let sent = plane.run(0, &kind.request(client).frame()).frame;
        let life = || plane.explain(&kind.request(client).frame()).life;
        let (flows, before) = (plane.flows(), life());
        for target in [client, stranger] {
            let about = undelivered(kind, target).frame();
            let macs = (CLIENT_MAC, BALANCER_MACS[0]);
            let frame = error(ERRORS[1], macs, router(kind), kind.address().ip(), &about, 60);
            let fate = plane.run(0, &frame);
            // A flow that is only steered may be another balancer's, whose ring is the same.
            let is_sent = target == client || !kind.is_full_nat();
            assert_eq!(fate.action, if is_sent { Action::Tx } else { Action::Pass }, "{kind}");
        }
        assert_eq!((plane.flows(), life()), (flows.clone(), before), "{kind}");
        if !kind.rewrites() {
            return;
        }
        // From the backend's side: an answer would establish the connection.
        let backend = kind.backend(11).address;
        let source = Parsed::of(&sent).source();
        let macs = (backend_mac(backend), BALANCER_MACS[0]);
        let life = || plane.explain(&kind.answer(backend, source).frame()).life;
        let before = life();
        let frame = error(ERRORS[1], macs, router(kind), source.ip(), &sent, 60);
        assert_eq!(plane.run(0, &frame).action, Action::Tx, "{kind}");
        assert_eq!((plane.flows(), life()), (flows, before), "{kind}");
    });
}

/// Not about a service, not to whom the quoted packet was from, of a type that is no error, fragments of all kinds.
#[test]
fn other_errors_pass() {
    every(&ALL, |plane, kind| {
        let client = kind.client(1);
        let _ = plane.run(0, &kind.request(client).frame());
        let macs = (CLIENT_MAC, BALANCER_MACS[0]);
        let about = undelivered(kind, client).frame();
        let to = kind.address().ip();
        let good = error(ERRORS[0], macs, router(kind), to, &about, 48);
        let ip = if kind.v6 { 40 } else { 20 };
        let quote = ETHERNET + ip + 8;
        let mut cases =
            vec![("to somebody else", error(ERRORS[0], macs, router(kind), kind.inside(9), &about, 48))];
        let mut other = kind.address();
        other.set_port(81);
        let elsewhere = undelivered(kind, client).between(other, client).frame();
        cases.push(("another port", error(ERRORS[0], macs, router(kind), to, &elsewhere, 48)));
        for (name, at, byte) in [
            ("an echo reply", ETHERNET + ip, if kind.v6 { 129 } else { 0 }),
            ("a quoted ICMP message", quote + if kind.v6 { 6 } else { 9 }, 1),
            ("a quoted packet of another version", quote, 0x50),
        ] {
            let mut frame = good.clone();
            frame[at] = byte;
            cases.push((name, frame));
        }
        if !kind.v6 {
            let mut later = good.clone();
            later[quote + 7] = 1;
            cases.push(("about a later fragment", later));
        }
        for (name, frame) in cases {
            plane.case(format!("{kind}: {name}")).send(&frame).passes(Reason::NotTransport);
        }
        if !kind.v6 {
            let mut fragment = good.clone();
            fragment[20] = 0x20;
            plane.case(format!("{kind}: a fragment")).send(&fragment).passes(Reason::Fragment);
        }
    });
}

/// Cut anywhere: as it came, or the whole of it is written anew.
#[test]
fn errors_that_are_cut_short_pass() {
    every(&ALL, |plane, kind| {
        let client = kind.client(1);
        let _ = plane.run(0, &kind.request(client).frame());
        let about = undelivered(kind, client).frame();
        let macs = (CLIENT_MAC, BALANCER_MACS[0]);
        let frame = error(ERRORS[0], macs, router(kind), kind.address().ip(), &about, 60);
        for bytes in ETHERNET..frame.len() {
            let fate = plane.run(0, &frame[..bytes]);
            assert_eq!(
                (fate.action, &fate.frame[..]),
                (Action::Pass, &frame[..bytes]),
                "{kind}: {bytes} bytes"
            );
        }
    });
}

/// What stands behind the message in the frame is no part of it.
#[test]
fn padding_is_left_alone() {
    every(&NAT, |plane, kind| {
        let client = kind.client(1);
        let _ = plane.run(0, &kind.request(client).frame());
        let about = undelivered(kind, client).frame();
        let macs = (CLIENT_MAC, BALANCER_MACS[0]);
        let least = quotes(kind, &about)[0];
        let mut frame = error(ERRORS[0], macs, router(kind), kind.address().ip(), &about, least);
        let bytes = frame.len();
        frame.extend_from_slice(&[0xaa; 20]);
        let fate = plane.run(0, &frame);
        assert_eq!(fate.action, Action::Tx, "{kind}");
        assert_eq!(fate.frame[bytes..], [0xaa; 20], "{kind}");
        checksums::verify_checksums(&fate.frame);
    });
}

#[test]
fn an_error_at_the_end_of_its_life_is_dropped() {
    every(&[NAT, TUNNELS].concat(), |plane, kind| {
        let client = kind.client(1);
        let _ = plane.run(0, &kind.request(client).frame());
        let about = undelivered(kind, client).frame();
        let macs = (CLIENT_MAC, BALANCER_MACS[0]);
        let mut frame = error(ERRORS[0], macs, router(kind), kind.address().ip(), &about, 48);
        frame[if kind.v6 { 21 } else { 22 }] = 1;
        plane.case(format!("{kind}")).send(&frame).dropped(Reason::TtlExpired);
    });
}

/// A quoted IPv4 header with options is as long as it says.
#[test]
fn options_of_the_quoted_packet_are_passed_over() {
    every(&[Mode::FullNat], |plane, kind| {
        if kind.v6 {
            return;
        }
        let (client, backend) = (kind.client(1), kind.backend(11).address);
        let sent = plane.run(0, &kind.request(client).frame()).frame;
        let source = Parsed::of(&sent).source();
        for words in 1..=10 {
            let about = undelivered(kind, client).ip_options(&vec![1; words * 4]);
            let own = about.clone().between(backend, source).frame();
            let about = about.frame();
            let macs = (CLIENT_MAC, BALANCER_MACS[0]);
            let bytes = 20 + words * 4 + 20;
            let frame = error(ERRORS[0], macs, router(kind), kind.address().ip(), &about, bytes);
            let fate = plane.run(0, &frame);
            let macs = (BALANCER_MACS[0], backend_mac(backend));
            let expected = error(ERRORS[0], macs, kind.source(), backend.ip(), &own, bytes);
            assert_eq!(fate.action, Action::Tx, "{kind}: {words} words");
            assert_error(&format!("{kind}: {words} words"), &fate.frame, &expected);
        }
    });
}
