//! full-nat's source addresses and ports: which, how many, and what happens when there are none.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    thread::sleep,
    time::Duration,
};

use flowgate::datapath::{
    apply::{WantedBackend, WantedService},
    flows::now_tick,
};
use harness::{
    dataplane::{Action, DataPlane, Kind, Options},
    packets::{Packet, Parsed, flags},
};
use lb_common::{Mode, Reason, Timeouts, life::YIELDING_TICKS};

const TCP: Kind = Kind { mode: Mode::FullNat, v6: false, udp: false };

fn kinds() -> [Kind; 4] {
    Kind::of_mode(Mode::FullNat)
}

/// Sends a client's first packet; the source that its backend sees, and the backend.
fn begin(plane: &DataPlane, kind: Kind, client: SocketAddr) -> Option<(SocketAddr, SocketAddr)> {
    let fate = plane.run(0, &kind.request(client).frame());
    (fate.action == Action::Tx).then(|| {
        let sent = Parsed::of(&fate.frame);
        (sent.source(), sent.destination())
    })
}

/// Begins a flow and, for TCP, goes on with it, so that it is worth more than a SYN.
fn establish(plane: &DataPlane, kind: Kind, client: SocketAddr) -> Option<(SocketAddr, SocketAddr)> {
    let begun = begin(plane, kind, client)?;
    assert_eq!(plane.run(0, &kind.more(client).frame()).action, Action::Tx);
    Some(begun)
}

/// As clients do, which send a SYN again; why the first was not let in is printed.
fn establish_in_two_tries(plane: &DataPlane, kind: Kind, client: SocketAddr) -> (SocketAddr, SocketAddr) {
    let before = plane.counters();
    establish(plane, kind, client).unwrap_or_else(|| {
        let moved = plane.counters().since(&before);
        println!("{kind}: {client} is not let in at first: {moved:?}");
        establish(plane, kind, client).unwrap_or_else(|| panic!("{kind}: {client}: {moved:?}"))
    })
}

#[test]
fn no_two_live_flows_look_alike_to_a_backend() {
    for kind in kinds() {
        let mut plane = DataPlane::with(&Options::default().flows(8192));
        plane.apply(&[kind.service([11, 12].map(|n| kind.backend(n)).to_vec())]);
        let flows: HashMap<SocketAddr, _> = (0..8000)
            .map(|n| kind.client(n))
            .map(|client| (client, establish_in_two_tries(&plane, kind, client)))
            .collect();
        let looks: HashSet<_> = flows.values().collect();
        assert_eq!(looks.len(), flows.len(), "{kind}: each has a source port of its own towards its backend");
        assert!(flows.values().all(|(source, _)| (1024..32_768).contains(&source.port())), "{kind}");
        // Every answer finds its own client, and every client its own flow.
        for (client, (source, backend)) in &flows {
            let answer = kind.answer(*backend, *source);
            let fate = plane.run(0, &answer.frame());
            assert_eq!(fate.frame, kind.returned(&answer, *client, 0).frame(), "{kind}: answer to {client}");
            let more = kind.more(*client);
            let fate = plane.run(0, &more.frame());
            assert_eq!(
                fate.frame,
                kind.translated(&more, *source, *backend).frame(),
                "{kind}: more of {client}"
            );
        }
    }
}

/// Two services with the same backend share its ports, and never one of them.
#[test]
fn services_that_share_a_backend_share_no_port() {
    for kind in kinds() {
        let mut plane = DataPlane::new();
        let mut other = kind.address();
        other.set_port(81);
        plane.apply(&[kind.service(vec![kind.backend(11)]), kind.service_at(other, vec![kind.backend(11)])]);
        let mut sources = HashSet::new();
        for n in 0..2000 {
            let client = kind.client(n);
            for service in [kind.address(), other] {
                let request = kind.request(client).between(client, service);
                let fate = plane.run(0, &request.frame());
                assert_eq!(fate.action, Action::Tx, "{kind}");
                let source = Parsed::of(&fate.frame).source();
                assert!(sources.insert(source), "{kind}: {source} is used twice");
                let answer = kind.answer(kind.backend(11).address, source);
                let fate = plane.run(0, &answer.frame());
                let returned = Parsed::of(&fate.frame);
                assert_eq!((returned.source(), returned.destination()), (service, client), "{kind}");
            }
        }
    }
}

