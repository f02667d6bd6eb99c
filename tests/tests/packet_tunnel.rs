//! ipip and gue: the packet as it came, one hop older, behind a header that leads to the backend.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use flowgate::datapath::apply::{WantedBackend, WantedService};
use harness::{
    checksums,
    dataplane::{Action, BALANCER_MACS, DataPlane, Fate, Kind, backend_mac, behind},
    packets::{Packet, flags},
    tunnel::Tunnel,
};
use lb_common::{
    Mode, NextHop, Reason, TunnelOptions,
    reject::IcmpError,
    tunnel::{DontFragment, GUE_PORT},
};

/// A kind of service, and whether its backends are of the other IP version than it.
#[derive(Clone, Copy, Debug)]
struct Way {
    kind: Kind,
    crosses: bool,
    /// The service's, so that one data plane has all of them.
    port: u16,
}

fn ways() -> Vec<Way> {
    let kinds = [Mode::Ipip, Mode::Gue].into_iter().flat_map(Kind::of_mode);
    let both = kinds.flat_map(|kind| [(kind, false), (kind, true)]);
    both.zip(1000..).map(|((kind, crosses), port)| Way { kind, crosses, port }).collect()
}

/// A data plane with these services, each as `change` leaves it.
fn plane(ways: &[Way], change: impl Fn(&Way, &mut WantedService)) -> DataPlane {
    let service = |way: &Way| {
        let mut service = way.kind.service_at(way.target(), vec![way.backend(11)]);
        change(way, &mut service);
        service
    };
    let mut plane = DataPlane::new();
    plane.apply(&ways.iter().map(service).collect::<Vec<_>>());
    plane
}

impl Way {
    /// The kind that the backends would be of.
    fn outer(self) -> Kind {
        Kind { v6: self.kind.v6 != self.crosses, ..self.kind }
    }

    fn target(self) -> SocketAddr {
        SocketAddr::new(self.kind.address().ip(), self.port)
    }

    fn backend(self, n: u8) -> WantedBackend {
        let backend = self.outer().backend(n);
        WantedBackend { address: SocketAddr::new(backend.address.ip(), self.port), ..backend }
    }

    fn request(self, client: SocketAddr) -> Packet {
        self.kind.request(client).between(client, self.target())
    }

    fn more(self, client: SocketAddr) -> Packet {
        self.kind.more(client).between(client, self.target())
    }

    fn tunnel(self, dont_fragment: bool) -> Tunnel {
        Tunnel {
            source: self.outer().source(),
            destination: self.backend(11).address.ip(),
            gue_port: (self.kind.mode == Mode::Gue).then_some(GUE_PORT),
            dont_fragment,
        }
    }

    /// The frame that a packet with this TTL comes out as.
    fn around(self, tunnel: &Tunnel, packet: &Packet, ttl: u8, seen: &Fate) -> Vec<u8> {
        let macs = (BALANCER_MACS[0], backend_mac(self.backend(11).address));
        tunnel.around(macs, &packet.clone().ttl(ttl - 1).frame(), &seen.frame)
    }
}

fn shapes(way: Way) -> Vec<Packet> {
    let (kind, client) = (way.kind, way.kind.client(1));
    let mut shapes = vec![way.request(client), way.more(client), way.more(client).payload(&[7; 1400 - 40])];
    shapes.extend([0x01, 0xb8, 0xff].map(|class| way.more(client).traffic_class(class)));
    if kind.udp {
        shapes.push(way.more(client).payload(b""));
    } else {
        shapes.push(way.more(client).tcp_options(&[1; 40]).flags(flags::ACK | flags::FIN));
    }
    if !kind.v6 {
        shapes.push(way.more(client).dont_fragment(false).identification(0x1234));
        shapes.push(way.more(client).ip_options(&[1; 40]));
    }
    shapes
}

#[test]
fn a_packet_goes_behind_a_header_that_leads_to_the_backend() {
    let ways = ways();
    let plane = plane(&ways, |_, _| {});
    for way in ways {
        let backend = way.backend(11).address;
        for (n, packet) in shapes(way).into_iter().enumerate() {
            let may_fragment = !way.kind.v6 && packet.frame()[20] & 0x40 == 0;
            let tunnel = way.tunnel(!may_fragment);
            let frame = packet.frame();
            let sent = plane.case(format!("{way:?}")).send(&frame);
            let expected = way.around(&tunnel, &packet, 64, sent.fate());
            assert_eq!(sent.fate().action, Action::Tx, "{way:?}");
            assert_eq!(sent.fate().frame, expected, "{way:?}: {packet:?}");
            checksums::verify_checksums(&sent.fate().frame);
            let _ = sent
                .credits(backend, [1, frame.len() as u64, 0, 0, u64::from(n == 0)])
                .moves([(Reason::Forwarded, 1)]);
        }
    }
}

