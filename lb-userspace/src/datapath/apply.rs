//! Making the maps what the controller wants, by the fewest writes, in an order in which every moment is right:
//! backends, then the ring, then the service; on the way out the reverse.

use std::{
    collections::HashSet,
    mem::offset_of,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use lb_common::{
    Addr, Backend, Life, Mode, NextHop, Reason, Service, ServiceKey,
    counters::{BACKEND_COUNTERS, BackendCounters},
    ring::{LINE_SLOTS, RingLine, RingRef},
};

pub use super::live::LiveBackend;
use super::{
    DatapathError,
    live::{Live, LiveService, settings_word},
    tables::{FlowTables, Tables},
};
use crate::ring::{self, Member};

/// What the data plane is to do for one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedService {
    /// What names it in packets.
    pub key: ServiceKey,
    /// How its packets are forwarded.
    pub mode: Mode,
    /// Ticks after which its flows are forgotten.
    pub idle_ticks: u16,
    /// Slots of its ring.
    pub ring_slots: u32,
    /// Its backends.
    pub backends: Vec<WantedBackend>,
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
    /// Its weight on the ring; 0: no new flows.
    pub ring_weight: u16,
    /// Where its packets leave, if that is known.
    pub next_hop: Option<NextHop>,
    /// The addresses that full-nat may speak to it from.
    pub sources: Vec<IpAddr>,
}

/// Keeps the maps true.
pub struct Reconciler {
    pub(super) tables: Tables,
    live: Live,
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
        Ok(Self { tables, live, wants_sweep: true })
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

    /// The idle time-out in ticks of the flows of each backend, by the backend's index.
    #[must_use]
    pub fn idle_ticks_by_backend(&self) -> Vec<Option<u16>> {
        let mut ticks = vec![None; self.tables.backends.len()];
        for service in self.live.services.values() {
            let [.., low, high, _, _] = service.settings.to_ne_bytes();
            for backend in service.backends.values() {
                ticks[backend.index as usize] = Some(u16::from_ne_bytes([low, high]));
            }
        }
        ticks
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
        let gone: Vec<_> = self.live.services.keys().filter(|key| !keys.contains(*key)).copied().collect();
        for key in gone {
            self.remove_service(&key, now)?;
        }
        for service in wanted {
            self.put_service(service, now)?;
        }
        Ok(())
    }

    fn put_service(&mut self, wanted: &WantedService, now: Instant) -> Result<(), DatapathError> {
        let is_new = !self.live.services.contains_key(&wanted.key);
        let mut service = match self.live.services.remove(&wanted.key) {
            Some(service) => service,
            None => self.make_service(wanted, now)?,
        };
        // The service is put back whatever happens, so that the live state stays that of the maps.
        let done = self
            .fill_service(&mut service, wanted, now)
            .and_then(|()| if is_new { self.tables.insert_key(&wanted.key, service.index) } else { Ok(()) });
        self.live.services.insert(wanted.key, service);
        done
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
            settings: settings_word(&self.tables, index),
            ring: RingRef::default(),
            members: Some(Vec::new()),
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
        let [port_high, port_low] = wanted.key.port;
        let [idle_low, idle_high] = wanted.idle_ticks.to_ne_bytes();
        let settings = u64::from_ne_bytes([
            port_high,
            port_low,
            wanted.key.protocol,
            wanted.mode as u8,
            idle_low,
            idle_high,
            Life::idle_class(wanted.idle_ticks),
            0,
        ]);
        if service.settings != settings {
            self.tables.services.publish(service.index as usize, offset_of!(Service, port), settings);
            service.settings = settings;
        }
    }

    fn put_backend(
        &mut self,
        service: &mut LiveService,
        wanted: &WantedBackend,
        now: Instant,
    ) -> Result<(), DatapathError> {
        if !service.backends.contains_key(&wanted.address) {
            let backend = self.make_backend(service.index, wanted.address, now)?;
            service.backends.insert(wanted.address, backend);
        }
        self.put_sources(service, wanted)?;
        self.put_next_hop(service, wanted, now)?;
        if wanted.usable {
            self.put_flags(service, wanted);
        }
        Ok(())
    }

