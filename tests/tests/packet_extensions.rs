//! IPv6 packets with extension headers go the way of others; what is not to be looked behind is the kernel's.

use std::net::SocketAddr;

use flowgate::datapath::apply::WantedBackend;
use harness::{
    dataplane::{Action, BALANCER_MACS, CLIENT_MAC, DataPlane, Kind, backend_mac},
    extensions::{DESTINATION, Extension, HOP_BY_HOP, atomic, extended, options, routing},
    packets::{Packet, Parsed},
    tunnel::Tunnel,
};
use lb_common::{Mode, Reason, tunnel::GUE_PORT};

const ETHERNET: usize = 14;
const IPV6: usize = ETHERNET + 40;

const AUTHENTICATION: u8 = 51;

/// Chains that are looked behind.
fn chains() -> Vec<Vec<Extension>> {
    vec![
        vec![options(HOP_BY_HOP, 1)],
        vec![options(DESTINATION, 1)],
        vec![options(DESTINATION, 12)],
        vec![routing(0)],
        vec![atomic()],
        vec![options(HOP_BY_HOP, 2), options(DESTINATION, 1), routing(0), atomic(), options(DESTINATION, 3)],
        vec![options(DESTINATION, 1); 5],
    ]
}

/// Chains that are not.
fn foreign_chains() -> Vec<(&'static str, Vec<Extension>)> {
    vec![
        ("a node still to be visited", vec![routing(1)]),
        ("hop-by-hop options that are not the first", vec![options(DESTINATION, 1), options(HOP_BY_HOP, 1)]),
        ("two fragment headers", vec![atomic(), atomic()]),
        ("an authentication header", vec![options(AUTHENTICATION, 1)]),
        ("mobility", vec![options(135, 1)]),
        ("six of them", vec![options(DESTINATION, 1); 6]),
        ("a long one", vec![options(DESTINATION, 30)]),
        ("two that are long together", vec![options(DESTINATION, 14); 2]),
    ]
}

/// A service of a kind on a port of its own, so that one data plane has all of them.
#[derive(Clone, Copy)]
struct Place {
    kind: Kind,
    port: u16,
}

impl Place {
    fn address(self) -> SocketAddr {
        SocketAddr::new(self.kind.address().ip(), self.port)
    }

    fn backend(self) -> WantedBackend {
        let backend = self.kind.backend(11);
        let port = if self.kind.rewrites() { 8080 + self.port } else { self.port };
        WantedBackend { address: SocketAddr::new(backend.address.ip(), port), ..backend }
    }

    fn request(self, client: SocketAddr) -> Packet {
        self.kind.packet(client, self.address()).macs(CLIENT_MAC, BALANCER_MACS[0])
    }

    /// What a request with extension headers comes out as, of which `seen` has the port and the tunnel's own choices.
    fn forwarded(self, request: &Packet, chain: &[Extension], seen: &[u8]) -> Vec<u8> {
        let (kind, backend) = (self.kind, self.backend().address);
        let macs = (BALANCER_MACS[0], backend_mac(backend));
        if kind.rewrites() {
            let source = Parsed::of(seen).source();
            return extended(&kind.translated(request, source, backend).frame(), chain);
        }
        if !kind.is_tunnel() {
            return extended(&request.clone().macs(macs.0, macs.1).frame(), chain);
        }
        let tunnel = Tunnel {
            source: kind.source(),
            destination: backend.ip(),
            gue_port: (kind.mode == Mode::Gue).then_some(GUE_PORT),
            dont_fragment: true,
        };
        tunnel.around(macs, &extended(&request.clone().ttl(63).frame(), chain), seen)
    }
}

fn places() -> Vec<Place> {
    let modes = [Mode::FullNat, Mode::Nat, Mode::Dsr, Mode::Ipip, Mode::Gue];
    let kinds = modes.into_iter().flat_map(Kind::of_mode).filter(|kind| kind.v6);
    kinds.zip(1000..).map(|(kind, port)| Place { kind, port }).collect()
}

fn plane(places: &[Place]) -> DataPlane {
    let mut plane = DataPlane::new();
    let service = |place: &Place| place.kind.service_at(place.address(), vec![place.backend()]);
    plane.apply(&places.iter().map(service).collect::<Vec<_>>());
    plane
}

