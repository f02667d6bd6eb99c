//! Two CPUs that begin flows at once, in the same tables and for the same few ports.

use std::{
    collections::HashSet,
    net::SocketAddr,
    ops::Range,
    sync::Barrier,
    thread::{self, ScopedJoinHandle},
};

use harness::{
    cpu::pin_to,
    dataplane::{Action, DataPlane, Kind, Options},
    packets::{Packet, Parsed, flags},
};
use lb_common::{Mode, Reason};

/// Clients of one CPU in one round, which both begin at the same moment.
const CLIENTS: u32 = 40;

/// A flow whose client has gone on twice: client, source that the backend sees, backend.
type Flow = (SocketAddr, SocketAddr, SocketAddr);

/// Two thousand flows race for a thousand ports, between SYNs that nobody follows up. A SYN's port may be taken again
/// until its connection is established; whoever is let in has its port for itself, and keeps it.
#[test]
fn two_cpus_give_no_port_to_two_flows() {
    for kind in Kind::of_mode(Mode::FullNat) {
        let mut plane = DataPlane::with(&Options { local_ports: "1024 64511", ..Options::default() });
        plane.apply(&[kind.service(vec![kind.backend(11)])]);
        let begun = begin_on_two_cpus(&plane, kind, 25);
        assert!((900..=1024).contains(&begun.len()), "{kind}: {} flows", begun.len());
        let looks: HashSet<_> = begun.iter().map(|(_, source, backend)| (source, backend)).collect();
        assert_eq!(looks.len(), begun.len(), "{kind}: two flows look alike to their backend");
        for flow in &begun {
            assert_eq!(goes_by(&plane, &kind.more(flow.0)), Some((flow.1, flow.2)), "{kind}: {}", flow.0);
            assert!(is_answered(&plane, kind, flow), "{kind}: {}", flow.0);
        }
        assert_no_other_reason(&plane, kind);
    }
}

/// Flows that two CPUs have let in.
fn begin_on_two_cpus(plane: &DataPlane, kind: Kind, rounds: u32) -> Vec<Flow> {
    let mut begun = Vec::new();
    for round in 0..rounds {
        let first = |cpu| (2 * round + cpu) * CLIENTS;
        let flows = on_two_cpus(|cpu| let_in(plane, kind, first(cpu)..first(cpu) + CLIENTS));
        begun.extend(flows.concat());
    }
    begun
}

/// Does the same on two CPUs at once, with the number of each, 0 or 1.
fn on_two_cpus<T: Send>(work: impl Fn(u32) -> T + Sync) -> [T; 2] {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let run = |cpu: u32| {
            pin_to(cpu);
            start.wait();
            work(cpu)
        };
        let threads = [0, 1].map(|cpu| scope.spawn(move || run(cpu)));
        threads.map(|thread| ScopedJoinHandle::join(thread).expect("the thread's assertions hold"))
    })
}

/// Begins flows of clients and goes on with them; those that were let in: an answer has established the half by which
/// it came, so that nobody may take it any more.
fn let_in(plane: &DataPlane, kind: Kind, clients: Range<u32>) -> Vec<Flow> {
    let mut flows = Vec::new();
    for n in clients {
        if !kind.udp {
            let _ = goes_by(plane, &kind.request(kind.client(100_000 + n)));
        }
        let client = kind.client(n);
        let ways = [kind.request(client), kind.more(client)].map(|packet| goes_by(plane, &packet));
        if let [Some(first), second] = ways
            && second == Some(first)
        {
            let flow = (client, first.0, first.1);
            if is_answered(plane, kind, &flow) {
                flows.push(flow);
            }
        }
    }
    flows
}

/// The source and destination with which a client's packet is sent on, if it is.
fn goes_by(plane: &DataPlane, packet: &Packet) -> Option<(SocketAddr, SocketAddr)> {
    let fate = plane.run(0, &packet.frame());
    (fate.action == Action::Tx).then(|| {
        let sent = Parsed::of(&fate.frame);
        (sent.source(), sent.destination())
    })
}

/// Whether what a flow's backend answers goes to the flow's client.
fn is_answered(plane: &DataPlane, kind: Kind, (client, source, backend): &Flow) -> bool {
    let answer = kind.answer(*backend, *source);
    let answer = if kind.udp { answer } else { answer.flags(flags::ACK) };
    plane.run(0, &answer.frame()).frame == kind.returned(&answer, *client, 0).frame()
}

/// Packets were sent on, or refused because of ports or of the other CPU, and nothing else.
fn assert_no_other_reason(plane: &DataPlane, kind: Kind) {
    // Nobody may be waiting any more for the answer to a SYN whose port was taken.
    const EXPECTED: [Reason; 5] = [
        Reason::Forwarded,
        Reason::Replied,
        Reason::NotService,
        Reason::PortsExhausted,
        Reason::TableContended,
    ];
    let counters = plane.counters();
    for reason in Reason::ALL.iter().filter(|reason| !EXPECTED.contains(reason)) {
        assert_eq!(counters.packets(0, *reason), 0, "{kind}: {}", reason.label());
    }
}