    fn make_backend(
        &mut self,
        service_index: u32,
        address: SocketAddr,
        now: Instant,
    ) -> Result<LiveBackend, DatapathError> {
        let index = self.live.backend_space.take(1, now).ok_or_else(|| {
            DatapathError::Refused(format!(
                "no room for another backend: the data plane was made for {}; raise limits.backends, then `flowgate detach` and start the agent again",
                self.tables.backends.len() - 1
            ))
        })?;
        self.tables.clear_backend_counters(index)?;
        let backend = Backend {
            addr: address.ip().into(),
            port: address.port().to_be_bytes(),
            service: service_index as u16,
            ..Backend::default()
        };
        self.tables.backends.set(index as usize, backend);
        Ok(LiveBackend { index, flags: 0, next_hop: None, sources: (0, 0) })
    }

    fn put_flags(&mut self, service: &mut LiveService, wanted: &WantedBackend) {
        let Some(backend) = service.backends.get_mut(&wanted.address) else { return };
        let usable = if wanted.usable { Backend::USABLE } else { 0 };
        let flags = usable | if wanted.down { Backend::DOWN } else { 0 };
        if backend.flags != flags {
            let place = self.tables.backends.half(backend.index as usize, offset_of!(Backend, flags));
            place.store(flags, Ordering::Release);
            backend.flags = flags;
        }
    }

    fn put_sources(
        &mut self,
        service: &mut LiveService,
        wanted: &WantedBackend,
    ) -> Result<(), DatapathError> {
        let Some(backend) = service.backends.get_mut(&wanted.address) else { return Ok(()) };
        // A backend keeps the addresses that it has until others are known.
        if wanted.sources.is_empty() {
            return Ok(());
        }
        let sources = self.live.sources.take(&self.tables, &wanted.sources).ok_or_else(|| {
            DatapathError::Refused(
                "no room for another source address: `flowgate detach` and start the agent again".to_owned(),
            )
        })?;
        if backend.sources != sources {
            let [count_low, count_high] = sources.1.to_ne_bytes();
            let word = u32::from_ne_bytes([sources.0, 0, count_low, count_high]);
            let place = self.tables.backends.half(backend.index as usize, offset_of!(Backend, source_first));
            place.store(word, Ordering::Release);
            backend.sources = sources;
        }
        Ok(())
    }

    fn put_next_hop(
        &mut self,
        service: &mut LiveService,
        wanted: &WantedBackend,
        now: Instant,
    ) -> Result<(), DatapathError> {
        let Some(backend) = service.backends.get_mut(&wanted.address) else { return Ok(()) };
        if backend.next_hop == wanted.next_hop {
            return Ok(());
        }
        let index = match wanted.next_hop {
            Some(next_hop) => self.use_next_hop(next_hop, now)?,
            None => 0,
        };
        let place = self.tables.backends.half(backend.index as usize, offset_of!(Backend, next_hop));
        place.store(index, Ordering::Release);
        if let Some(old) = std::mem::replace(&mut backend.next_hop, wanted.next_hop) {
            self.leave_next_hop(&old, now);
        }
        Ok(())
    }

    fn use_next_hop(&mut self, next_hop: NextHop, now: Instant) -> Result<u32, DatapathError> {
        let known = &mut self.live.next_hops;
        if let Some((index, users)) = known.users.get_mut(&next_hop) {
            *users += 1;
            return Ok(*index);
        }
        let index = known.space.take(1, now).ok_or_else(|| {
            DatapathError::Refused("too many next hops at once: put backends behind a gateway".to_owned())
        })?;
        self.tables.next_hops.set(index as usize, next_hop);
        known.users.insert(next_hop, (index, 1));
        Ok(index)
    }

