//! How long a flow is remembered: states, their time-outs, and both sides' FIN, on the real program.

use std::{net::SocketAddr, thread::sleep, time::Duration};

use harness::{
    dataplane::{DataPlane, Kind},
    packets::{Parsed, flags},
};
use lb_common::{Explanation, FlowState, Life, Mode, Timeouts};

use flowgate::datapath::apply::WantedService;

/// Longer than two ticks, so that a time-out of one is over.
const OVER: Duration = Duration::from_millis(2_300);

/// A data plane with one service and one backend.
fn plane_of(kind: Kind, timeouts: Timeouts) -> (DataPlane, SocketAddr) {
    let mut plane = DataPlane::new();
    let backend = kind.backend(11);
    let address = backend.address;
    plane.apply(&[WantedService { timeouts, ..kind.service(vec![backend]) }]);
    (plane, address)
}

/// What the program remembers of a client's flow: none where it would begin a new one.
fn remembered(plane: &DataPlane, kind: Kind, client: SocketAddr) -> Option<FlowState> {
    let explanation = plane.explain(&kind.more(client).frame());
    let state = Life::of(u64::from(explanation.life)).state();
    (explanation.flow == Explanation::GOES_ON).then_some(state)
}

/// Begins a client's flow; the address and port that its backend sees.
fn begin(plane: &DataPlane, kind: Kind, client: SocketAddr) -> SocketAddr {
    let fate = plane.run(0, &kind.request(client).frame());
    assert!(fate.action.is_sent(), "{kind}: {client}");
    Parsed::of(&fate.frame).source()
}

fn client_sends(plane: &DataPlane, kind: Kind, client: SocketAddr, set: u8) {
    assert!(plane.run(0, &kind.more(client).flags(set).frame()).action.is_sent(), "{kind}: {client}");
}

fn backend_sends(plane: &DataPlane, kind: Kind, backend: SocketAddr, source: SocketAddr, set: u8) {
    let answer = kind.answer(backend, source).flags(set).frame();
    assert!(plane.run(0, &answer).action.is_sent(), "{kind}: an answer to {source}");
}

fn tcp(mode: Mode) -> impl Iterator<Item = Kind> {
    Kind::of_mode(mode).into_iter().filter(|kind| !kind.udp)
}

#[test]
fn each_state_has_its_time_out() {
    // Timeouts::new(idle, half-open, closing, half-closed): one tick for the state in question, many for the others.
    let rows = [
        (FlowState::HalfOpen, Timeouts::new(300, 1, 300, 300)),
        (FlowState::Closing, Timeouts::new(300, 300, 1, 300)),
        (FlowState::Established, Timeouts::new(1, 300, 300, 300)),
        (FlowState::HalfClosed, Timeouts::new(300, 300, 300, 1)),
    ];
    let kinds = Kind::that_steer().filter(|kind| !kind.udp);
    // All wait at once.
    let waiting: Vec<_> = kinds
        .flat_map(|kind| rows.map(|(short, timeouts)| (kind, short, in_each_state(kind, timeouts))))
        .collect();
    sleep(OVER);
    for (kind, short, plane) in waiting {
        // Where the server's FIN is not seen the client's ends the connection.
        let with_fin = if kind.rewrites() { FlowState::HalfClosed } else { FlowState::Closing };
        let states = [FlowState::HalfOpen, FlowState::Established, FlowState::Closing, with_fin];
        for (state, n) in states.into_iter().zip(1..) {
            let expected = (state != short).then_some(state);
            let found = remembered(&plane, kind, kind.client(n));
            assert_eq!(found, expected, "{kind}: {state:?} where {short:?} is short");
        }
    }
}

/// A data plane where client 1 has sent a SYN, 2 has gone on, 3 has reset its connection and 4 has sent a FIN.
fn in_each_state(kind: Kind, timeouts: Timeouts) -> DataPlane {
    let (plane, _) = plane_of(kind, timeouts);
    let sets: [&[u8]; 4] =
        [&[], &[flags::ACK], &[flags::ACK, flags::RST], &[flags::ACK, flags::ACK | flags::FIN]];
    for (sets, n) in sets.into_iter().zip(1..) {
        begin(&plane, kind, kind.client(n));
        sets.iter().for_each(|set| client_sends(&plane, kind, kind.client(n), *set));
    }
    plane
}

