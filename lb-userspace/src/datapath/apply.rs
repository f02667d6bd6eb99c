//! Making the maps what the controller wants, by the fewest writes, in an order in which every moment is right:
//! backends, then the ring, then the service; on the way out the reverse.

mod addresses;
mod backends;
mod rings;
mod servers;

use std::{
    collections::{HashMap, HashSet},
    mem::offset_of,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use lb_common::{
    Features, Mode, NextHop, Reason, Scheduler, Service, ServiceKey, Timeouts, TunnelOptions,
    counters::{BACKEND_COUNTERS, BackendCounters},
    ring::RingRef,
    service::client_mask,
};

pub use self::servers::features_of;
pub use super::live::LiveBackend;
use super::{
    DatapathError,
    live::{self, Live, LiveService, Recipe},
    tables::{FlowTables, Tables},
};

/// What the data plane is to do for one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedService {
    /// What names it in packets.
    pub key: ServiceKey,
    /// How its packets are forwarded.
    pub mode: Mode,
    /// How a backend is chosen for a new flow.
    pub scheduler: Scheduler,
    /// Leading bits of a client's address that count for the scheduler: 32 or 128 for all of them.
    pub affinity_bits: u8,
    /// When its flows are forgotten.
    pub timeouts: Timeouts,
    /// Whether new flows that no backend can take are answered by a refusal, not dropped.
    pub reject: bool,
    /// Whether pings to its address are answered.
    pub answer_ping: bool,
    /// Whether parts of its packets go by their addresses.
    pub fragments_by_address: bool,
    /// What its tunnel is like, where its mode has one.
    pub tunnel: TunnelOptions,
    /// Slots of its ring, at most.
    pub ring_slots: u32,
    /// Its backends.
    pub backends: Vec<WantedBackend>,
}

impl WantedService {
    /// Whether the data plane counts the flows of its backends.
    #[must_use]
    pub fn counts_flows(&self) -> bool {
        let bounded = |backend: &WantedBackend| backend.max_flows > 0;
        self.scheduler == Scheduler::LeastConn || self.backends.iter().any(bounded)
    }
}

/// What the data plane is to do with one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedBackend {
    /// Its address and port.
    pub address: SocketAddr,
    /// Whether its flows may go to it at all.
    pub usable: bool,
    /// Whether flows that have not got anywhere yet leave it.
    pub down: bool,
    /// With `down`: whether established connections are answered by a RST.
    pub reset: bool,
    /// Its weight on the ring; 0: no new flows.
    pub ring_weight: u16,
    /// How many thousandths of its slots on the ring it has: below 1000 while it starts slowly.
    pub ramp_permille: u16,
    /// Flows above which it gets no new ones; 0: no bound.
    pub max_flows: u32,
    /// Where its packets leave, if that is known.
    pub next_hop: Option<NextHop>,
    /// The addresses that it may be spoken to from (full-nat, ipip, gue).
    pub sources: Vec<IpAddr>,
    /// `ipip`: how many of the last bits of its source address are a flow's own.
    pub source_host_bits: u8,
}

/// Keeps the maps true.
pub struct Reconciler {
    pub(super) tables: Tables,
    pub(super) live: Live,
    /// Flows of backends of services that need them counted, at the last count.
    pub(super) flow_counts: HashMap<(ServiceKey, SocketAddr), u64>,
    /// Servers that are backends of several services (`nat`), at the last change.
    shared_servers: HashSet<ServiceKey>,
    /// Whether a backend has gone whose flows are still in the tables.
    wants_sweep: bool,
}

