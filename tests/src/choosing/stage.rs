//! A data plane with one service of many backends, and counts that tell which path packets took.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use flowgate::{
    datapath::apply::{WantedBackend, WantedService},
    model::Limits,
    ring::{self, Member},
};
use harness::dataplane::{BALANCER_MACS, DataPlane, Kind, Options, Stream};
use lb_common::{BackendCounter, Features, Mode, NextHop, Reason};

/// A backend's address: there is room for 65,535.
pub(super) fn address(mode: Mode, number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    let port = if mode == Mode::Dsr { 80 } else { 8080 };
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 3, high, low)), port)
}

/// A healthy backend: its number is the end of its MAC address.
pub(super) fn backend(mode: Mode, number: u16, weight: u16) -> WantedBackend {
    let [high, low] = number.to_be_bytes();
    let hop = NextHop {
        destination_mac: [2, 0, 0, 0xb0, high, low],
        source_mac: BALANCER_MACS[0].0,
        interface_slot: 0,
        mtu: 1500,
    };
    let (address, next_hop) = (address(mode, number), Some(hop));
    WantedBackend { address, next_hop, ring_weight: weight, ..kind(mode).backend(11) }
}

/// Backends number 1, 2, 3… of these weights.
pub(super) fn backends(mode: Mode, weights: &[u16]) -> Vec<WantedBackend> {
    weights.iter().zip(1..).map(|(weight, number)| backend(mode, number, *weight)).collect()
}

/// The ring's members that backends are, each with its own number as its index.
pub(super) fn members(backends: &[WantedBackend]) -> Vec<Member> {
    let member = |backend: &WantedBackend| Member {
        identity: backend.address,
        weight: backend.ring_weight,
        index: backend
            .next_hop
            .map_or(0, |hop| u16::from_be_bytes([hop.destination_mac[4], hop.destination_mac[5]])),
    };
    backends.iter().map(member).collect()
}

/// The service of a mode: IPv4, TCP.
pub(super) fn service(mode: Mode, backends: Vec<WantedBackend>) -> WantedService {
    let ring_slots = ring_slots(&backends);
    WantedService { ring_slots, ..kind(mode).service(backends) }
}

fn kind(mode: Mode) -> Kind {
    Kind { mode, v6: false, udp: false }
}

/// A data plane and the packets that it is given.
pub(super) struct Stage {
    /// The data plane.
    pub(super) plane: DataPlane,
    /// Packets to its service.
    pub(super) stream: Stream,
    /// Slots of each of its tables of flows.
    pub(super) slots: u64,
}

impl Stage {
    /// Tables of flows for so many, which are twice as many slots or more.
    pub(super) fn new(mode: Mode, flows: u32) -> Self {
        let limits = Limits { flows, ..Limits::default() };
        // The packets are given to the program that is there now: it must be the one that has the mode.
        let features = Features::mode(mode);
        let plane = DataPlane::with(&Options { limits, features, ..Options::default() });
        let stream = plane.stream(kind(mode).address());
        Self { plane, stream, slots: (u64::from(flows) * 2).next_power_of_two() }
    }

    /// Forgets service and flows.
    pub(super) fn clear(&mut self) -> Result<()> {
        self.plane.apply(&[]);
        self.plane.sweep(0);
        let left = self.plane.flows();
        ensure!(left.steered + left.translated == 0, "{left:?}");
        // What was given back may be used again after this.
        self.plane.apply(&[]);
        Ok(())
    }

    /// Begins the flows of clients and, where `establish` says so, shows that they are no mere SYNs; gives the backend of
    /// each, 0 where it was refused.
    pub(super) fn begin(&mut self, clients: std::ops::Range<u32>, establish: bool) -> Vec<u16> {
        let stream = &mut self.stream;
        let mut one = |client| {
            let (action, backend) = stream.begin(client);
            if !action.is_sent() {
                return 0;
            }
            if establish {
                stream.go_on(client);
            }
            backend
        };
        clients.map(&mut one).collect()
    }

    /// Goes on with the flows of clients; gives the backend of each, 0 where it was refused.
    pub(super) fn go_on(&mut self, clients: std::ops::Range<u32>) -> Vec<u16> {
        let stream = &mut self.stream;
        let mut one = |client| {
            let (action, backend) = stream.go_on(client);
            if action.is_sent() { backend } else { 0 }
        };
        clients.map(&mut one).collect()
    }

    /// Packets that were sent on, packets of every other fate, and flows begun, so far.
    pub(super) fn counts(&self, backends: &[WantedBackend]) -> Counts {
        let counters = self.plane.counters();
        let others = Reason::ALL.iter().filter(|reason| **reason != Reason::Forwarded);
        Counts {
            forwarded: counters.packets(0, Reason::Forwarded),
            others: others.map(|reason| counters.packets(0, *reason)).sum(),
            flows: backends
                .iter()
                .map(|backend| counters.backend(backend.address)[BackendCounter::Flows as usize])
                .sum(),
        }
    }
}

/// What the data plane has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// Packets sent on to a backend.
    pub(super) forwarded: u64,
    /// All others.
    pub(super) others: u64,
    /// Flows begun.
    pub(super) flows: u64,
}

impl Counts {
    /// `packets` were sent on, and they began `flows`. Gives how many flows were taken for another that has the same tag
    /// in the same bucket, and so were not counted: one, or one in many thousands.
    pub(super) fn check(self, packets: u64, flows: u64) -> Result<u64> {
        let shared = flows.checked_sub(self.flows).filter(|shared| *shared <= 1 + flows / 10_000);
        let shared = shared.with_context(|| format!("{flows} flows were to begin: {self:?}"))?;
        ensure!(self.forwarded == packets && self.others == 0, "{packets} packets were to be sent: {self:?}");
        Ok(shared)
    }

    /// What was counted since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            forwarded: self.forwarded.wrapping_sub(before.forwarded),
            others: self.others.wrapping_sub(before.others),
            flows: self.flows.wrapping_sub(before.flows),
        }
    }
}

/// The size of the ring of a service with these backends, whatever became of some of them meanwhile.
pub(super) fn ring_slots(backends: &[WantedBackend]) -> u32 {
    ring::size(backends.iter().map(|backend| backend.ring_weight))
}
