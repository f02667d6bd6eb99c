//! Random packets against a model of what must happen.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use harness::{
    checksums,
    dataplane::{Action, BALANCER_MACS, CLIENT_MAC, DataPlane, Kind, backend_mac},
    packets::{Packet, Parsed},
};
use lb_common::{
    Mode,
    reject::{IcmpError, is_single_host},
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestCaseResult, TestRunner},
};

/// Random packets of each kind.
const CASES: u32 = 256;

/// What a packet is made of, but for who speaks to whom.
#[derive(Clone, Debug)]
struct Shape {
    ttl: u8,
    traffic_class: u8,
    flow_label: u32,
    identification: u16,
    dont_fragment: bool,
    ip_options: Vec<u8>,
    tcp_options: Vec<u8>,
    flags: u8,
    numbers: (u32, u32),
    without_checksum: bool,
    payload: Vec<u8>,
    /// Behind the packet.
    padding: Vec<u8>,
    /// Added to the transport's checksum.
    error: u16,
}

fn words(max: usize) -> impl Strategy<Value = Vec<u8>> {
    (0..=max).prop_flat_map(|words| vec(any::<u8>(), words * 4))
}

fn shape() -> impl Strategy<Value = Shape> {
    let ip = (
        prop_oneof![1 => 0_u8..3, 9 => any::<u8>()],
        any::<u8>(),
        0..1_u32 << 20,
        any::<u16>(),
        any::<bool>(),
        words(10),
    );
    let transport = (words(10), any::<u8>(), any::<(u32, u32)>(), proptest::bool::weighted(0.2));
    let payload = prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..1300)];
    let error = prop_oneof![4 => Just(0), 1 => any::<u16>()];
    (ip, transport, payload, vec(any::<u8>(), 0..8), error).prop_map(
        |(ip, transport, payload, padding, error)| Shape {
            ttl: ip.0,
            traffic_class: ip.1,
            flow_label: ip.2,
            identification: ip.3,
            dont_fragment: ip.4,
            ip_options: ip.5,
            tcp_options: transport.0,
            flags: transport.1,
            numbers: transport.2,
            without_checksum: transport.3,
            payload,
            padding,
            error,
        },
    )
}

/// Any address and port; IPv6's IPv4-mapped addresses are nobody's.
fn client(v6: bool) -> BoxedStrategy<SocketAddr> {
    if v6 {
        (any::<u128>(), any::<u16>())
            .prop_filter("IPv4-mapped", |(address, _)| address >> 32 != 0xffff)
            .prop_map(|(address, port)| SocketAddr::new(Ipv6Addr::from(address).into(), port))
            .boxed()
    } else {
        any::<([u8; 4], u16)>().prop_map(|(octets, port)| SocketAddr::new(IpAddr::from(octets), port)).boxed()
    }
}

impl Shape {
    fn packet(&self, kind: Kind, source: SocketAddr, destination: SocketAddr) -> Packet {
        let packet = kind
            .packet(source, destination)
            .ttl(self.ttl)
            .traffic_class(self.traffic_class)
            .flow_label(self.flow_label)
            .identification(self.identification)
            .dont_fragment(self.dont_fragment)
            .ip_options(if kind.v6 { &[] } else { &self.ip_options })
            .payload(&self.payload);
        match kind.udp {
            true if self.without_checksum && !kind.v6 => packet.without_checksum(),
            true => packet,
            false => packet
                .flags(self.flags)
                .numbers(self.numbers.0, self.numbers.1)
                .tcp_options(&self.tcp_options),
        }
    }

    fn checksum_at(&self, kind: Kind) -> usize {
        let network = if kind.v6 { 40 } else { 20 + self.ip_options.len() };
        14 + network + if kind.udp { 6 } else { 16 }
    }

    /// As it comes in: with its padding, and with its error.
    fn frame(&self, kind: Kind, packet: &Packet) -> Vec<u8> {
        let mut frame = packet.frame();
        let at = self.checksum_at(kind);
        let right = word(&frame, at);
        if !(kind.udp && right == 0) {
            frame[at..at + 2].copy_from_slice(&right.wrapping_add(self.error).to_be_bytes());
        }
        frame.extend_from_slice(&self.padding);
        frame
    }
}