    fn leave_next_hop(&mut self, next_hop: &NextHop, now: Instant) {
        let known = &mut self.live.next_hops;
        let Some((index, users)) = known.users.get_mut(next_hop) else { return };
        *users -= 1;
        if *users == 0 {
            known.space.give_back(*index, 1, now);
            known.users.remove(next_hop);
        }
    }

    /// Builds the ring aside and puts it in place by one store.
    fn put_ring(
        &mut self,
        service: &mut LiveService,
        wanted: &WantedService,
        now: Instant,
    ) -> Result<(), DatapathError> {
        let on_ring = wanted.backends.iter().filter(|backend| backend.ring_weight > 0);
        let mut members: Vec<_> = on_ring.map(|backend| (backend.address, backend.ring_weight)).collect();
        members.sort_unstable();
        let slots = if members.is_empty() { 0 } else { wanted.ring_slots };
        if service.members.as_ref() == Some(&members) && service.ring.slots == slots {
            return Ok(());
        }
        let ring = self.write_ring(service, &members, slots, now)?;
        self.tables.services.publish(service.index as usize, offset_of!(Service, ring), ring.pack());
        let old = std::mem::replace(&mut service.ring, ring);
        self.live.ring_space.give_back(old.first_line, RingRef::lines(old.slots), now);
        service.members = Some(members);
        Ok(())
    }

    fn write_ring(
        &mut self,
        service: &LiveService,
        members: &[(SocketAddr, u16)],
        slots: u32,
        now: Instant,
    ) -> Result<RingRef, DatapathError> {
        let index =
            |address: &SocketAddr| service.backends.get(address).map_or(0, |backend| backend.index as u16);
        let members: Vec<_> = members
            .iter()
            .map(|(address, weight)| Member { identity: *address, weight: *weight, index: index(address) })
            .collect();
        let ring = ring::build(&members, slots);
        if ring.is_empty() {
            return Ok(RingRef::default());
        }
        let first_line = self.live.ring_space.take(RingRef::lines(slots), now).ok_or_else(|| {
            DatapathError::Refused(format!(
                "no room for a ring of {slots} slots: raise limits.ring_slots, then `flowgate detach` and start the agent again"
            ))
        })?;
        for (line, chunk) in ring.chunks(LINE_SLOTS as usize).enumerate() {
            let mut slots = [0; LINE_SLOTS as usize];
            slots[..chunk.len()].copy_from_slice(chunk);
            self.tables.rings.set(first_line as usize + line, RingLine(slots));
        }
        Ok(RingRef { first_line, slots })
    }

    fn remove_service(&mut self, key: &ServiceKey, now: Instant) -> Result<(), DatapathError> {
        let Some(mut service) = self.live.services.remove(key) else { return Ok(()) };
        if let Err(error) = self.tables.remove_key(key) {
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

    fn remove_backend(
        &mut self,
        service: &mut LiveService,
        address: SocketAddr,
        now: Instant,
    ) -> Result<(), DatapathError> {
        let Some(backend) = service.backends.remove(&address) else { return Ok(()) };
        let index = backend.index as usize;
        self.tables.backends.half(index, offset_of!(Backend, flags)).store(0, Ordering::Release);
        let counters = self.tables.backend_counters(backend.index)?;
        let mut totals = self.tables.services.get(service.index as usize).retired;
        add(&mut totals, &counters);
        for (place, total) in totals.iter().enumerate() {
            let offset = offset_of!(Service, retired) + place * 8;
            self.tables.services.word(service.index as usize, offset).store(*total, Ordering::Relaxed);
        }
        self.tables.backends.set(index, Backend { addr: Addr::default(), ..Backend::default() });
        if let Some(next_hop) = backend.next_hop {
            self.leave_next_hop(&next_hop, now);
        }
        self.live.backend_space.give_back(backend.index, 1, now);
        self.wants_sweep = true;
        Ok(())
    }
}

fn add(totals: &mut BackendCounters, more: &BackendCounters) {
    for (total, value) in totals.iter_mut().zip(more) {
        *total = total.wrapping_add(*value);
    }
}