#[test]
fn every_source_address_is_used() {
    for kind in kinds() {
        let mut plane = DataPlane::new();
        let sources: Vec<_> = (1..=5).map(|n| kind.inside(n)).collect();
        let backend = WantedBackend { sources: sources.clone(), ..kind.backend(11) };
        plane.apply(&[kind.service(vec![backend])]);
        let mut used: HashMap<_, u32> = HashMap::new();
        for n in 0..1000 {
            let (source, _) = begin(&plane, kind, kind.client(n)).expect("there is room");
            *used.entry(source.ip()).or_default() += 1;
        }
        assert_eq!(used.len(), sources.len(), "{kind}");
        // 200 each, standard deviation 12.6.
        assert!(used.values().all(|flows| (125..275).contains(flows)), "{kind}: {used:?}");
    }
}

/// What an address has begun it ends, when the backend gets others.
#[test]
fn a_flow_keeps_its_source_address() {
    let mut plane = DataPlane::new();
    let with = |n| WantedBackend { sources: vec![TCP.inside(n)], ..TCP.backend(11) };
    plane.apply(&[TCP.service(vec![with(1)])]);
    let old: Vec<_> = (0..100).map(|n| establish(&plane, TCP, TCP.client(n)).expect("room")).collect();
    plane.apply(&[TCP.service(vec![with(2)])]);
    for (n, (source, backend)) in (0..).zip(old) {
        let more = TCP.more(TCP.client(n));
        assert_eq!(plane.run(0, &more.frame()).frame, TCP.translated(&more, source, backend).frame());
        let answer = TCP.answer(backend, source);
        assert_eq!(plane.run(0, &answer.frame()).frame, TCP.returned(&answer, TCP.client(n), 0).frame());
    }
    let (source, _) = begin(&plane, TCP, TCP.client(1000)).expect("room");
    assert_eq!(source.ip(), TCP.inside(2));
}

#[test]
fn ports_come_from_outside_the_hosts_own() {
    for (local_ports, first, last) in
        [("1024 50000", 50_001, 65_535), ("32768 60999", 1024, 32_767), ("1024 64511", 64_512, 65_535)]
    {
        let mut plane = DataPlane::with(&Options { local_ports, ..Options::default() });
        plane.apply(&[TCP.service(vec![TCP.backend(11)])]);
        let ports: HashSet<u16> = (0..400)
            .filter_map(|n| begin(&plane, TCP, TCP.client(n)))
            .map(|(source, _)| source.port())
            .collect();
        assert!(ports.len() > 390, "{local_ports}: {} of 400", ports.len());
        assert!(ports.iter().all(|port| (first..=last).contains(port)), "{local_ports}: {ports:?}");
    }
}

/// A source address may be a service's as well: an answer to one of its ports would be taken for a request.
#[test]
fn no_port_is_allocated_that_is_a_services() {
    for kind in kinds() {
        let mut options = Options { local_ports: "1024 64511", ..Options::default() };
        options.limits.services = 600;
        options.limits.backends = 600;
        let mut plane = DataPlane::with(&options);
        let mut services = vec![kind.service(vec![kind.backend(11)])];
        // Every other port of the range.
        services.extend(
            (0..512).map(|n| kind.service_at(SocketAddr::new(kind.source(), 64_512 + 2 * n), Vec::new())),
        );
        plane.apply(&services);
        for n in 0..200 {
            let client = kind.client(n);
            let (source, backend) = begin(&plane, kind, client).expect("half of the ports are free");
            let answer = kind.answer(backend, source);
            let fate = plane.run(0, &answer.frame());
            assert_eq!(
                fate.frame,
                kind.returned(&answer, client, 0).frame(),
                "{kind}: port {}",
                source.port()
            );
        }
    }
}

/// A data plane whose ports are all taken: there are 1024, and its tables have room for far more flows.
struct Exhausted {
    kind: Kind,
    plane: DataPlane,
    backend: SocketAddr,
    /// Clients with a flow that goes on, and the source that the backend sees.
    live: Vec<(SocketAddr, SocketAddr)>,
    /// Clients that have got no port.
    refused: Vec<SocketAddr>,
}