#[test]
fn padding_and_wrong_checksums_travel_along() {
    let ways = ways();
    let plane = plane(&ways, |_, _| {});
    for way in ways {
        let packet = way.more(way.kind.client(1));
        let mut frame = packet.frame();
        *frame.last_mut().expect("a frame has bytes") ^= 0xff;
        frame.extend_from_slice(&[0xaa; 6]);
        let fate = plane.run(0, &frame);
        let mut expected = way.around(&way.tunnel(true), &packet, 64, &fate);
        *expected.last_mut().expect("a frame has bytes") ^= 0xff;
        expected.extend_from_slice(&[0xaa; 6]);
        assert_eq!((fate.action, fate.frame), (Action::Tx, expected), "{way:?}");
    }
}

#[test]
fn a_flow_keeps_its_outer_header_and_flows_differ() {
    let ways = ways();
    let plane = plane(&ways, |_, _| {});
    for way in ways {
        let outer = way.tunnel(true).overhead();
        let mut seen = HashSet::new();
        for n in 0..200 {
            let client = way.kind.client(n);
            let [first, second] =
                [way.request(client), way.more(client)].map(|packet| plane.run(0, &packet.frame()).frame);
            // IPv4's length and checksum differ with the packet.
            let own = |frame: &[u8]| (frame[15..18].to_vec(), frame[14 + outer - 8..14 + outer - 4].to_vec());
            if way.outer().v6 {
                assert_eq!(own(&first).0, own(&second).0, "{way:?}: flow label");
            }
            if way.kind.mode == Mode::Gue {
                assert_eq!(own(&first).1, own(&second).1, "{way:?}: ports");
            }
            seen.insert(own(&first));
        }
        // IPv4 in IPv4 has no place for it but the source address.
        let spreads = way.kind.mode == Mode::Gue || way.outer().v6;
        assert!(if spreads { seen.len() > 150 } else { seen.len() == 1 }, "{way:?}: {}", seen.len());
    }
}

#[test]
fn ipip_sends_from_a_network_where_it_has_one() {
    let ways: Vec<_> = ways().into_iter().filter(|way| way.kind.mode == Mode::Ipip).collect();
    let plane = plane(&ways, |way, service| {
        let (network, host_bits) = if way.outer().v6 { ("fd00:99::", 64) } else { ("10.99.0.0", 16) };
        service.backends[0].sources = vec![network.parse().expect("an address")];
        service.backends[0].source_host_bits = host_bits;
    });
    for way in ways {
        let mut seen = HashSet::new();
        for n in 0..200 {
            let [first, second] = [way.request(way.kind.client(n)), way.more(way.kind.client(n))]
                .map(|packet| plane.run(0, &packet.frame()).frame);
            let source = |frame: &[u8]| -> IpAddr {
                if way.outer().v6 {
                    <[u8; 16]>::try_from(&frame[22..38]).expect("an address").into()
                } else {
                    <[u8; 4]>::try_from(&frame[26..30]).expect("an address").into()
                }
            };
            assert_eq!(source(&first), source(&second), "{way:?}: of one flow");
            let text = source(&first).to_string();
            let prefix = if way.outer().v6 { "fd00:99:" } else { "10.99." };
            assert!(text.starts_with(prefix), "{way:?}: {text}");
            let tunnel = Tunnel { source: source(&first), ..way.tunnel(true) };
            let fate = Fate { action: Action::Tx, frame: first.clone() };
            assert_eq!(first, way.around(&tunnel, &way.request(way.kind.client(n)), 64, &fate));
            seen.insert(text);
        }
        assert!(seen.len() > 190, "{way:?}: {}", seen.len());
    }
}

#[test]
fn dont_fragment_and_port_are_the_operators() {
    let ways: Vec<_> = ways().into_iter().filter(|way| !way.outer().v6).collect();
    for (how, expected) in [(DontFragment::Set, true), (DontFragment::Clear, false)] {
        let plane = plane(&ways, |_, service| service.tunnel = TunnelOptions::new(5555, how));
        for way in &ways {
            for inner in [true, false] {
                let packet = way.more(way.kind.client(1)).dont_fragment(inner);
                let fate = plane.run(0, &packet.frame());
                let tunnel =
                    Tunnel { gue_port: way.tunnel(true).gue_port.map(|_| 5555), ..way.tunnel(expected) };
                assert_eq!(fate.frame, way.around(&tunnel, &packet, 64, &fate), "{way:?}: {how:?}");
            }
        }
    }
}

#[test]
fn what_is_too_large_is_answered_with_what_fits() {
    let ways = ways();
    let plane = plane(&ways, |_, _| {});
    for way in ways {
        let overhead = way.tunnel(true).overhead();
        let header = if way.kind.v6 { 40 } else { 20 } + if way.kind.udp { 8 } else { 20 };
        let fits = 1500 - overhead - header;
        let client = way.kind.client(1);
        let largest = way.more(client).payload(&vec![1; fits]);
        let fate = plane.run(0, &largest.frame());
        assert_eq!((fate.action, fate.frame.len()), (Action::Tx, 1514), "{way:?}");
        let larger = way.more(client).payload(&vec![1; fits + 1]).frame();
        let sent = plane.case(format!("{way:?}: too large")).send(&larger);
        let fate = sent.moves([(Reason::PacketTooBig, 1)]);
        assert_eq!(fate.action, Action::Tx);
        let error = IcmpError::TooBig((1500 - overhead) as u16);
        way.kind.assert_icmp_error(&fate.frame, client, &larger, error);
        let at = 14 + if way.kind.v6 { 40 } else { 20 } + 4;
        assert_eq!(fate.frame[at..at + 4], error.rest(), "{way:?}: the MTU");
    }
}