impl Reconciler {
    /// Takes over `tables` with whatever is in them.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn new(tables: Tables) -> Result<Self, DatapathError> {
        let live = Live::read(&tables)?;
        let (flow_counts, shared_servers) = (HashMap::new(), HashSet::new());
        Ok(Self { tables, live, flow_counts, shared_servers, wants_sweep: true })
    }

    /// Packets that came in by the interface in `slot`, by reason.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn packets(&self, slot: u32) -> Result<Vec<(Reason, u64)>, DatapathError> {
        self.tables.packets(slot)
    }

    /// The tables of flows.
    #[must_use]
    pub fn flow_tables(&self) -> Arc<FlowTables> {
        self.tables.flows.clone()
    }

    /// Whether the tables must be swept whole: a backend has gone, and its index is used again after a rest, when none
    /// of its flows may be left. Asking takes the order over.
    pub fn take_sweep_order(&mut self) -> bool {
        std::mem::take(&mut self.wants_sweep)
    }

    /// A backend as it is in the maps.
    #[must_use]
    pub fn backend(&self, key: &ServiceKey, address: SocketAddr) -> Option<LiveBackend> {
        self.live.services.get(key)?.backends.get(&address).copied()
    }

    /// Slots of a service's ring.
    #[must_use]
    pub fn ring_slots(&self, key: &ServiceKey) -> u32 {
        self.live.services.get(key).map_or(0, |service| service.ring.slots)
    }

    /// The time-outs of the flows of each backend, by the backend's index; none where the index is no backend's.
    #[must_use]
    pub fn timeouts_by_backend(&self) -> Vec<Option<Timeouts>> {
        let mut timeouts = vec![None; self.tables.backends.len()];
        for service in self.live.services.values() {
            for backend in service.backends.values() {
                timeouts[backend.index as usize] = Some(service.timeouts);
            }
        }
        timeouts
    }

    /// A backend's counters.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn backend_counters(
        &self,
        key: &ServiceKey,
        address: SocketAddr,
    ) -> Result<BackendCounters, DatapathError> {
        match self.backend(key, address) {
            Some(backend) => self.tables.backend_counters(backend.index),
            None => Ok([0; BACKEND_COUNTERS]),
        }
    }

    /// A service's counters: its backends', and those of backends that are gone.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn service_counters(&self, key: &ServiceKey) -> Result<BackendCounters, DatapathError> {
        let Some(service) = self.live.services.get(key) else { return Ok([0; BACKEND_COUNTERS]) };
        let mut totals = self.tables.services.get(service.index as usize).retired;
        for backend in service.backends.values() {
            add(&mut totals, &self.tables.backend_counters(backend.index)?);
        }
        Ok(totals)
    }

    /// Makes the maps what `wanted` says.
    ///
    /// # Errors
    /// A limit is reached, or the kernel refuses a write; what was done until then is in place and known, so the
    /// next call goes on from there.
    pub fn reconcile(&mut self, wanted: &[WantedService], now: Instant) -> Result<(), DatapathError> {
        let keys: HashSet<_> = wanted.iter().map(|service| service.key).collect();
        // No address leads to a service that goes; at the end those that have come are led to.
        self.put_addresses(wanted)?;
        let gone: Vec<_> = self.live.services.keys().filter(|key| !keys.contains(*key)).copied().collect();
        for key in gone {
            self.remove_service(&key, now)?;
        }
        self.forget_servers(wanted)?;
        self.note_sharers(wanted)?;
        for service in wanted {
            self.put_service(service, now)?;
        }
        self.put_addresses(wanted)
    }

    /// What packets ask of the program, for the services that are in the maps.
    #[must_use]
    pub fn features(&self) -> Features {
        self.live.services.values().fold(Features::NONE, |all, service| all.and(service.features))
    }

    fn put_service(&mut self, wanted: &WantedService, now: Instant) -> Result<(), DatapathError> {
        let mut service = match self.live.services.remove(&wanted.key) {
            Some(service) => service,
            None => self.make_service(wanted, now)?,
        };
        // The service is put back whatever happens, so that the live state stays that of the maps.
        let done =
            self.fill_service(&mut service, wanted, now).and_then(|()| self.put_key(&mut service, wanted));
        self.live.services.insert(wanted.key, service);
        done
    }

    fn put_key(&mut self, service: &mut LiveService, wanted: &WantedService) -> Result<(), DatapathError> {
        if !service.has_key {
            self.tables.insert_key(&wanted.key, service.index)?;
            service.has_key = true;
        }
        Ok(())
    }

    fn make_service(&mut self, wanted: &WantedService, now: Instant) -> Result<LiveService, DatapathError> {
        let index = self.live.service_space.take(1, now).ok_or_else(|| {
            DatapathError::Refused(format!(
                "no room for another service: the data plane was made for {}; raise limits.services, then `flowgate detach` and start the agent again",
                self.tables.services.len() - 1
            ))
        })?;
        let empty = Service { addr: wanted.key.addr, ..Service::NONE };
        self.tables.services.set(index as usize, empty);
        Ok(LiveService {
            index,
            has_key: false,
            features: Features::NONE,
            timeouts: wanted.timeouts,
            counts_flows: false,
            ring: RingRef::default(),
            recipe: Some(Recipe::default()),
            backends: std::collections::BTreeMap::new(),
        })
    }

    fn fill_service(
        &mut self,
        service: &mut LiveService,
        wanted: &WantedService,
        now: Instant,
    ) -> Result<(), DatapathError> {
        self.put_settings(service, wanted);
        for backend in &wanted.backends {
            self.put_backend(service, backend, now)?;
        }
        self.put_servers(service, wanted)?;
        self.put_ring(service, wanted, now)?;
        // Only now, since no new flow comes by the ring any more.
        for backend in wanted.backends.iter().filter(|backend| !backend.usable) {
            self.put_flags(service, backend);
        }
        let keep: HashSet<_> = wanted.backends.iter().map(|backend| backend.address).collect();
        let gone: Vec<_> =
            service.backends.keys().filter(|address| !keep.contains(*address)).copied().collect();
        for address in gone {
            self.remove_backend(service, address, now)?;
        }
        Ok(())
    }

    fn put_settings(&mut self, service: &mut LiveService, wanted: &WantedService) {
        let rejects = if wanted.reject { Service::REJECTS } else { 0 };
        let counts = if wanted.counts_flows() { Service::COUNTS_FLOWS } else { 0 };
        let shares = if self.shares_servers(service, wanted) { Service::SHARES_SERVERS } else { 0 };
        let pings = if wanted.answer_ping { Service::ANSWERS_PINGS } else { 0 };
        let fragments = if wanted.fragments_by_address { Service::FRAGMENTS_BY_ADDRESS } else { 0 };
        let flags = rejects | counts | shares | pings | fragments;
        let [classes_low, classes_high] = wanted.timeouts.classes().0.to_ne_bytes();
        let [port_high, port_low] = wanted.key.port;
        let settings = u64::from_ne_bytes([
            port_high,
            port_low,
            wanted.key.protocol,
            wanted.mode as u8,
            wanted.scheduler as u8,
            flags,
            classes_low,
            classes_high,
        ]);
        let [mask_high, mask_low] = client_mask(wanted.key.addr.is_v4(), wanted.affinity_bits);
        for (offset, word) in [
            (offset_of!(Service, timeouts), wanted.timeouts.0),
            (offset_of!(Service, tunnel), wanted.tunnel.0),
            (offset_of!(Service, client_mask), mask_high),
            (offset_of!(Service, client_mask) + 8, mask_low),
            (offset_of!(Service, port), settings),
        ] {
            let place = self.tables.services.word(service.index as usize, offset);
            if place.load(Ordering::Relaxed) != word {
                place.store(word, Ordering::Release);
            }
        }
        service.features = live::features_of(wanted.mode as u8, flags);
        service.timeouts = wanted.timeouts;
        service.counts_flows = wanted.counts_flows();
    }

    fn remove_service(&mut self, key: &ServiceKey, now: Instant) -> Result<(), DatapathError> {
        let Some(mut service) = self.live.services.remove(key) else { return Ok(()) };
        if service.has_key
            && let Err(error) = self.tables.remove_key(key)
        {
            self.live.services.insert(*key, service);
            return Err(error);
        }
        let addresses: Vec<_> = service.backends.keys().copied().collect();
        for address in addresses {
            self.remove_backend(&mut service, address, now)?;
        }
        self.tables.services.publish(service.index as usize, offset_of!(Service, ring), 0);
        self.live.ring_space.give_back(service.ring.first_line, RingRef::lines(service.ring.slots), now);
        self.live.service_space.give_back(service.index, 1, now);
        Ok(())
    }
}

fn add(totals: &mut BackendCounters, more: &BackendCounters) {
    for (total, value) in totals.iter_mut().zip(more) {
        *total = total.wrapping_add(*value);
    }
}