#[test]
fn datagrams_have_the_idle_time_out() {
    let waiting: Vec<_> = Kind::that_steer()
        .filter(|kind| kind.udp)
        .map(|kind| {
            let (plane, _) = plane_of(kind, Timeouts::new(1, 300, 300, 300));
            begin(&plane, kind, kind.client(1));
            assert_eq!(remembered(&plane, kind, kind.client(1)), Some(FlowState::Datagrams), "{kind}");
            (kind, plane)
        })
        .collect();
    sleep(OVER);
    for (kind, plane) in waiting {
        assert_eq!(remembered(&plane, kind, kind.client(1)), None, "{kind}");
    }
}

#[test]
fn full_nat_ends_a_connection_with_the_second_fin() {
    const FIN: u8 = flags::FIN | flags::ACK;
    for kind in tcp(Mode::FullNat) {
        for client_first in [true, false] {
            let (plane, backend) = plane_of(kind, Timeouts::new(300, 300, 300, 300));
            let client = kind.client(1);
            let source = begin(&plane, kind, client);
            client_sends(&plane, kind, client, flags::ACK);
            if client_first {
                client_sends(&plane, kind, client, FIN);
                assert_eq!(remembered(&plane, kind, client), Some(FlowState::HalfClosed), "{kind}");
                // The server goes on; a FIN that is sent again is no second one.
                backend_sends(&plane, kind, backend, source, flags::ACK);
                client_sends(&plane, kind, client, FIN);
                assert_eq!(remembered(&plane, kind, client), Some(FlowState::HalfClosed), "{kind}");
                backend_sends(&plane, kind, backend, source, FIN);
            } else {
                backend_sends(&plane, kind, backend, source, FIN);
                client_sends(&plane, kind, client, flags::ACK);
                assert_eq!(remembered(&plane, kind, client), Some(FlowState::Established), "{kind}");
                client_sends(&plane, kind, client, FIN);
            }
            assert_eq!(remembered(&plane, kind, client), Some(FlowState::Closing), "{kind}");
            let reply = plane.explain(&kind.answer(backend, source).flags(flags::ACK).frame());
            assert_eq!(reply.flow, Explanation::IS_ANSWER, "{kind}");
            let state = Life::of(u64::from(reply.life)).state();
            assert_eq!(state, FlowState::Closing, "{kind}: the other half");
        }
    }
}

#[test]
fn a_rst_from_either_side_ends_a_connection() {
    for kind in tcp(Mode::FullNat) {
        for from_client in [true, false] {
            let (plane, backend) = plane_of(kind, Timeouts::new(300, 300, 300, 300));
            let client = kind.client(1);
            let source = begin(&plane, kind, client);
            client_sends(&plane, kind, client, flags::ACK);
            if from_client {
                client_sends(&plane, kind, client, flags::RST);
            } else {
                backend_sends(&plane, kind, backend, source, flags::RST);
            }
            assert_eq!(remembered(&plane, kind, client), Some(FlowState::Closing), "{kind}");
        }
    }
}

#[test]
fn dsr_ends_a_connection_with_the_clients_fin() {
    for kind in tcp(Mode::Dsr) {
        let (plane, _) = plane_of(kind, Timeouts::new(300, 300, 300, 300));
        begin(&plane, kind, kind.client(1));
        client_sends(&plane, kind, kind.client(1), flags::ACK);
        assert_eq!(remembered(&plane, kind, kind.client(1)), Some(FlowState::Established), "{kind}");
        client_sends(&plane, kind, kind.client(1), flags::FIN | flags::ACK);
        assert_eq!(remembered(&plane, kind, kind.client(1)), Some(FlowState::Closing), "{kind}");
    }
}

#[test]
fn a_syn_begins_anew_after_both_fins_and_not_before() {
    const FIN: u8 = flags::FIN | flags::ACK;
    for kind in tcp(Mode::FullNat) {
        let (plane, backend) = plane_of(kind, Timeouts::new(300, 300, 300, 300));
        let client = kind.client(1);
        let source = begin(&plane, kind, client);
        client_sends(&plane, kind, client, flags::ACK);
        client_sends(&plane, kind, client, FIN);
        let syn = kind.request(client).frame();
        assert_eq!(plane.explain(&syn).flow, Explanation::GOES_ON, "{kind}: the server may still be sending");
        backend_sends(&plane, kind, backend, source, FIN);
        assert_eq!(plane.explain(&syn).flow, Explanation::IS_OVER, "{kind}");
        let again = Parsed::of(&plane.run(0, &syn).frame).source();
        assert_ne!(again, source, "{kind}: the old port waits for late packets");
    }
}