fn word(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// Whether `out` is the packet `expected`, and as wrong as `sent`, of which `right` would have been right.
///
/// Checksums are numbers modulo 65,535, so an error is a difference modulo 65,535; UDP has one value that means
/// "none", and one for each number else.
fn check(
    kind: Kind,
    shape: &Shape,
    right: &Packet,
    sent: &[u8],
    expected: &Packet,
    out: &[u8],
) -> TestCaseResult {
    let at = shape.checksum_at(kind);
    let (right, mut expected) = (right.frame(), expected.frame());
    expected.extend_from_slice(&shape.padding);
    if word(sent, at) == word(&right, at) {
        prop_assert_eq!(out, &expected[..], "{}", kind);
        checksums::check(out).map_err(TestCaseError::fail)?;
        return Ok(());
    }
    let found = word(out, at);
    if kind.udp && word(sent, at) == 0 {
        prop_assert_eq!(found, 0, "{}: no checksum is none", kind);
    } else {
        let number = |value: u16| u64::from(value) % 65_535;
        let error = number(word(sent, at)) + 65_535 - number(word(&right, at));
        prop_assert_eq!(number(found), (number(word(&expected, at)) + error) % 65_535, "{}", kind);
        prop_assert!(!kind.udp || found != 0, "{}: a checksum must not vanish", kind);
    }
    expected[at..at + 2].copy_from_slice(&found.to_be_bytes());
    prop_assert_eq!(out, &expected[..], "{}", kind);
    Ok(())
}

fn for_any_packets(
    test: impl Fn(&DataPlane, Kind, SocketAddr, &Shape, &Shape) -> TestCaseResult,
    mode: Mode,
) {
    for kind in Kind::of_mode(mode) {
        let mut plane = DataPlane::new();
        plane.apply(&[kind.service(vec![kind.backend(11)])]);
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        TestRunner::new(config)
            .run(&(client(kind.v6), shape(), shape()), |(client, request, answer)| {
                test(&plane, kind, client, &request, &answer)
            })
            .unwrap_or_else(|failure| panic!("{kind}: {failure}"));
    }
}

#[test]
fn dsr_changes_mac_addresses_and_nothing_else() {
    let backend = |kind: Kind| backend_mac(kind.backend(11).address);
    for_any_packets(
        |plane, kind, client, shape, _| {
            let packet = shape.packet(kind, client, kind.address()).macs(CLIENT_MAC, BALANCER_MACS[0]);
            let frame = shape.frame(kind, &packet);
            let fate = plane.run(0, &frame);
            let expected = [&backend(kind).0, &BALANCER_MACS[0].0, &frame[12..]].concat();
            prop_assert_eq!((fate.action, fate.frame), (Action::Tx, expected));
            Ok(())
        },
        Mode::Dsr,
    );
}

#[test]
fn full_nat_changes_addresses_ports_hops_and_the_sums_over_them() {
    for_any_packets(
        |plane, kind, client, request, answer| {
            let backend = kind.backend(11).address;
            let packet = request.packet(kind, client, kind.address()).macs(CLIENT_MAC, BALANCER_MACS[0]);
            let frame = request.frame(kind, &packet);
            let fate = plane.run(0, &frame);
            if request.ttl <= 1 {
                if (kind.v6 || request.ip_options.is_empty()) && is_single_host(&client.ip().into()) {
                    prop_assert_eq!(fate.action, Action::Tx);
                    kind.assert_icmp_error(&fate.frame, client, &frame, IcmpError::TimeExceeded);
                } else {
                    prop_assert_eq!((fate.action, fate.frame), (Action::Drop, frame));
                }
                return Ok(());
            }
            prop_assert_eq!(fate.action, Action::Tx);
            let source =
                SocketAddr::new(kind.source(), word(&fate.frame, request.checksum_at(kind) - offset(kind)));
            prop_assert!((1024..32_768).contains(&source.port()));
            let expected = kind.translated(&packet, source, backend).ttl(request.ttl - 1);
            check(kind, request, &packet, &frame, &expected, &fate.frame)?;

            let packet = answer.packet(kind, backend, source).macs(backend_mac(backend), BALANCER_MACS[0]);
            let frame = answer.frame(kind, &packet);
            let fate = plane.run(0, &frame);
            if answer.ttl <= 1 {
                prop_assert_eq!((fate.action, fate.frame), (Action::Drop, frame));
                return Ok(());
            }
            prop_assert_eq!(fate.action, Action::Tx);
            let expected = kind.returned(&packet, client, 0).ttl(answer.ttl - 1);
            check(kind, answer, &packet, &frame, &expected, &fate.frame)
        },
        Mode::FullNat,
    );
}

/// Where the checksum is, less where the transport header begins.
fn offset(kind: Kind) -> usize {
    if kind.udp { 6 } else { 16 }
}

/// Any bytes at all: never touched unless sent on, and sent on only where they are a whole packet for a service.
#[test]
fn noise_passes() {
    let mut plane = DataPlane::new();
    let services: Vec<_> =
        Kind::of_mode(Mode::FullNat).into_iter().map(|kind| kind.service(vec![kind.backend(11)])).collect();
    plane.apply(&services);
    let config = Config { cases: 4096, failure_persistence: None, ..Config::default() };
    // A valid packet in which a few bytes are any others, or none are there at all.
    let kinds = proptest::sample::select(Kind::of_mode(Mode::FullNat).to_vec());
    let changes = vec((0_usize..80, any::<u8>()), 0..4);
    let strategy = (kinds, client(false), client(true), shape(), changes, any::<proptest::sample::Index>());
    TestRunner::new(config)
        .run(&strategy, |(kind, v4, v6, shape, changes, cut)| {
            let client = if kind.v6 { v6 } else { v4 };
            let packet = shape.packet(kind, client, kind.address()).macs(CLIENT_MAC, BALANCER_MACS[0]);
            let mut frame = shape.frame(kind, &packet);
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            frame.truncate(14 + cut.index(frame.len() * 2));
            let fate = plane.run(0, &frame);
            if !fate.action.is_sent() {
                prop_assert_eq!(fate.frame, frame);
                return Ok(());
            }
            let parsed = Parsed::try_of(&frame).map_err(TestCaseError::fail)?;
            prop_assert!(parsed.vlans.is_empty());
            if parsed.fragment.is_some() {
                // Its ports are judged by `packet_fragments` and `packet_fuzz`.
                prop_assert_eq!(parsed.destination_address, kind.address().ip());
                return Ok(());
            }
            prop_assert_eq!(parsed.destination(), kind.address());
            if parsed.ttl <= 1 {
                let error = IcmpError::TimeExceeded;
                let [kind_byte, code] = if kind.v6 { error.v6() } else { error.v4() };
                prop_assert_eq!(Parsed::of(&fate.frame).icmp, (kind_byte, code));
                return Ok(());
            }
            prop_assert_eq!(Parsed::of(&fate.frame).payload, parsed.payload);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
