//! Packets in parts: the first goes by its ports, the others follow it; or all by their addresses.

use std::{collections::HashSet, net::SocketAddr};

use flowgate::datapath::apply::{WantedBackend, WantedService};
use harness::{
    dataplane::{Action, BALANCER_MACS, CLIENT_MAC, DataPlane, Kind, Options, backend_mac},
    packets::{Packet, Parsed, flags},
    tunnel::Tunnel,
};
use lb_common::{Mode, Reason, tunnel::GUE_PORT};

const ETHERNET: usize = 14;
/// Payload of each part but the last.
const PART: usize = 400;

/// A service of a kind on a port of its own, so that one data plane has all of them.
#[derive(Clone, Copy)]
struct Place {
    kind: Kind,
    port: u16,
}

fn places() -> Vec<Place> {
    Kind::all().zip(1000..).map(|(kind, port)| Place { kind, port }).collect()
}

fn plane(places: &[Place], options: &Options) -> DataPlane {
    let mut options = options.clone();
    // Rings are there twice while services change.
    options.limits.ring_slots = 1 << 19;
    let mut plane = DataPlane::with(&options);
    plane.apply(&places.iter().map(|place| place.service(&[11])).collect::<Vec<_>>());
    plane
}

impl Place {
    fn address(self) -> SocketAddr {
        SocketAddr::new(self.kind.address().ip(), self.port)
    }

    /// Those that do not rewrite ports have the service's.
    fn backend(self, n: u8) -> WantedBackend {
        let backend = self.kind.backend(n);
        let port = if self.kind.rewrites() { 8080 + self.port } else { self.port };
        WantedBackend { address: SocketAddr::new(backend.address.ip(), port), ..backend }
    }

    fn service(self, backends: &[u8]) -> WantedService {
        self.kind.service_at(self.address(), backends.iter().map(|n| self.backend(*n)).collect())
    }

    /// No two places have a client in common: parts have no ports to tell them apart by.
    fn client(self, n: u32) -> SocketAddr {
        self.kind.client(u32::from(self.port) * 50 + n)
    }

    /// A packet of 1000 bytes that begins a flow, or goes on with it.
    fn packet(self, client: SocketAddr, identification: u16) -> Packet {
        let packet = self.kind.packet(client, self.address()).macs(CLIENT_MAC, BALANCER_MACS[0]);
        packet.payload(&[7; 1000]).identification(identification)
    }

    /// Its parts.
    fn parts(self, client: u32, identification: u16) -> Vec<Vec<u8>> {
        self.packet(self.client(client), identification).fragments(PART)
    }

    /// What the parts of a client's packet come out as, of which the first was `seen` to.
    fn forwarded(self, packet: &Packet, seen: &[u8]) -> Vec<Vec<u8>> {
        let (kind, backend) = (self.kind, self.backend(11).address);
        let macs = (BALANCER_MACS[0], backend_mac(backend));
        if kind.rewrites() {
            let (source, identification) = (first_source(seen), identification(seen));
            let translated = kind.translated(packet, source, backend).identification(identification);
            return translated.fragments(PART);
        }
        if !kind.is_tunnel() {
            return packet.clone().macs(macs.0, macs.1).fragments(PART);
        }
        packet.clone().ttl(63).fragments(PART)
    }

    /// Sends a part, which must come out as `expected`; inside a tunnel, if it goes through one.
    fn sends(self, plane: &DataPlane, name: &str, part: &[u8], expected: &[u8], is_new: bool) {
        let sent = plane.case(format!("{}: {name}", self.kind)).send(part);
        let expected = if self.kind.is_tunnel() {
            let backend = self.backend(11).address;
            let tunnel = Tunnel {
                source: self.kind.source(),
                destination: backend.ip(),
                gue_port: (self.kind.mode == Mode::Gue).then_some(GUE_PORT),
                dont_fragment: self.kind.v6,
            };
            tunnel.around((BALANCER_MACS[0], backend_mac(backend)), expected, &sent.fate().frame)
        } else {
            expected.to_vec()
        };
        sent.expect(Action::Tx, &expected)
            .credits(self.backend(11).address, [1, part.len() as u64, 0, 0, u64::from(is_new)])
            .moves([(Reason::Forwarded, 1)]);
    }
}

