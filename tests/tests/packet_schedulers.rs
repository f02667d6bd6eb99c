//! Choosing a backend for a new flow: every scheduler, mode, version and protocol, on the real program.

use std::{
    collections::BTreeMap,
    iter,
    net::{Ipv6Addr, SocketAddr},
    ops::Range,
    thread::sleep,
    time::Duration,
};

use harness::{
    dataplane::{DataPlane, Kind, Options, backend_mac},
    packets::flags,
};
use lb_common::{Reason, Scheduler, Timeouts};

use flowgate::datapath::{
    apply::{WantedBackend, WantedService},
    flows::now_tick,
};

const SCHEDULERS: [Scheduler; 4] =
    [Scheduler::Maglev, Scheduler::SourceHash, Scheduler::RoundRobin, Scheduler::LeastConn];

fn plane() -> DataPlane {
    DataPlane::with(&Options::default().flows(16_384))
}

fn service(kind: Kind, scheduler: Scheduler, backends: Vec<WantedBackend>) -> WantedService {
    WantedService { scheduler, ..kind.service(backends) }
}

fn weighted(kind: Kind, weights: &[u16]) -> Vec<WantedBackend> {
    weights
        .iter()
        .zip(11..)
        .map(|(weight, n)| WantedBackend { ring_weight: *weight, ..kind.backend(n) })
        .collect()
}

/// Begins the flows of clients, and says how many each backend has got, by the last byte of its MAC address.
fn begin(plane: &DataPlane, kind: Kind, clients: impl Iterator<Item = SocketAddr>) -> BTreeMap<u8, u32> {
    let mut counts = BTreeMap::new();
    for client in clients {
        let fate = plane.run(0, &kind.request(client).frame());
        assert!(fate.action.is_sent(), "{kind}: {client}");
        *counts.entry(fate.frame[5]).or_default() += 1;
    }
    counts
}

fn mac_byte(backend: &WantedBackend) -> u8 {
    backend_mac(backend.address).0[5]
}

#[test]
fn shares_follow_weights() {
    const FLOWS: u32 = 3_000;
    for kind in Kind::all() {
        let mut plane = plane();
        for (scheduler, first) in SCHEDULERS.into_iter().zip((0..).step_by(FLOWS as usize)) {
            let weights = [10, 30, 60];
            let backends = weighted(kind, &weights);
            plane.apply(&[service(kind, scheduler, backends.clone())]);
            let clients = (first..first + FLOWS).map(|n| kind.client(n));
            // What is placed is counted at once: least-conn needs no recount for this.
            let counts = begin(&plane, kind, clients);
            for (backend, weight) in backends.iter().zip(weights) {
                let share = f64::from(counts[&mac_byte(backend)]) / f64::from(FLOWS);
                let error = (share - f64::from(weight) / 100.0).abs();
                assert!(error < 0.03, "{kind}, {scheduler:?}: {counts:?}");
            }
        }
    }
}

#[test]
fn round_robin_takes_turns() {
    for kind in Kind::that_steer() {
        let mut plane = plane();
        let backends = weighted(kind, &[30, 10]);
        plane.apply(&[service(kind, Scheduler::RoundRobin, backends.clone())]);
        // One CPU, or two: each goes through the ring on its own.
        let counts = begin(&plane, kind, (0..400).map(|n| kind.client(n)));
        let heavy = counts[&mac_byte(&backends[0])];
        assert!(heavy.abs_diff(300) <= 4, "{kind}: {counts:?}");
    }
}

#[test]
fn source_hash_keeps_a_client_and_its_prefix_together() {
    for kind in Kind::that_steer() {
        let mut plane = plane();
        let backends = weighted(kind, &[10; 8]);
        plane.apply(&[service(kind, Scheduler::SourceHash, backends.clone())]);
        let ports = |n: u32| (1..40).map(move |port| SocketAddr::new(kind.client(n).ip(), 20_000 + port));
        let mut used = BTreeMap::new();
        for n in 0..40 {
            let counts = begin(&plane, kind, ports(n));
            assert_eq!(counts.len(), 1, "{kind}: every flow of client {n} goes one way: {counts:?}");
            used.extend(counts);
        }
        assert!(used.len() > 4, "{kind}: clients are spread: {used:?}");

        // Clients 0 to 255 are one /24, or one /120.
        let affinity_bits = if kind.v6 { 120 } else { 24 };
        let together = WantedService { affinity_bits, ..service(kind, Scheduler::SourceHash, backends) };
        plane.apply(&[together]);
        let same_prefix =
            (0..200).map(|n| SocketAddr::new(kind.client(n).ip(), 50_000 + u16::try_from(n).unwrap_or(0)));
        assert_eq!(begin(&plane, kind, same_prefix).len(), 1, "{kind}: a prefix goes one way");
        let others = (0..40).map(|n| SocketAddr::new(kind.client(n * 256).ip(), 50_000));
        assert!(begin(&plane, kind, others).len() > 4, "{kind}: prefixes are spread");
    }
}