impl Exhausted {
    fn new(kind: Kind) -> Self {
        let mut plane = DataPlane::with(&Options { local_ports: "1024 64511", ..Options::default() });
        plane.apply(&[kind.service(vec![kind.backend(11)])]);
        let (mut live, mut refused) = (Vec::new(), Vec::new());
        for client in (0..3000).map(|n| kind.client(n)) {
            match establish(&plane, kind, client) {
                Some((source, _)) => live.push((client, source)),
                None => refused.push(client),
            }
        }
        assert!((900..=1024).contains(&live.len()), "{kind}: {} flows", live.len());
        Self { kind, plane, backend: kind.backend(11).address, live, refused }
    }

    /// Gives all flows other time-outs. They go on before, lest one is over at once, and after, so that they have them.
    fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.go_on(&self.live);
        let service = self.kind.service(vec![self.kind.backend(11)]);
        self.plane.apply(&[WantedService { timeouts, ..service }]);
        self.go_on(&self.live);
    }

    /// One more packet of a client, and of its backend, with these flags where it is TCP.
    fn both_send(&self, (client, source): (SocketAddr, SocketAddr), flags: u8) {
        let with_flags = |packet: Packet| if self.kind.udp { packet } else { packet.flags(flags) };
        for packet in [self.kind.more(client), self.kind.answer(self.backend, source)] {
            assert_eq!(self.plane.run(0, &with_flags(packet).frame()).action, Action::Tx, "{}", self.kind);
        }
    }

    /// One more packet of each of these clients, by the source that it had.
    fn go_on(&self, flows: &[(SocketAddr, SocketAddr)]) {
        for (client, source) in flows {
            let fate = self.plane.run(0, &self.kind.more(*client).frame());
            let source_then = Parsed::of(&fate.frame).source();
            assert_eq!(source_then, *source, "{}: {client}", self.kind);
        }
    }

    /// One more packet of every client but the first.
    fn others_go_on(&self) {
        self.go_on(&self.live[1..]);
    }

    /// Those of a thousand newcomers that get a port, and the source that the backend sees. A port that is free
    /// is among the 32 that are tried for about thirty of them.
    fn newcomers(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let before = self.plane.counters();
        let clients = &self.refused[..1000];
        let begin = |client: &SocketAddr| establish(&self.plane, self.kind, *client);
        let given: Vec<_> =
            clients.iter().filter_map(|client| begin(client).map(|(source, _)| (*client, source))).collect();
        let refused = self.plane.counters().since(&before).packets(0, Reason::PortsExhausted);
        assert_eq!(refused as usize, clients.len() - given.len(), "{}", self.kind);
        given
    }

    /// An answer to a source goes to its client.
    fn assert_answered(&self, (client, source): (SocketAddr, SocketAddr)) {
        let answer = self.kind.answer(self.backend, source);
        let fate = self.plane.run(0, &answer.frame());
        let expected = self.kind.returned(&answer, client, 0).frame();
        assert_eq!(fate.frame, expected, "{}: answer to {client}", self.kind);
    }
}

/// The first flow of each has had its last packet in tick `last`: so many ticks later, and not before, its place is
/// given to one newcomer, and nobody else gets any.
fn assert_first_port_is_given_after(ticks: u16, last: u16, planes: &[Exhausted]) {
    for age in 0..=ticks {
        while now_tick().wrapping_sub(last) < age {
            planes.iter().for_each(Exhausted::others_go_on);
            sleep(Duration::from_millis(100));
        }
        for plane in planes {
            plane.others_go_on();
            let given = plane.newcomers();
            assert_eq!(given.len(), usize::from(age == ticks), "{} after {age} ticks", plane.kind);
            // Where another port has its place in the table of replies, it is the one that is free now.
            let others: HashSet<_> = plane.live[1..].iter().map(|(_, source)| *source).collect();
            assert!(given.iter().all(|(_, source)| !others.contains(source)), "{}: {given:?}", plane.kind);
            given.into_iter().for_each(|flow| plane.assert_answered(flow));
        }
    }
}

/// Waits for the beginning of a tick, and says which it is.
fn next_tick() -> u16 {
    let tick = now_tick();
    while now_tick() == tick {
        sleep(Duration::from_millis(1));
    }
    now_tick()
}

#[test]
fn when_every_port_is_taken_a_flow_is_refused_and_the_others_go_on() {
    for kind in kinds() {
        let full = Exhausted::new(kind);
        let sources: HashSet<_> = full.live.iter().map(|(_, source)| *source).collect();
        assert_eq!(sources.len(), full.live.len(), "{kind}");
        let flows = full.plane.flows();
        assert_eq!(flows.translated as usize, full.live.len(), "{kind}: what is refused is not remembered");
        for client in full.refused.iter().take(50) {
            full.plane
                .case(format!("{kind}: no port"))
                .send(&kind.request(*client).frame())
                .dropped(Reason::PortsExhausted);
        }
        full.live.iter().for_each(|flow| full.assert_answered(*flow));
    }
}