/// Address and port that a first part is from.
fn first_source(frame: &[u8]) -> SocketAddr {
    let parsed = Parsed::of(frame);
    let at = if parsed.source_address.is_ipv4() { ETHERNET + 20 } else { ETHERNET + 48 };
    SocketAddr::new(parsed.source_address, u16::from_be_bytes([frame[at], frame[at + 1]]))
}

fn identification(frame: &[u8]) -> u16 {
    Parsed::of(frame).fragment.expect("a part").identification as u16
}

/// Checked byte by byte; the checksum in the first part is that of the whole packet, as etherparse writes it.
#[test]
fn the_others_follow_the_first_in_any_order() {
    let places = places();
    let plane = plane(&places, &Options::default());
    for place in places {
        for (client, order) in [[0, 1, 2], [0, 2, 1]].into_iter().enumerate() {
            let packet = place.packet(place.client(client as u32), 77);
            let parts = packet.fragments(PART);
            assert_eq!(parts.len(), 3);
            // What the first part comes out as says which port and identification it was given.
            let probe = place.packet(place.client(client as u32), 76).fragments(PART);
            let seen = plane.run(0, &probe[0]).frame;
            let mut expected = place.forwarded(&packet, &seen);
            if place.kind.rewrites() {
                let next = packet.clone().identification(identification(&seen) + 1);
                expected = place
                    .kind
                    .translated(&next, first_source(&seen), place.backend(11).address)
                    .fragments(PART);
            }
            for part in order.into_iter().chain([2, 1]) {
                place.sends(&plane, &format!("part {part}"), &parts[part], &expected[part], false);
            }
        }
    }
}

/// full-nat, nat: a server's large answer, such as those of DNS.
#[test]
fn answers_in_parts_reach_the_client() {
    let places = places();
    let plane = plane(&places, &Options::default());
    for place in places.into_iter().filter(|place| place.kind.rewrites()) {
        let (kind, client, backend) = (place.kind, place.client(1), place.backend(11).address);
        let request = kind.packet(client, place.address()).macs(CLIENT_MAC, BALANCER_MACS[0]);
        let asked = Parsed::of(&plane.run(0, &request.frame()).frame).source();
        let answer = kind.answer(backend, asked).payload(&[9; 1000]).identification(500);
        let parts = answer.fragments(PART);
        let first = plane.run(0, &answer.clone().identification(499).fragments(PART)[0]);
        assert_eq!(first.action, Action::Tx, "{kind}");
        let returned = answer
            .clone()
            .between(place.address(), client)
            .macs(BALANCER_MACS[0], CLIENT_MAC)
            .ttl(63)
            .identification(identification(&first.frame) + 1);
        let expected = returned.fragments(PART);
        for part in [0, 2, 1] {
            plane
                .case(format!("{kind}, part {part}"))
                .send(&parts[part])
                .expect(Action::Tx, &expected[part])
                .credits(backend, [0, 0, 1, parts[part].len() as u64, 0])
                .moves([(Reason::Replied, 1)]);
        }
    }
}

#[test]
fn what_comes_before_the_first_passes() {
    let places = places();
    let plane = plane(&places, &Options::default());
    for place in places {
        let parts = place.parts(1, 9);
        for part in &parts[1..] {
            plane.case(format!("{}, early", place.kind)).send(part).passes(Reason::Fragment);
        }
        assert_eq!(plane.run(0, &parts[0]).action, Action::Tx, "{}", place.kind);
        for part in &parts[1..] {
            assert_eq!(plane.run(0, part).action, Action::Tx, "{}", place.kind);
        }
    }
}