/// Whoever gets a /64 from the provider is one client, whatever address of it is in use (RFC 8981 changes it daily).
#[test]
fn source_hash_keeps_a_64_bit_prefix_together_and_spreads_prefixes() {
    const LOWER: [u64; 4] = [1, 0xffff, 0x0250_56ff_fe00_0001, u64::MAX];
    for kind in Kind::that_steer().filter(|kind| kind.v6) {
        let mut plane = plane();
        let by_prefix = service(kind, Scheduler::SourceHash, weighted(kind, &[10; 8]));
        plane.apply(&[WantedService { affinity_bits: 64, ..by_prefix }]);
        let mut used = BTreeMap::new();
        // From prefix to prefix the last bit of the upper half differs, or a higher one.
        for upper in 0x2001_0db8_000c_0000_u64..0x2001_0db8_000c_0028 {
            let address = |lower| Ipv6Addr::from(u128::from(upper) << 64 | u128::from(lower));
            let clients =
                LOWER.map(|lower| SocketAddr::new(address(lower).into(), 50_000 + lower as u16 % 99));
            let counts = begin(&plane, kind, clients.into_iter());
            assert_eq!(counts.len(), 1, "{kind}: {upper:x}::/64 goes one way: {counts:?}");
            used.extend(counts);
        }
        assert!(used.len() > 4, "{kind}: prefixes are spread: {used:?}");
    }
}

#[test]
fn least_conn_fills_up_the_one_that_is_behind() {
    for kind in Kind::that_steer() {
        let mut plane = plane();
        let one = weighted(kind, &[10]);
        let two = weighted(kind, &[10, 10]);
        plane.apply(&[service(kind, Scheduler::LeastConn, one)]);
        begin(&plane, kind, (0..400).map(|n| kind.client(n)));
        plane.apply(&[service(kind, Scheduler::LeastConn, two.clone())]);
        plane.refresh_loads();
        let counts = begin(&plane, kind, (400..800).map(|n| kind.client(n)));
        // Both candidates of every fourth flow are the old one: 300 of 400 at most go to the new one.
        assert!(counts[&mac_byte(&two[1])] > 270, "{kind}: {counts:?}");
        let more = begin(&plane, kind, (800..1_600).map(|n| kind.client(n)));
        let totals: Vec<_> = two
            .iter()
            .map(|backend| {
                let first = if mac_byte(backend) == mac_byte(&two[0]) { 400 } else { 0 };
                first + counts[&mac_byte(backend)] + more[&mac_byte(backend)]
            })
            .collect();
        assert!(totals[0].abs_diff(totals[1]) < 60, "{kind}: {totals:?}");
    }
}

#[test]
fn a_flow_stays_whatever_the_scheduler() {
    for kind in Kind::that_steer() {
        let mut plane = plane();
        for (scheduler, first) in SCHEDULERS.into_iter().zip((0..).step_by(200)) {
            let backends = weighted(kind, &[10; 4]);
            plane.apply(&[service(kind, scheduler, backends.clone())]);
            let clients: Vec<_> = (first..first + 200).map(|n| kind.client(n)).collect();
            let place = |plane: &DataPlane, client| plane.run(0, &kind.more(client).frame()).frame[5];
            let before: Vec<_> = clients
                .iter()
                .map(|client| {
                    let _ = plane.run(0, &kind.request(*client).frame());
                    place(&plane, *client)
                })
                .collect();
            // Another scheduler, other weights, one more backend.
            for other in SCHEDULERS {
                let mut backends = backends.clone();
                backends[0].ring_weight = 900;
                backends.push(kind.backend(19));
                plane.apply(&[service(kind, other, backends)]);
                let after: Vec<_> = clients.iter().map(|client| place(&plane, *client)).collect();
                assert_eq!(before, after, "{kind}: {scheduler:?} to {other:?}");
            }
        }
    }
}

#[test]
fn a_backend_with_all_its_flows_gets_no_more() {
    for kind in Kind::that_steer() {
        for scheduler in SCHEDULERS {
            let mut plane = plane();
            let mut backends = weighted(kind, &[10, 10, 10]);
            backends[0].max_flows = 50;
            plane.apply(&[service(kind, scheduler, backends.clone())]);
            let counts = begin(&plane, kind, (0..600).map(|n| kind.client(n)));
            assert_eq!(counts[&mac_byte(&backends[0])], 50, "{kind}, {scheduler:?}: {counts:?}");

            for backend in &mut backends {
                backend.max_flows = 50;
            }
            plane.apply(&[service(kind, scheduler, backends.clone())]);
            let refused = kind.request(kind.client(5_000)).frame();
            plane
                .case(format!("{kind}, {scheduler:?}: all full"))
                .send(&refused)
                .dropped(Reason::BackendsFull);
            // What has begun goes on.
            assert!(plane.run(0, &kind.more(kind.client(3)).frame()).action.is_sent());
        }
    }
}