/// Late packets of a connection that is over must not meet another's, and its backend may be in TIME-WAIT: its port waits
/// for the closing time-out.
#[test]
fn the_port_of_a_connection_that_is_over_is_given_again_after_the_closing_time_out_and_not_before() {
    const { assert!(2 < YIELDING_TICKS, "a flow that yields is no proof of its time-out") };
    let endings = [(flags::RST, [false, true]), (flags::FIN | flags::ACK, [false, true])];
    let endings = endings.into_iter().flat_map(|(end, versions)| versions.map(|v6| (end, v6)));
    let (ends, mut planes): (Vec<_>, Vec<_>) =
        endings.map(|(end, v6)| (end, Exhausted::new(Kind { v6, ..TCP }))).unzip();
    let last = next_tick();
    for (plane, end) in planes.iter_mut().zip(ends) {
        plane.set_timeouts(Timeouts::new(300, 300, 1, 300));
        plane.both_send(plane.live[0], end);
    }
    assert_first_port_is_given_after(2, last, &planes);
}

/// While a port is free, none is taken from another flow: two ticks of silence are no reason to.
#[test]
fn the_port_of_a_datagram_flow_is_given_again_after_the_idle_time_out_and_not_before() {
    const { assert!(2 < YIELDING_TICKS, "a flow that yields is no proof of its time-out") };
    let mut planes = [false, true].map(|v6| Exhausted::new(Kind { v6, udp: true, ..TCP }));
    let last = next_tick();
    for plane in &mut planes {
        plane.set_timeouts(Timeouts::new(1, 300, 300, 300));
        plane.both_send(plane.live[0], 0);
    }
    assert_first_port_is_given_after(2, last, &planes);
}

/// Long before its time-out: a flow of datagrams, or a connection that is over, that has been silent for
/// [`YIELDING_TICKS`] gives up the port where none is free. Whoever comes back is a newcomer like others.
#[test]
fn a_silent_flow_that_may_be_over_leaves_its_port_to_a_new_one_where_none_is_free() {
    let planes = kinds().map(Exhausted::new);
    let last = next_tick();
    planes.iter().for_each(|plane| plane.both_send(plane.live[0], flags::FIN | flags::ACK));
    assert_first_port_is_given_after(YIELDING_TICKS, last, &planes);
    for plane in &planes {
        let more = plane.kind.more(plane.live[0].0).frame();
        let case = plane.plane.case(format!("{}: the one that was silent", plane.kind));
        case.send(&more).dropped(Reason::PortsExhausted);
    }
}

/// Of many that would, the ones that have been silent for the longest.
#[test]
fn the_flow_that_is_longest_over_gives_up_its_port_first() {
    let planes = [false, true].map(|v6| Exhausted::new(Kind { v6, ..TCP }));
    let end = |range: fn(usize) -> std::ops::Range<usize>| {
        for plane in &planes {
            let flows = &plane.live[range(plane.live.len())];
            flows.iter().for_each(|flow| plane.both_send(*flow, flags::FIN | flags::ACK));
        }
        now_tick()
    };
    end(|count| 0..count / 2);
    let tick = next_tick();
    while now_tick().wrapping_sub(tick) < 1 {
        sleep(Duration::from_millis(50));
    }
    let last = end(|count| count / 2..count);
    while now_tick().wrapping_sub(last) < YIELDING_TICKS {
        sleep(Duration::from_millis(50));
    }
    for plane in &planes {
        let younger = &plane.live[plane.live.len() / 2..];
        let younger: HashSet<_> = younger.iter().map(|(_, source)| *source).collect();
        for client in &plane.refused[..100] {
            // Of 32 ports some sixteen have the places of the older half, not all of them under the same number.
            let (source, _) = establish(&plane.plane, plane.kind, *client).expect("many would");
            assert!(!younger.contains(&source), "{}: {source}", plane.kind);
        }
    }
}