/// Parts of another packet have nothing to do with those that are remembered.
#[test]
fn only_parts_of_the_same_packet_follow() {
    let places = places();
    let plane = plane(&places, &Options::default());
    for place in places {
        let kind = place.kind;
        assert_eq!(plane.run(0, &place.parts(1, 9)[0]).action, Action::Tx, "{kind}");
        let another = |name: &str, part: &[u8]| {
            plane.case(format!("{kind}, {name}")).send(part).passes(Reason::Fragment);
        };
        another("another identification", &place.parts(1, 10)[1]);
        another("another client", &place.parts(2, 9)[1]);
        let elsewhere =
            SocketAddr::new(if kind.v6 { "2001:db8:1::11" } else { "192.0.2.11" }.parse().unwrap(), 1);
        let to = kind.packet(place.client(1), elsewhere).payload(&[7; 1000]).identification(9);
        another("another address", &to.fragments(PART)[1]);
        another("the way back", &place.packet(place.client(1), 9).reversed().fragments(PART)[1]);
        if !kind.v6 {
            let other = Kind { udp: !kind.udp, ..kind }.packet(place.client(1), place.address());
            let other = other.payload(&[7; 1000]).identification(9);
            another("another protocol", &other.fragments(PART)[1]);
        }
    }
}

#[test]
fn parts_for_nobody_pass() {
    let places = places();
    let plane = plane(&places, &Options::default());
    for kind in Kind::that_steer() {
        let nobody = SocketAddr::new(kind.address().ip(), 99);
        let parts = kind.packet(kind.client(1), nobody).payload(&[7; 1000]).identification(3).fragments(PART);
        plane.case(format!("{kind}, first")).send(&parts[0]).passes(Reason::NotService);
        for part in &parts[1..] {
            plane.case(format!("{kind}, later")).send(part).passes(Reason::Fragment);
        }
    }
}

/// Too short for ports, or for a header: nobody knows whose it is (RFC 1858, RFC 7112).
#[test]
fn a_first_part_without_a_whole_header_passes() {
    let places = places();
    let plane = plane(&places, &Options::default());
    for place in places.into_iter().filter(|place| !place.kind.udp) {
        for bytes in [8, 16] {
            let parts = place.packet(place.client(1), 5).fragments(bytes);
            plane.case(format!("{}, {bytes} bytes", place.kind)).send(&parts[0]).passes(Reason::Malformed);
            plane.case(format!("{}, later", place.kind)).send(&parts[1]).passes(Reason::Fragment);
        }
    }
}

/// Found by fuzzing: later parts that were shorter than their own headers were sent on.
#[test]
fn a_part_that_contradicts_itself_passes() {
    let places = places();
    let plane = plane(&places, &Options::default());
    for place in places {
        let parts = place.parts(1, 9);
        assert_eq!(plane.run(0, &parts[0]).action, Action::Tx, "{}", place.kind);
        let longer = (parts[1].len() as u16 - 13).to_be_bytes();
        let lengths: &[[u8; 2]] =
            if place.kind.v6 { &[[0xff, 0xff], [0, 0], [0, 7]] } else { &[[0, 8], [0, 19], longer] };
        for length in lengths {
            let mut part = parts[1].clone();
            let at = ETHERNET + if place.kind.v6 { 4 } else { 2 };
            part[at..at + 2].copy_from_slice(length);
            plane.case(format!("{}, length {length:?}", place.kind)).send(&part).passes(Reason::Malformed);
        }
    }
}

#[test]
fn a_hop_is_taken_from_every_part() {
    let places = places();
    let plane = plane(&places, &Options::default());
    for place in places {
        let kind = place.kind;
        let packet = place.packet(place.client(1), 9);
        assert_eq!(plane.run(0, &packet.fragments(PART)[0]).action, Action::Tx, "{kind}");
        let last = packet.ttl(1).fragments(PART);
        if kind.rewrites() || kind.is_tunnel() {
            plane.case(format!("{kind}, its last hop")).send(&last[1]).dropped(Reason::TtlExpired);
        } else {
            assert_eq!(plane.run(0, &last[1]).action, Action::Tx, "{kind}: a switch");
        }
    }
}

#[test]
fn parts_of_a_backend_that_has_gone_are_lost() {
    let removed = |place: &Place| place.service(&[12]);
    let disabled = |place: &Place| {
        let mut service = place.service(&[11]);
        service.backends[0].usable = false;
        service
    };
    for changed in [removed as fn(&Place) -> WantedService, disabled] {
        let places = places();
        let mut plane = plane(&places, &Options::default());
        for place in &places {
            assert_eq!(plane.run(0, &place.parts(1, 9)[0]).action, Action::Tx, "{}", place.kind);
        }
        plane.apply(&places.iter().map(changed).collect::<Vec<_>>());
        for place in &places {
            plane.case(place.kind).send(&place.parts(1, 9)[1]).dropped(Reason::FragmentLost);
        }
    }
}