#[test]
fn what_is_too_large_and_cannot_be_answered_is_dropped() {
    let ways = ways();
    let plane = plane(&ways, |_, _| {});
    for way in ways.into_iter().filter(|way| !way.kind.v6) {
        let packet = way.more(way.kind.client(1)).ip_options(&[1; 4]).payload(&[1; 1460]);
        plane.case(format!("{way:?}")).send(&packet.frame()).dropped(Reason::ExceedsMtu);
    }
}

#[test]
fn a_way_without_a_known_mtu_takes_all() {
    let ways = ways();
    let plane = plane(&ways, |_, service| {
        let hop = &mut service.backends[0].next_hop;
        *hop = hop.map(|hop| NextHop { mtu: 0, ..hop });
    });
    for way in ways {
        let packet = way.more(way.kind.client(1)).payload(&[1; 1500]);
        let fate = plane.run(0, &packet.frame());
        assert_eq!(fate.frame, way.around(&way.tunnel(true), &packet, 64, &fate), "{way:?}");
    }
}

#[test]
fn a_packet_at_the_end_of_its_life_goes_no_further() {
    let ways = ways();
    let plane = plane(&ways, |_, _| {});
    for way in ways {
        let client = way.kind.client(1);
        let packet = way.request(client).ttl(1).frame();
        let fate = plane.case(format!("{way:?}")).send(&packet).moves([(Reason::TimeExceeded, 1)]);
        way.kind.assert_icmp_error(&fate.frame, client, &packet, IcmpError::TimeExceeded);
        let packet = way.request(client).ttl(2);
        let fate = plane.run(0, &packet.frame());
        assert_eq!(fate.frame, way.around(&way.tunnel(true), &packet, 2, &fate), "{way:?}");
    }
}

#[test]
fn without_a_source_address_nothing_is_sent() {
    let ways = ways();
    let plane = plane(&ways, |_, service| service.backends[0].sources.clear());
    for way in ways {
        let frame = way.request(way.kind.client(1)).frame();
        plane.case(format!("{way:?}")).send(&frame).dropped(Reason::NoSourceAddress);
    }
}

#[test]
fn between_two_interfaces_frames_are_redirected() {
    let ways = ways();
    let plane = plane(&ways, |_, service| service.backends[0] = behind(service.backends[0].clone(), 1));
    for way in ways {
        let packet = way.request(way.kind.client(1));
        let macs = (BALANCER_MACS[1], backend_mac(way.backend(11).address));
        for (slot, action) in [(0, Action::Redirect), (1, Action::Tx)] {
            let fate = plane.run(slot, &packet.frame());
            let expected = way.tunnel(true).around(macs, &packet.clone().ttl(63).frame(), &fate.frame);
            assert_eq!((fate.action, fate.frame), (action, expected), "{way:?}");
        }
    }
}

/// Cut anywhere, a packet is not ours.
#[test]
fn what_is_cut_short_passes() {
    let ways = ways();
    let plane = plane(&ways, |_, _| {});
    for way in ways {
        let frame = way.more(way.kind.client(1)).frame();
        for bytes in 14..frame.len() {
            let fate = plane.run(0, &frame[..bytes]);
            assert_eq!((fate.action, &fate.frame[..]), (Action::Pass, &frame[..bytes]), "{way:?}: {bytes}");
        }
    }
}

/// All these services have one backend; it answers clients by itself, and where that comes by, it is none of ours.
#[test]
fn answers_pass() {
    let ways = ways();
    let plane = plane(&ways, |_, _| {});
    for way in ways {
        let request = way.request(way.kind.client(1));
        assert_eq!(plane.run(0, &request.frame()).action, Action::Tx, "{way:?}");
        plane.case(format!("{way:?}")).send(&request.reversed().frame()).passes(Reason::NotService);
    }
}

/// What the old mode spoke from is not the new one's, also where that has nothing yet.
#[test]
fn a_mode_inherits_no_addresses() {
    for (before, after) in [(Mode::Ipip, Mode::FullNat), (Mode::FullNat, Mode::Gue)] {
        let kind = |mode| Kind { mode, v6: false, udp: false };
        let mut backend = kind(Mode::Ipip).backend(11);
        let mut plane = DataPlane::new();
        plane.apply(&[kind(before).service(vec![backend.clone()])]);
        let request = |n| kind(after).request(kind(after).client(n)).frame();
        assert_eq!(plane.run(0, &request(1)).action, Action::Tx, "{before:?}");
        backend.sources.clear();
        plane.apply(&[kind(after).service(vec![backend])]);
        plane.case(format!("{before:?} to {after:?}")).send(&request(2)).dropped(Reason::NoSourceAddress);
    }
}
