//! nat: the destination is rewritten, and the backend answers the client by way of the balancer.

use std::net::SocketAddr;

use harness::{
    dataplane::{Action, BALANCER_MACS, DataPlane, Kind, backend_mac, behind},
    link::Mac,
    packets::{Parsed, flags},
};
use lb_common::{Explanation, FlowState, Life, Mode, Reason};

fn kinds() -> [Kind; 4] {
    Kind::of_mode(Mode::Nat)
}

/// A data plane with one service and one backend.
fn plane_of(kind: Kind) -> (DataPlane, SocketAddr) {
    let mut plane = DataPlane::new();
    let backend = kind.backend(11);
    let address = backend.address;
    plane.apply(&[kind.service(vec![backend])]);
    (plane, address)
}

/// The service's twin at another port, with the same backends.
fn twin(kind: Kind) -> SocketAddr {
    SocketAddr::new(kind.address().ip(), 81)
}

#[test]
fn requests_go_out_and_replies_come_back() {
    for kind in kinds() {
        let (plane, backend) = plane_of(kind);
        let client = kind.client(1);
        for (packet, flows) in [(kind.request(client), 1), (kind.more(client), 0)] {
            plane
                .case(format!("{kind}: request"))
                .send(&packet.frame())
                .expect(Action::Tx, &kind.translated(&packet, client, backend).frame())
                .credits(backend, [1, packet.frame().len() as u64, 0, 0, flows])
                .moves([(Reason::Forwarded, 1)]);
            let answer = kind.answer(backend, client);
            plane
                .case(format!("{kind}: answer"))
                .send(&answer.frame())
                .expect(Action::Tx, &kind.returned(&answer, client, 0).frame())
                .credits(backend, [0, 0, 1, answer.frame().len() as u64, 0])
                .moves([(Reason::Replied, 1)]);
        }
        let flows = plane.flows();
        assert_eq!((flows.steered, flows.translated), (1, 0), "{kind}: eight bytes a flow");
    }
}

#[test]
fn between_two_interfaces_frames_are_redirected() {
    for kind in kinds() {
        let mut plane = DataPlane::new();
        let backend = behind(kind.backend(11), 1);
        plane.apply(&[kind.service(vec![backend.clone()])]);
        let (client, backend) = (kind.client(1), backend.address);
        let request = kind.request(client);
        let expected =
            kind.translated(&request, client, backend).macs(BALANCER_MACS[1], backend_mac(backend));
        plane
            .case(format!("{kind}: request"))
            .send(&request.frame())
            .expect(Action::Redirect, &expected.frame())
            .credits(backend, [1, request.frame().len() as u64, 0, 0, 1])
            .moves([(Reason::Forwarded, 1)]);
        let answer = kind.answer(backend, client);
        plane
            .case(format!("{kind}: answer"))
            .by(1)
            .send(&answer.frame())
            .expect(Action::Redirect, &kind.returned(&answer, client, 0).frame())
            .credits(backend, [0, 0, 1, answer.frame().len() as u64, 0])
            .moves([(Reason::Replied, 1)]);
    }
}

/// The backends' router sees packets of theirs that answer no flow: of connections of their own, to the agent's
/// probes, to those who speak to them directly.
#[test]
fn what_answers_no_flow_passes() {
    for kind in kinds() {
        let (plane, backend) = plane_of(kind);
        let (client, stranger) = (kind.client(1), kind.client(2));
        assert_eq!(plane.run(0, &kind.request(client).frame()).action, Action::Tx);
        let mut other_port = backend;
        other_port.set_port(8081);
        let mut other_client = client;
        other_client.set_port(client.port() + 1);
        for (name, from, to) in [
            ("to a stranger", backend, stranger),
            ("to the client, another port", backend, other_client),
            ("from another port", other_port, client),
            ("from another server", kind.backend(12).address, client),
        ] {
            let answer = kind.answer(from, to);
            plane.case(format!("{kind}: {name}")).send(&answer.frame()).passes(Reason::NotService);
        }
    }
}