/// Two clients that use one identification do not look alike to the server (RFC 6864).
#[test]
fn identifications_of_translated_parts_are_ours() {
    let places = places();
    let plane = plane(&places, &Options::default());
    for place in places.into_iter().filter(|place| place.kind.rewrites()) {
        let seen: HashSet<u16> =
            (0..40).map(|client| identification(&plane.run(0, &place.parts(client, 1)[0]).frame)).collect();
        assert_eq!(seen.len(), 40, "{}", place.kind);
    }
}

/// A part is remembered wrongly never, and forgotten only by want of room.
#[test]
fn a_full_table_mixes_up_nothing() {
    let place = places().into_iter().find(|place| place.kind.mode == Mode::FullNat).expect("the first");
    let mut options = Options::default().flows(65_536);
    options.limits.fragments = 64;
    let plane = plane(&[place], &options);
    let (mut followed, mut forgotten) = (0, 0);
    let sent: Vec<_> = (0..2000)
        .map(|client| (client, plane.run(0, &place.parts(client, client as u16)[0]).frame))
        .collect();
    for (client, first) in sent {
        let fate = plane.run(0, &place.parts(client, client as u16)[1]);
        match fate.action {
            Action::Pass => forgotten += 1,
            Action::Tx => {
                assert_eq!(identification(&fate.frame), identification(&first), "client {client}");
                followed += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    // As many as there are places.
    assert!(followed > 48 && followed <= 64, "{followed} followed, {forgotten} forgotten");
}

/// And a service whose parts go by address takes its own alone.
#[test]
fn without_a_table_parts_are_the_kernels() {
    let mut options = Options::default();
    options.limits.fragments = 0;
    let is_by_address = |kind: Kind| kind.mode == Mode::Dsr && kind.udp;
    for some_by_address in [false, true] {
        let mut plane = plane(&[], &options);
        let service = |place: &Place| WantedService {
            fragments_by_address: some_by_address && is_by_address(place.kind),
            ..place.service(&[11])
        };
        plane.apply(&places().iter().map(service).collect::<Vec<_>>());
        for place in places().into_iter().filter(|place| !is_by_address(place.kind)) {
            for part in &place.parts(1, 9)[..if some_by_address { 1 } else { 3 }] {
                plane.case(place.kind).send(part).passes(Reason::Fragment);
            }
            let whole = place.packet(place.client(1), 9).frame();
            assert_eq!(plane.run(0, &whole).action, Action::Tx, "{}", place.kind);
        }
    }
}

/// A first part that comes twice is the same packet to its receiver.
#[test]
fn a_first_part_that_comes_again_gets_the_same_identification() {
    let places = places();
    let plane = plane(&places, &Options::default());
    for place in places.into_iter().filter(|place| place.kind.rewrites()) {
        let first = &place.parts(1, 9)[0];
        let [one, two] = [0, 1].map(|_| identification(&plane.run(0, first).frame));
        let another = identification(&plane.run(0, &place.parts(1, 10)[0]).frame);
        assert_eq!(one, two, "{}", place.kind);
        assert_ne!(one, another, "{}", place.kind);
    }
}

/// The sender uses an identification again, for something that is not ours: its other parts are not sent after the old one's.
#[test]
fn a_first_part_for_nobody_ends_what_was_remembered() {
    let places = places();
    let plane = plane(&places, &Options::default());
    for place in places {
        let kind = place.kind;
        assert_eq!(plane.run(0, &place.parts(1, 9)[0]).action, Action::Tx, "{kind}");
        let nobody = SocketAddr::new(kind.address().ip(), 99);
        let parts =
            kind.packet(place.client(1), nobody).payload(&[7; 1000]).identification(9).fragments(PART);
        plane.case(format!("{kind}, first")).send(&parts[0]).passes(Reason::NotService);
        plane.case(format!("{kind}, later")).send(&parts[1]).passes(Reason::Fragment);
    }
}

/// A disabled backend gets no requests any more; what it still answers reaches the client whole.
#[test]
fn answers_of_a_disabled_backend_are_whole() {
    let places: Vec<_> = places().into_iter().filter(|place| place.kind.rewrites()).collect();
    let mut plane = plane(&places, &Options::default());
    let asked: Vec<_> = places
        .iter()
        .map(|place| Parsed::of(&plane.run(0, &place.packet(place.client(1), 1).frame()).frame).source())
        .collect();
    let disabled = |place: &Place| {
        let mut service = place.service(&[11]);
        service.backends[0].usable = false;
        service
    };
    plane.apply(&places.iter().map(disabled).collect::<Vec<_>>());
    for (place, asked) in places.iter().zip(asked) {
        let answer =
            place.kind.answer(place.backend(11).address, asked).payload(&[9; 1000]).identification(5);
        let actions: Vec<_> = answer.fragments(PART).iter().map(|part| plane.run(0, part).action).collect();
        assert!(actions.iter().all(|action| *action == actions[0]), "{}: {actions:?}", place.kind);
    }
}

/// `fragments = "by-address"`: whatever order they come in, and with no table for them.
#[test]
fn by_address_all_parts_go_to_one_backend() {
    let kinds: Vec<Kind> = [Mode::Dsr, Mode::Ipip, Mode::Gue]
        .into_iter()
        .flat_map(Kind::of_mode)
        .filter(|kind| kind.udp)
        .collect();
    for fragments in [0, 256] {
        for kind in &kinds {
            let place = Place { kind: *kind, port: 53 };
            let mut options = Options::default();
            options.limits.fragments = fragments;
            let mut plane = DataPlane::with(&options);
            let mut service = place.service(&[11, 12, 13]);
            service.fragments_by_address = true;
            plane.apply(&[service]);
            let went = |frame: &[u8]| {
                let fate = plane.run(0, frame);
                assert_eq!(fate.action, Action::Tx, "{kind}");
                Parsed::of(&fate.frame).destination_mac
            };
            let mut backends = HashSet::new();
            for client in 0..40 {
                let parts = place.parts(client, client as u16);
                let to: HashSet<_> = [2, 1, 0, 1].map(|part| went(&parts[part])).into();
                assert_eq!(to.len(), 1, "{kind}, client {client}");
                backends.extend(to);
            }
            assert_eq!(backends.len(), 3, "{kind}: every backend gets some");
            // Of the other protocol, and for an address that no such service has.
            let tcp = Kind { udp: false, ..*kind }.packet(kind.client(1), place.address());
            let later = tcp.payload(&[1; 1000]).fragments(PART)[1].clone();
            plane.case(format!("{kind}, tcp")).send(&later).passes(Reason::Fragment);
            // No error is sent about a part that is not the first.
            if kind.is_tunnel() {
                let expired = place.packet(kind.client(1), 3).ttl(1).fragments(PART);
                plane.case(format!("{kind}, its last hop")).send(&expired[1]).dropped(Reason::TtlExpired);
                let expired = plane.run(0, &expired[0]);
                assert_eq!(expired.action, Action::Tx, "{kind}: the first is answered");
            }
        }
    }
}

/// A connection's parts, too: the flow is the one of its whole packets.
#[test]
fn parts_belong_to_the_flow_of_whole_packets() {
    let places = places();
    let mut plane = DataPlane::new();
    plane.apply(&places.iter().map(|place| place.service(&[11, 12, 13])).collect::<Vec<_>>());
    for place in places {
        for client in 0..20 {
            let client = place.client(client);
            let whole = place.kind.packet(client, place.address()).macs(CLIENT_MAC, BALANCER_MACS[0]);
            let to = Parsed::of(&plane.run(0, &whole.frame()).frame).destination_mac;
            let mut more = place.packet(client, 1);
            if !place.kind.udp {
                more = more.flags(flags::ACK);
            }
            for part in more.fragments(PART) {
                let fate = plane.run(0, &part);
                assert_eq!(Parsed::of(&fate.frame).destination_mac, to, "{}", place.kind);
            }
        }
    }
}