/// Its old port is among those that are tried, and may be the one that yields.
#[test]
fn a_client_that_opens_again_is_let_in_where_ports_are_given_up() {
    let planes = [false, true].map(|v6| Exhausted::new(Kind { v6, ..TCP }));
    let last = next_tick();
    planes.iter().for_each(|plane| plane.both_send(plane.live[0], flags::FIN | flags::ACK));
    while now_tick().wrapping_sub(last) < YIELDING_TICKS {
        planes.iter().for_each(Exhausted::others_go_on);
        sleep(Duration::from_millis(100));
    }
    for plane in &planes {
        plane.others_go_on();
        let client = plane.live[0].0;
        let flow = begin(&plane.plane, plane.kind, client);
        let (source, _) = flow.unwrap_or_else(|| panic!("{}: refused", plane.kind));
        plane.assert_answered((client, source));
    }
}

/// Whoever comes back after the time-out is a newcomer, and takes neither the port nor the answers of the one that has
/// been given its port.
#[test]
fn a_client_that_comes_back_too_late_does_not_disturb_who_has_its_port_now() {
    for kind in kinds() {
        let mut plane = Exhausted::new(kind);
        let last = next_tick();
        plane.set_timeouts(Timeouts::new(1, 300, 300, 300));
        plane.both_send(plane.live[0], flags::ACK);
        while now_tick().wrapping_sub(last) < 2 {
            plane.others_go_on();
            sleep(Duration::from_millis(100));
        }
        plane.others_go_on();
        let given = plane.newcomers();
        assert_eq!(given.len(), 1, "{kind}");
        let back = plane.kind.more(plane.live[0].0).frame();
        let fate = plane.plane.run(0, &back);
        plane.assert_answered(given[0]);
        assert_eq!(fate.action, Action::Drop, "{kind}: no port is free");
    }
}

/// At the number of flows that the tables are made for, a refusal would be a fault.
#[test]
fn as_many_flows_as_the_limit_says_find_a_port() {
    for kind in kinds() {
        let mut plane = DataPlane::with(&Options::default().flows(16_384));
        plane.apply(&[kind.service((11..27).map(|n| kind.backend(n)).collect())]);
        let refused = (0..16_384).filter(|n| establish(&plane, kind, kind.client(*n)).is_none()).count();
        assert_eq!(refused, 0, "{kind}");
        assert_eq!(plane.flows().translated, 16_384, "{kind}");
    }
}

/// SYNs that nobody follows up hold ports and slots; they must not keep them from those who come after.
#[test]
fn a_syn_flood_neither_ends_connections_nor_keeps_others_out() {
    for v6 in [false, true] {
        let kind = Kind { v6, ..TCP };
        let mut plane =
            DataPlane::with(&Options { local_ports: "1024 64511", ..Options::default() }.flows(512));
        plane.apply(&[kind.service(vec![kind.backend(11)])]);
        let established: Vec<_> = (0..200)
            .map(|n| (kind.client(n), establish(&plane, kind, kind.client(n)).expect("room")))
            .collect();
        for n in 0..20_000 {
            let _ = plane.run(0, &kind.request(kind.client(10_000 + n)).frame());
        }
        for (client, (source, backend)) in &established {
            let more = kind.more(*client);
            let fate = plane.run(0, &more.frame());
            assert_eq!(fate.frame, kind.translated(&more, *source, *backend).frame(), "{kind}: {client}");
            let answer = kind.answer(*backend, *source);
            let fate = plane.run(0, &answer.frame());
            assert_eq!(fate.frame, kind.returned(&answer, *client, 0).frame(), "{kind}: answer to {client}");
        }
        // Newcomers, while the flood goes on.
        let mut came_in = 0;
        for n in 0..200 {
            let client = kind.client(1000 + n);
            if let Some((source, backend)) = begin(&plane, kind, client) {
                for flood in 0..20 {
                    let _ = plane.run(0, &kind.request(kind.client(40_000 + 20 * n + flood)).frame());
                }
                let answer = kind.answer(backend, source);
                let answered = plane.run(0, &answer.frame());
                let more = kind.more(client);
                let went_on = plane.run(0, &more.frame());
                came_in += u32::from(
                    answered.frame == kind.returned(&answer, client, 0).frame()
                        && went_on.frame == kind.translated(&more, source, backend).frame(),
                );
            }
        }
        // By chance a SYN of the flood takes a newcomer's place before it is answered: about one in ten.
        assert!(came_in >= 150, "{kind}: {came_in} of 200 newcomers got through");
    }
}