/// Clients of two neighbours: each one's answers go back by its own, also when it changes.
#[test]
fn replies_go_back_by_the_neighbour_that_the_client_came_by() {
    for kind in kinds() {
        let (plane, backend) = plane_of(kind);
        let routers = [Mac([2, 0, 0, 0, 0xc0, 8]), Mac([2, 0, 0, 0, 0xc0, 9])];
        for (n, router) in routers.into_iter().cycle().take(8).enumerate() {
            let client = kind.client(n as u32);
            let request = kind.request(client).macs(router, BALANCER_MACS[0]);
            assert_eq!(plane.run(0, &request.frame()).action, Action::Tx, "{kind}");
        }
        for (n, router) in routers.into_iter().cycle().take(8).enumerate() {
            let answer = kind.answer(backend, kind.client(n as u32));
            let fate = plane.run(0, &answer.frame());
            assert_eq!(Parsed::of(&fate.frame).destination_mac, router, "{kind}: client {n}");
        }
        let client = kind.client(0);
        // A change of state is noticed at once, and so is a tick's end.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let moved = kind.more(client).macs(routers[1], BALANCER_MACS[0]);
        assert_eq!(plane.run(0, &moved.frame()).action, Action::Tx, "{kind}");
        let fate = plane.run(0, &kind.answer(backend, client).frame());
        assert_eq!(Parsed::of(&fate.frame).destination_mac, routers[1], "{kind}: it has moved");
    }
}

/// As a router would (RFC 1812, 5.3.1).
#[test]
fn packets_at_the_end_of_their_life_are_not_sent_on() {
    for kind in kinds() {
        let (plane, backend) = plane_of(kind);
        let client = kind.client(1);
        let request = kind.request(client).ttl(1).frame();
        plane.case(format!("{kind}")).send(&request).moves([(Reason::TimeExceeded, 1)]);
        assert_eq!(plane.run(0, &kind.request(client).frame()).action, Action::Tx);
        let answer = kind.answer(backend, client).ttl(1);
        plane.case(format!("{kind}: answer")).send(&answer.frame()).dropped(Reason::TtlExpired);
    }
}

fn state(plane: &DataPlane, frame: &[u8]) -> FlowState {
    let said = plane.explain(frame);
    assert_ne!(said.flow, 0, "a flow is remembered");
    Life::of(u64::from(said.life)).state()
}

/// Both sides are seen: a connection is over when both have ended, or one has broken it off.
#[test]
fn both_sides_of_a_connection_count() {
    use FlowState::{Closing, Established, HalfClosed, HalfOpen, PeerClosed};
    const FIN: u8 = flags::FIN | flags::ACK;
    for kind in kinds().into_iter().filter(|kind| !kind.udp) {
        let (plane, backend) = plane_of(kind);
        let (mut client, by_client, by_server) = (0, true, false);
        let mut check = |steps: &[(bool, u8, FlowState)]| {
            client += 1;
            let client = kind.client(client);
            for (n, (from_client, flags, becomes)) in steps.iter().enumerate() {
                let packet = if *from_client { kind.request(client) } else { kind.answer(backend, client) };
                assert_eq!(plane.run(0, &packet.flags(*flags).frame()).action, Action::Tx, "{kind}: {n}");
                assert_eq!(state(&plane, &kind.more(client).frame()), *becomes, "{kind}: step {n}");
            }
        };
        let open = [
            (by_client, flags::SYN, HalfOpen),
            (by_server, flags::SYN | flags::ACK, HalfOpen),
            (by_client, flags::ACK, Established),
            (by_server, flags::ACK, Established),
        ];
        check(&[&open[..], &[(by_client, FIN, HalfClosed), (by_server, FIN, Closing)]].concat());
        check(&[&open[..], &[(by_server, FIN, PeerClosed), (by_client, FIN, Closing)]].concat());
        check(&[&open[..], &[(by_server, flags::RST, Closing)]].concat());
        check(&[&open[..], &[(by_client, flags::RST, Closing)]].concat());
    }
}

