//! What is in the maps at this moment, as this agent knows it.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    Addr, AddressUse, Backend, Features, NextHop, Scheduler, Server, Service, ServiceKey, SourceRange,
    Timeouts,
    abi::{MAX_NEXT_HOPS, MAX_SOURCES},
    ring::RingRef,
};

use super::{
    DatapathError,
    apply::{WantedBackend, WantedService},
    space::Space,
    tables::Tables,
};
use crate::ring::{self, Member};

/// Everything that is in use.
pub(super) struct Live {
    pub(super) services: HashMap<ServiceKey, LiveService>,
    pub(super) service_space: Space,
    pub(super) backend_space: Space,
    pub(super) ring_space: Space,
    pub(super) next_hops: LiveNextHops,
    pub(super) sources: LiveSources,
    /// Servers of mode `nat`, and the services whose backends they are.
    pub(super) servers: HashMap<ServiceKey, Server>,
    /// Addresses whose pings are answered.
    pub(super) addresses: HashMap<Addr, AddressUse>,
}

/// One service.
pub(super) struct LiveService {
    pub(super) index: u32,
    /// Whether packets find it: the last thing that is written of a service.
    pub(super) has_key: bool,
    /// What its packets ask for.
    pub(super) features: Features,
    pub(super) timeouts: Timeouts,
    /// Whether the data plane counts the flows of its backends.
    pub(super) counts_flows: bool,
    pub(super) ring: RingRef,
    /// What the ring was built from; none where another agent has built it.
    pub(super) recipe: Option<Recipe>,
    pub(super) backends: BTreeMap<SocketAddr, LiveBackend>,
}

/// Everything that a ring depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recipe {
    /// Backends on the ring, their weights and ramps, in order.
    members: Vec<(SocketAddr, u16, u16)>,
    /// At most.
    slots: u32,
    in_turns: bool,
}

impl Recipe {
    /// The ring that a service is to have.
    pub(super) fn of(wanted: &WantedService) -> Self {
        let on_ring = wanted.backends.iter().filter(|backend| backend.ring_weight > 0);
        let member = |backend: &WantedBackend| (backend.address, backend.ring_weight, backend.ramp_permille);
        let mut members: Vec<_> = on_ring.map(member).collect();
        members.sort_unstable();
        Self { members, slots: wanted.ring_slots, in_turns: wanted.scheduler == Scheduler::RoundRobin }
    }

    /// The ring, each slot a backend's `index`.
    pub(super) fn build(&self, index: impl Fn(&SocketAddr) -> u16) -> Vec<u16> {
        let member = |(address, weight, ramp): &(SocketAddr, u16, u16)| {
            (Member { identity: *address, weight: *weight, index: index(address) }, *ramp)
        };
        let members: Vec<_> = self.members.iter().map(member).collect();
        let layout = if self.in_turns { ring::sequence } else { ring::build };
        ring::ramped(&members, |members| layout(members, self.slots))
    }
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
    /// [`Backend::sources`].
    pub(super) sources: SourceRange,
}

/// The next hops, each once however many backends it leads to.
pub(super) struct LiveNextHops {
    pub(super) space: Space,
    pub(super) users: HashMap<NextHop, (u32, usize)>,
}

/// Source addresses. They are never taken away, since flows name them.
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
            servers: tables.servers()?.into_iter().collect(),
            addresses: tables.addresses()?.into_iter().collect(),
        };
        let mut by_index = HashMap::new();
        for (key, index) in tables.keys()? {
            live.service_space.reserve(index, 1);
            let service = tables.services.get(index as usize);
            let ring = RingRef::unpack(service.ring);
            live.ring_space.reserve(ring.first_line, RingRef::lines(ring.slots));
            by_index.insert(index, key);
            let adopted = LiveService {
                index,
                has_key: true,
                features: features_of(service.mode, service.flags),
                timeouts: Timeouts(service.timeouts),
                counts_flows: service.flags & Service::COUNTS_FLOWS != 0,
                ring,
                recipe: None,
                backends: BTreeMap::new(),
            };
            live.services.insert(key, adopted);
        }
        for index in 1..tables.backends.len() as u32 {
            let backend = tables.backends.get(index as usize);
            if let Some(key) = by_index.get(&u32::from(backend.service)) {
                live.backend_space.reserve(index, 1);
                let next_hop = live.next_hops.adopt(tables, backend.next_hop);
                let address = SocketAddr::new(backend.addr.into(), u16::from_be_bytes(backend.port));
                let adopted = LiveBackend { index, flags: backend.flags, next_hop, sources: backend.sources };
                if let Some(service) = live.services.get_mut(key) {
                    service.backends.insert(address, adopted);
                }
            }
        }
        Ok(live)
    }
}

/// What the packets of a service with this mode and these flags ask of the program.
pub(super) fn features_of(mode: u8, flags: u8) -> Features {
    let asked = |flag, feature| if flags & flag == 0 { Features::NONE } else { feature };
    Features(1 << mode)
        .and(asked(Service::SHARES_SERVERS, Features::SHARED_SERVERS))
        .and(asked(Service::ANSWERS_PINGS, Features::ANSWERED_PINGS))
        .and(asked(Service::FRAGMENTS_BY_ADDRESS, Features::FRAGMENTS_BY_ADDRESS))
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
            .filter(|(_, address)| *address != Addr::default())
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
