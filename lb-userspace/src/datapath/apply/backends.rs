//! One backend's entry in the maps: made, kept true, and taken out.

use std::{mem::offset_of, net::SocketAddr, sync::atomic::Ordering, time::Instant};

use lb_common::{Addr, Backend, Features, Load, Mode, NextHop, Service, SourceRange};

use super::{LiveBackend, Reconciler, WantedBackend, WantedService, add};
use crate::datapath::{DatapathError, live::LiveService};

impl Reconciler {
    pub(super) fn put_backend(
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
        self.put_bounds(service, wanted);
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
        self.tables.loads.set(index as usize, Load::default());
        let backend = Backend {
            addr: address.ip().into(),
            port: address.port().to_be_bytes(),
            service: service_index as u16,
            ..Backend::default()
        };
        self.tables.backends.set(index as usize, backend);
        Ok(LiveBackend { index, flags: 0, next_hop: None, sources: SourceRange::default() })
    }

    pub(super) fn put_flags(&mut self, service: &mut LiveService, wanted: &WantedBackend) {
        let Some(backend) = service.backends.get_mut(&wanted.address) else { return };
        let usable = if wanted.usable { Backend::USABLE } else { 0 };
        let down = if wanted.down { Backend::DOWN } else { 0 };
        let flags = usable | down | if wanted.reset { Backend::RESETS } else { 0 };
        if backend.flags != flags {
            let place = self.tables.backends.half(backend.index as usize, offset_of!(Backend, flags));
            place.store(flags, Ordering::Release);
            backend.flags = flags;
        }
    }

    /// Writes what loads are compared by, and their bound: two halves of one word.
    fn put_bounds(&mut self, service: &LiveService, wanted: &WantedBackend) {
        let Some(backend) = service.backends.get(&wanted.address) else { return };
        let weight = u32::from(wanted.ring_weight) * u32::from(wanted.ramp_permille);
        let [a, b, c, d] = weight.to_ne_bytes();
        let [e, f, g, h] = wanted.max_flows.to_ne_bytes();
        let word = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        let place = self.tables.backends.word(backend.index as usize, offset_of!(Backend, load_weight));
        if place.load(Ordering::Relaxed) != word {
            place.store(word, Ordering::Release);
        }
    }

    /// Where the mode is about to change: what the old one spoke from is not the new one's, and no packet is to leave
    /// from there. Without a source it is dropped until the new one is written; a mode that has none gets it beforehand.
    pub(super) fn change_sources_with_mode(
        &mut self,
        service: &mut LiveService,
        wanted: &WantedService,
    ) -> Result<(), DatapathError> {
        if service.features.has(Features::mode(wanted.mode)) {
            return Ok(());
        }
        let has_mode = |mode| service.features.has(Features::mode(mode));
        if has_mode(Mode::FullNat) || has_mode(Mode::Ipip) || has_mode(Mode::Gue) {
            for backend in service.backends.values_mut() {
                self.write_sources(backend, SourceRange::default());
            }
        } else {
            for backend in &wanted.backends {
                self.put_sources(service, backend)?;
            }
        }
        Ok(())
    }

    fn write_sources(&self, backend: &mut LiveBackend, sources: SourceRange) {
        if backend.sources != sources {
            let place = self.tables.backends.half(backend.index as usize, offset_of!(Backend, sources));
            place.store(sources.pack(), Ordering::Release);
            backend.sources = sources;
        }
    }

    fn put_sources(
        &mut self,
        service: &mut LiveService,
        wanted: &WantedBackend,
    ) -> Result<(), DatapathError> {
        let Some(mut live) = service.backends.get(&wanted.address).copied() else { return Ok(()) };
        // A backend keeps the addresses that it has until others are known.
        if wanted.sources.is_empty() {
            return Ok(());
        }
        let (first, count) = self.live.sources.take(&self.tables, &wanted.sources).ok_or_else(|| {
            DatapathError::Refused(
                "no room for another source address: `flowgate detach` and start the agent again".to_owned(),
            )
        })?;
        let sources = SourceRange { first, host_bits: wanted.source_host_bits, count };
        self.write_sources(&mut live, sources);
        service.backends.insert(wanted.address, live);
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

    pub(super) fn remove_backend(
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