/// One server behind two services, and a client that uses one port for both: the server could not tell the flows
/// apart, so the second one is given another port. Every packet of either comes back as what it answers.
#[test]
fn flows_that_would_look_alike_to_a_server_are_kept_apart() {
    for kind in kinds() {
        let mut plane = DataPlane::new();
        let (backend, services) = (kind.backend(11), [kind.address(), twin(kind)]);
        plane.apply(&services.map(|address| kind.service_at(address, vec![backend.clone()])));
        let backend = backend.address;
        for n in 0..50 {
            let client = kind.client(n);
            let [first, second] = services.map(|service| kind.request(client).between(client, service));
            assert_eq!(Parsed::of(&plane.run(0, &first.frame()).frame).source(), client, "{kind}");
            let fate = plane.run(0, &second.frame());
            assert_eq!(fate.action, Action::Tx, "{kind}");
            let seen = Parsed::of(&fate.frame).source();
            assert_eq!(seen.ip(), client.ip(), "{kind}: the client's address is kept");
            assert_ne!(seen.port(), client.port(), "{kind}: its port is not");
            for (seen, service) in [(client, services[0]), (seen, services[1])] {
                let request = kind.more(client).between(client, service);
                let expected = kind.translated(&request, seen, backend);
                assert_eq!(plane.run(0, &request.frame()).frame, expected.frame(), "{kind}: {service}");
                let answer = kind.answer(backend, seen);
                let expected = kind.returned(&answer, client, 0).between(service, client);
                let fate = plane.run(0, &answer.frame());
                assert_eq!((fate.action, fate.frame), (Action::Tx, expected.frame()), "{kind}: {service}");
            }
        }
        let flows = plane.flows();
        assert_eq!((flows.steered, flows.translated), (50, 50), "{kind}");
    }
}

/// The port that a flow is given is none that its client uses itself, and the other way round.
#[test]
fn a_given_port_is_nobody_elses() {
    for kind in kinds().into_iter().filter(|kind| !kind.v6) {
        let mut plane = DataPlane::new();
        let (backend, services) = (kind.backend(11), [kind.address(), twin(kind)]);
        plane.apply(&services.map(|address| kind.service_at(address, vec![backend.clone()])));
        let at = |port: u16| SocketAddr::new(kind.client(1).ip(), port);
        let see = |client: SocketAddr, service: SocketAddr| {
            let fate = plane.run(0, &kind.request(client).between(client, service).frame());
            assert_eq!(fate.action, Action::Tx, "{kind}");
            Parsed::of(&fate.frame).source().port()
        };
        let mut used = std::collections::HashSet::new();
        for port in (20_000..20_200).chain(1024..1224) {
            for service in services {
                assert!(used.insert(see(at(port), service)), "{kind}: two flows from one port");
            }
        }
        // What the client opens next may be what was given away.
        let given: Vec<_> = used.iter().copied().filter(|port| !(20_000..20_200).contains(port)).collect();
        for port in given.into_iter().filter(|port| !(1024..1224).contains(port)) {
            assert!(used.insert(see(at(port), services[0])), "{kind}: port {port} is taken");
        }
    }
}