#[test]
fn requests_go_on_with_their_extension_headers() {
    let places = places();
    let plane = plane(&places);
    for place in places {
        for (n, chain) in chains().into_iter().enumerate() {
            let request = place.request(place.kind.client(n as u32));
            let frame = extended(&request.frame(), &chain);
            let sent = plane.case(format!("{}, chain {n}", place.kind)).send(&frame);
            let expected = place.forwarded(&request, &chain, &sent.fate().frame);
            sent.expect(Action::Tx, &expected)
                .credits(place.backend().address, [1, frame.len() as u64, 0, 0, 1])
                .moves([(Reason::Forwarded, 1)]);
        }
    }
}

#[test]
fn answers_go_back_with_theirs() {
    let places = places();
    let plane = plane(&places);
    for place in places.into_iter().filter(|place| place.kind.rewrites()) {
        for (n, chain) in chains().into_iter().enumerate() {
            let (kind, client, backend) = (place.kind, place.kind.client(n as u32), place.backend().address);
            let asked = Parsed::of(&plane.run(0, &place.request(client).frame()).frame).source();
            let answer = kind.answer(backend, asked);
            let returned =
                answer.clone().between(place.address(), client).macs(BALANCER_MACS[0], CLIENT_MAC).ttl(63);
            let frame = extended(&answer.frame(), &chain);
            plane
                .case(format!("{kind}, chain {n}"))
                .send(&frame)
                .expect(Action::Tx, &extended(&returned.frame(), &chain))
                .credits(backend, [0, 0, 1, frame.len() as u64, 0])
                .moves([(Reason::Replied, 1)]);
        }
    }
}

/// Whether a packet has extension headers or not, it is the same flow's.
#[test]
fn a_flow_is_the_same_with_and_without() {
    let places = places();
    let plane = plane(&places);
    for place in places {
        let client = place.kind.client(1);
        let plain = plane.run(0, &place.request(client).frame());
        assert_eq!(plain.action, Action::Tx, "{}", place.kind);
        let more = place.kind.more(client).between(client, place.address());
        for chain in chains() {
            let frame = extended(&more.frame(), &chain);
            plane
                .case(format!("{}, more", place.kind))
                .send(&frame)
                .expect_sent()
                .credits(place.backend().address, [1, frame.len() as u64, 0, 0, 0])
                .moves([(Reason::Forwarded, 1)]);
        }
    }
}

#[test]
fn what_is_not_to_be_looked_behind_passes() {
    let places = places();
    let plane = plane(&places);
    for place in places {
        let frame = place.request(place.kind.client(1)).frame();
        for (name, chain) in foreign_chains() {
            let frame = extended(&frame, &chain);
            plane.case(format!("{}, {name}", place.kind)).send(&frame).passes(Reason::NotTransport);
        }
    }
}

#[test]
fn cut_anywhere_it_passes() {
    let places = places();
    let plane = plane(&places);
    for place in places {
        let longest = chains().swap_remove(5);
        let frame = extended(&place.request(place.kind.client(1)).frame(), &longest);
        for length in ETHERNET..frame.len() {
            plane
                .case(format!("{}, {length} bytes", place.kind))
                .send(&frame[..length])
                .passes(Reason::Malformed);
        }
        // The header says so as well.
        for length in 0..frame.len() - IPV6 {
            let mut cut = frame[..IPV6 + length].to_vec();
            cut[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&(length as u16).to_be_bytes());
            let fate = plane.run(0, &cut);
            assert_eq!(fate.action, Action::Pass, "{}, {length}", place.kind);
            assert_eq!(fate.frame, cut, "{}, {length}", place.kind);
        }
    }
}

/// A refusal has no extension headers of its own, and a packet of too many hops is answered as others are.
#[test]
fn answers_to_them_are_plain() {
    let places = places();
    let plane = plane(&places);
    for place in places.into_iter().filter(|place| place.kind.mode != Mode::Dsr) {
        let client = place.kind.client(1);
        for chain in chains() {
            let frame = extended(&place.request(client).ttl(1).frame(), &chain);
            let fate = plane
                .case(format!("{}, its last hop", place.kind))
                .send(&frame)
                .expect_sent()
                .moves([(Reason::TimeExceeded, 1)]);
            let error = Parsed::of(&fate.frame);
            assert_eq!(error.icmp, (3, 0), "{}", place.kind);
            assert_eq!(error.destination_address, client.ip(), "{}", place.kind);
            let headers = frame.len() - place.request(client).frame().len() + 48;
            assert_eq!(error.payload, frame[ETHERNET..ETHERNET + headers], "{}: up to ports", place.kind);
        }
    }
}
