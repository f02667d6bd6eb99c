//! What is in the maps at this moment, as this agent knows it.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    Backend, NextHop, ServiceKey,
    abi::{MAX_NEXT_HOPS, MAX_SOURCES},
    ring::RingRef,
};

use super::{DatapathError, space::Space, tables::Tables};

/// Everything that is in use.
pub(super) struct Live {
    pub(super) services: HashMap<ServiceKey, LiveService>,
    pub(super) service_space: Space,
    pub(super) backend_space: Space,
    pub(super) ring_space: Space,
    pub(super) next_hops: LiveNextHops,
    pub(super) sources: LiveSources,
}

/// One service.
pub(super) struct LiveService {
    pub(super) index: u32,
    /// The eight bytes from its port on, as they are in the map.
    pub(super) settings: u64,
    pub(super) ring: RingRef,
    /// What the ring was built from; none where another agent has built it.
    pub(super) members: Option<Vec<(SocketAddr, u16)>>,
    pub(super) backends: BTreeMap<SocketAddr, LiveBackend>,
}

/// One backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveBackend {
    /// Its index in the data plane.
    pub index: u32,
    /// [`Backend::flags`].
    pub flags: u32,
    /// The next hop that it has.
    pub next_hop: Option<NextHop>,
    /// First and count of its source addresses.
    pub(super) sources: (u8, u16),
}

/// The next hops, each once however many backends it leads to.
pub(super) struct LiveNextHops {
    pub(super) space: Space,
    pub(super) users: HashMap<NextHop, (u32, usize)>,
}

/// full-nat's source addresses. They are never taken away, since flows name them.
pub(super) struct LiveSources {
    pub(super) used: Vec<(u8, IpAddr)>,
}

impl Live {
    /// Reads what is in the maps.
    pub(super) fn read(tables: &Tables) -> Result<Self, DatapathError> {
        let mut live = Self {
            services: HashMap::new(),
            service_space: Space::new(1..tables.services.len() as u32),
            backend_space: Space::new(1..tables.backends.len() as u32),
            ring_space: Space::new(0..tables.rings.len() as u32),
            next_hops: LiveNextHops { space: Space::new(1..MAX_NEXT_HOPS), users: HashMap::new() },
            sources: LiveSources::read(tables),
        };
        let mut by_index = HashMap::new();
        for (key, index) in tables.keys()? {
            live.service_space.reserve(index, 1);
            let service = tables.services.get(index as usize);
            let ring = RingRef::unpack(service.ring);
            live.ring_space.reserve(ring.first_line, RingRef::lines(ring.slots));
            by_index.insert(index, key);
            let settings = settings_word(tables, index);
            let service = LiveService { index, settings, ring, members: None, backends: BTreeMap::new() };
            live.services.insert(key, service);
        }
        for index in 1..tables.backends.len() as u32 {
            let backend = tables.backends.get(index as usize);
            if let Some(key) = by_index.get(&u32::from(backend.service)) {
                live.backend_space.reserve(index, 1);
                let next_hop = live.next_hops.adopt(tables, backend.next_hop);
                let address = SocketAddr::new(backend.addr.into(), u16::from_be_bytes(backend.port));
                let sources = (backend.source_first, backend.source_count);
                let adopted = LiveBackend { index, flags: backend.flags, next_hop, sources };
                if let Some(service) = live.services.get_mut(key) {
                    service.backends.insert(address, adopted);
                }
            }
        }
        Ok(live)
    }
}

/// The eight bytes of a service from its port on.
pub(super) fn settings_word(tables: &Tables, index: u32) -> u64 {
    let offset = std::mem::offset_of!(lb_common::Service, port);
    tables.services.word(index as usize, offset).load(std::sync::atomic::Ordering::Relaxed)
}

impl LiveBackend {
    /// Whether it was getting new flows.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.flags & (Backend::USABLE | Backend::DOWN) == Backend::USABLE
    }
}

impl LiveNextHops {
    fn adopt(&mut self, tables: &Tables, index: u32) -> Option<NextHop> {
        if index == 0 || index as usize >= tables.next_hops.len() {
            return None;
        }
        let next_hop = tables.next_hops.get(index as usize);
        let users = self.users.entry(next_hop).or_insert((index, 0));
        users.1 += 1;
        self.space.reserve(index, 1);
        Some(next_hop)
    }
}

impl LiveSources {
    fn read(tables: &Tables) -> Self {
        let used = (0..MAX_SOURCES as usize)
            .map(|index| (index as u8, tables.sources.get(index)))
            .filter(|(_, address)| *address != lb_common::Addr::default())
            .map(|(index, address)| (index, IpAddr::from(address)))
            .collect();
        Self { used }
    }

    /// The indices of `addresses`, in a row, new ones where they are not there yet; none where there is no room.
    pub(super) fn take(&mut self, tables: &Tables, addresses: &[IpAddr]) -> Option<(u8, u16)> {
        let at = |used: &[(u8, IpAddr)], index: usize| {
            used.iter().find(|(known, _)| usize::from(*known) == index).map(|(_, address)| *address)
        };
        let last = (MAX_SOURCES as usize).checked_sub(addresses.len())?;
        let fits = |used: &[(u8, IpAddr)], start: usize, free: bool| {
            addresses.iter().enumerate().all(|(offset, wanted)| match at(used, start + offset) {
                Some(address) => !free && address == *wanted,
                None => free,
            })
        };
        let start = (0..=last)
            .find(|start| fits(&self.used, *start, false))
            .or_else(|| (0..=last).find(|start| fits(&self.used, *start, true)))?;
        for (offset, address) in addresses.iter().enumerate() {
            if at(&self.used, start + offset).is_none() {
                tables.sources.set(start + offset, (*address).into());
                self.used.push(((start + offset) as u8, *address));
            }
        }
        Some((start as u8, addresses.len() as u16))
    }
}