/// Ticks after which a flow no longer counts that has been reset, or whose time-out is one.
const NO_LONGER_COUNTS: u16 = 3;

/// The bound stays as it is. A flow that has ended counts at first, since it may still have packets, and then leaves
/// its place to a new one, whatever the scheduler.
#[test]
fn a_flow_that_has_ended_makes_room_for_a_new_one() {
    const FLOWS: u32 = 20;
    let ended = SCHEDULERS.len() as u32;
    let bounded = |kind: Kind, scheduler| {
        let backend = WantedBackend { max_flows: FLOWS, ..kind.backend(11) };
        let timeouts = Timeouts::new(if kind.udp { 1 } else { 300 }, 300, 300, 300);
        WantedService { timeouts, ..service(kind, scheduler, vec![backend]) }
    };
    // All kinds wait at once.
    let mut planes: Vec<_> = Kind::that_steer().map(|kind| (kind, DataPlane::new())).collect();
    // Loading takes longer than datagrams are remembered.
    for (kind, plane) in &mut planes {
        plane.apply(&[bounded(*kind, Scheduler::Maglev)]);
    }
    for (kind, plane) in &mut planes {
        begin(plane, *kind, (0..FLOWS).map(|n| kind.client(n)));
        if !kind.udp {
            go_on(plane, *kind, 0..ended, flags::RST);
        }
        assert_full(plane, *kind);
    }
    let last = now_tick();
    while now_tick().wrapping_sub(last) < NO_LONGER_COUNTS {
        planes.iter().for_each(|(kind, plane)| go_on(plane, *kind, ended..FLOWS, flags::ACK));
        sleep(Duration::from_millis(100));
    }
    for (kind, plane) in &mut planes {
        go_on(plane, *kind, ended..FLOWS, flags::ACK);
        for (scheduler, n) in SCHEDULERS.into_iter().zip(100..) {
            plane.apply(&[bounded(*kind, scheduler)]);
            plane.refresh_loads();
            begin(plane, *kind, iter::once(kind.client(n)));
        }
        assert_full(plane, *kind);
    }
}

/// One more packet of each client, with these flags where it is TCP.
fn go_on(plane: &DataPlane, kind: Kind, clients: Range<u32>, flags: u8) {
    for client in clients.map(|n| kind.client(n)) {
        let more = if kind.udp { kind.more(client) } else { kind.more(client).flags(flags) };
        assert!(plane.run(0, &more.frame()).action.is_sent(), "{kind}: {client}");
    }
}

/// Every backend has as many flows as it may, by a new count.
fn assert_full(plane: &mut DataPlane, kind: Kind) {
    plane.refresh_loads();
    let request = kind.request(kind.client(5_000)).frame();
    plane.case(format!("{kind}: full")).send(&request).dropped(Reason::BackendsFull);
}

#[test]
fn a_slow_start_is_a_part_of_the_slots() {
    for kind in Kind::that_steer() {
        let mut plane = plane();
        for (scheduler, first) in SCHEDULERS.into_iter().zip((0..).step_by(3_000)) {
            let shares = shares_of_a_slow_start(&mut plane, kind, scheduler, first);
            assert!(shares.is_sorted_by(|one, next| one < next), "{kind}, {scheduler:?}: {shares:?}");
            assert!(shares[2].abs_diff(500) < 50, "{kind}, {scheduler:?}: {shares:?}");
        }
    }
}

/// How many of a thousand new flows one of two equal backends gets at the beginning of its start, in the midst of it,
/// and after it.
fn shares_of_a_slow_start(plane: &mut DataPlane, kind: Kind, scheduler: Scheduler, first: u32) -> [u32; 3] {
    let mut clients = first..;
    [100, 400, 1000].map(|ramp_permille| {
        let mut backends = weighted(kind, &[10, 10]);
        backends[0].ramp_permille = ramp_permille;
        plane.apply(&[service(kind, scheduler, backends.clone())]);
        // The flows of the step before are over.
        plane.sweep(0x7000);
        plane.refresh_loads();
        let counts = begin(plane, kind, clients.by_ref().take(1_000).map(|n| kind.client(n)));
        counts[&mac_byte(&backends[0])]
    })
}