/// A server that is a backend of as many services as may be, and of one more.
#[test]
fn a_server_may_be_a_backend_of_eight_services() {
    let kind = kinds()[0];
    let mut plane = DataPlane::new();
    let service =
        |n: u16| kind.service_at(SocketAddr::new(kind.address().ip(), 80 + n), vec![kind.backend(11)]);
    let services: Vec<_> = (0..8).map(service).collect();
    plane.apply(&services);
    let client = kind.client(1);
    let ports: std::collections::HashSet<_> = services
        .iter()
        .map(|service| {
            let to = SocketAddr::new(kind.address().ip(), u16::from_be_bytes(service.key.port));
            Parsed::of(&plane.run(0, &kind.request(client).between(client, to).frame()).frame).source()
        })
        .collect();
    assert_eq!(ports.len(), 8, "each has a port of its own");
    let too_many: Vec<_> = (0..9).map(service).collect();
    let refused = plane.try_apply(&too_many).expect_err("there is no room for nine");
    assert!(refused.to_string().contains("more than 8 services"), "{refused}");
    // What was there goes on, and what was refused is served once there is room.
    plane.apply(&services);
    assert_eq!(plane.run(0, &kind.request(client).frame()).action, Action::Tx);
    plane.apply(&too_many[1..]);
    let ninth = SocketAddr::new(kind.address().ip(), 88);
    let request = kind.request(client).between(client, ninth);
    assert_eq!(plane.run(0, &request.frame()).action, Action::Tx);
}

/// A service that did not fit at first is served as soon as it does.
#[test]
fn what_has_failed_is_done_later() {
    let kind = kinds()[0];
    let mut plane = DataPlane::new();
    let service =
        |n: u16| kind.service_at(SocketAddr::new(kind.address().ip(), 80 + n), vec![kind.backend(11)]);
    let mut services: Vec<_> = (0..9).map(service).collect();
    assert!(plane.try_apply(&services).is_err());
    services[0].mode = Mode::FullNat;
    plane.apply(&services);
    for n in 0..9 {
        let client = kind.client(n);
        let to = SocketAddr::new(kind.address().ip(), 80 + n as u16);
        let fate = plane.run(0, &kind.request(client).between(client, to).frame());
        assert_eq!(fate.action, Action::Tx, "service {n}");
    }
}

/// A service that is taken away leaves its server to the others, and the flows of those alone.
#[test]
fn services_come_and_go_beside_each_other() {
    for kind in kinds() {
        let mut plane = DataPlane::new();
        let backend = kind.backend(11);
        let services =
            [kind.address(), twin(kind)].map(|address| kind.service_at(address, vec![backend.clone()]));
        let client = kind.client(1);
        plane.apply(&services[..1]);
        assert_eq!(plane.run(0, &kind.request(client).frame()).action, Action::Tx);
        plane.apply(&services);
        let second = kind.request(client).between(client, twin(kind));
        let seen = Parsed::of(&plane.run(0, &second.frame()).frame).source();
        assert_ne!(seen.port(), client.port(), "{kind}");
        let back = |seen: SocketAddr, service: SocketAddr| {
            let answer = kind.answer(backend.address, seen);
            let expected = kind.returned(&answer, client, 0).between(service, client).frame();
            assert_eq!(plane.run(0, &answer.frame()).frame, expected, "{kind}");
        };
        back(client, kind.address());
        back(seen, twin(kind));
        let said = plane.explain(&kind.answer(backend.address, client).frame());
        assert_eq!(said.flow, Explanation::IS_ANSWER, "{kind}");
        plane.apply(&services[1..]);
        let answer = kind.answer(backend.address, client);
        plane.case(format!("{kind}: gone")).send(&answer.frame()).passes(Reason::NotService);
        // The one that stays keeps the port that its flow was given.
        let more = kind.more(client).between(client, twin(kind));
        assert_eq!(Parsed::of(&plane.run(0, &more.frame()).frame).source(), seen, "{kind}");
    }
}

/// Without the feature the program does not ask whose server a packet is from.
#[test]
fn a_program_without_the_mode_is_smaller() {
    let walked = |features| {
        let options = harness::dataplane::Options { features, ..Default::default() };
        let info = DataPlane::with(&options).program_info(0);
        (info.size_translated().expect("the kernel tells"), info.verified_instruction_count())
    };
    let features = lb_common::Features::mode;
    let (dsr, both) = (walked(features(Mode::Dsr)), walked(features(Mode::Dsr).and(features(Mode::Nat))));
    println!("bytes and instructions walked: dsr {dsr:?}, dsr and nat {both:?}");
    assert!(dsr.0 < both.0, "{dsr:?}, {both:?}");
}
