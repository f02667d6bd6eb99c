//! The maps, with types.

use std::{path::Path, sync::Arc};

use aya::maps::{DevMap, HashMap, Map, MapData, PerCpuArray};
use lb_common::{
    Addr, AddressUse, Backend, Explanation, Interface, Load, NextHop, Server, Service, ServiceKey,
    abi::{Identity, MAX_CLIENT_HOPS, MAX_INTERFACES, MAX_NEXT_HOPS, MAX_SOURCES, maps},
    counters::{BACKEND_COUNTERS, BackendCounters},
    flow_table::{Bucket, BucketHops},
    fragment::FragmentEntry,
    nat_table::{NatBucket, NatReply},
    reason::{REASONS, Reason, counter_index},
    ring::{LINE_SLOTS, RingLine},
};

use super::{DatapathError, memory::Memory, pin::Pins};
use crate::model::Limits;

/// Every map of a data plane, open.
pub struct Tables {
    pub(super) identity: Memory<Identity>,
    pub(super) services: Memory<Service>,
    pub(super) backends: Memory<Backend>,
    pub(super) rings: Memory<RingLine>,
    pub(super) next_hops: Memory<NextHop>,
    pub(super) interfaces: Memory<Interface>,
    pub(super) sources: Memory<Addr>,
    pub(super) loads: Memory<Load>,
    pub(super) flows: Arc<FlowTables>,
    service_keys: HashMap<MapData, [u8; 24], u32>,
    servers: HashMap<MapData, [u8; 24], [u8; 16]>,
    addresses: HashMap<MapData, [u8; 16], u32>,
    egress: DevMap<MapData>,
    packets: PerCpuArray<MapData, u64>,
    backend_counters: PerCpuArray<MapData, BackendCounters>,
}

/// The tables of flows: shared with whoever counts and sweeps them.
pub struct FlowTables {
    pub(super) steered: Memory<Bucket>,
    pub(super) translated: Memory<NatBucket>,
    pub(super) replies: Memory<NatReply>,
}

/// How many entries each map of a data plane has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub(super) identity: Identity,
}

impl Sizes {
    /// The sizes that `limits` ask for: twice as many slots as flows, since the tables work best half full.
    #[must_use]
    pub fn of_limits(limits: &Limits) -> Self {
        let slots = (u64::from(limits.flows) * 2).next_power_of_two() as u32;
        let identity = Identity {
            flow_buckets: slots / 8,
            nat_buckets: slots / 8,
            nat_replies: slots,
            services: limits.services + 1,
            backends: limits.backends.saturating_add(1).min(1 << 16),
            ring_slots: limits.ring_slots,
            fragments: if limits.fragments == 0 { 0 } else { limits.fragments.next_power_of_two() },
            ..Identity::default()
        };
        Self { identity }
    }

    /// Each map that is pinned, its number of entries and the size of a value in bytes.
    #[must_use]
    pub fn entries(&self) -> Vec<(&'static str, u32, u32)> {
        let identity = &self.identity;
        let bytes = |size: usize| size as u32;
        vec![
            (maps::SERVICE_KEYS, identity.services, 4),
            (maps::SERVICES, identity.services, bytes(size_of::<Service>())),
            (maps::BACKENDS, identity.backends, bytes(size_of::<Backend>())),
            (maps::RINGS, identity.ring_slots.div_ceil(LINE_SLOTS), bytes(size_of::<RingLine>())),
            (maps::NEXT_HOPS, MAX_NEXT_HOPS, bytes(size_of::<NextHop>())),
            (maps::INTERFACES, MAX_INTERFACES, bytes(size_of::<Interface>())),
            (maps::SOURCES, MAX_SOURCES, bytes(size_of::<Addr>())),
            (maps::CLIENT_HOPS, MAX_CLIENT_HOPS, 8),
            (maps::FLOWS, identity.flow_buckets, bytes(size_of::<Bucket>())),
            (maps::FLOW_HOPS, identity.flow_buckets, bytes(size_of::<BucketHops>())),
            (maps::SERVERS, identity.backends, bytes(size_of::<Server>())),
            (maps::NAT_FLOWS, identity.nat_buckets, bytes(size_of::<NatBucket>())),
            (maps::NAT_REPLIES, identity.nat_replies, bytes(size_of::<NatReply>())),
            (maps::EGRESS, MAX_INTERFACES, 8),
            (maps::PACKETS, MAX_INTERFACES * REASONS, 8),
            (maps::BACKEND_COUNTERS, identity.backends, bytes(size_of::<BackendCounters>())),
            (maps::LOADS, identity.backends, bytes(size_of::<Load>())),
            (maps::TURNS, identity.services, 8),
            (maps::ICMP_ERRORS, 1, 8),
            (maps::ADDRESSES, identity.services, 4),
            // There is a map even where nothing is remembered.
            (maps::FRAGMENTS, identity.fragments.max(1), bytes(size_of::<FragmentEntry>())),
            (maps::IDENTIFICATIONS, 1, 8),
            (maps::EXPLANATION, 1, bytes(size_of::<Explanation>())),
            (maps::IDENTITY, 1, bytes(size_of::<Identity>())),
        ]
    }
}

impl Tables {
    /// Opens the pinned maps, each checked against the type, the sizes and the layout that this build expects.
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let identity = Self::map_identity(pins)?;
        let sizes = Sizes { identity: identity.get(0) };
        for (name, entries, value_bytes) in sizes.entries() {
            check(&pins.map(name), name, entries, value_bytes)?;
        }
        let known = &sizes.identity;
        let flows = FlowTables {
            steered: mapped(pins, maps::FLOWS, known.flow_buckets)?,
            translated: mapped(pins, maps::NAT_FLOWS, known.nat_buckets)?,
            replies: mapped(pins, maps::NAT_REPLIES, known.nat_replies)?,
        };
        Ok(Self {
            services: mapped(pins, maps::SERVICES, known.services)?,
            backends: mapped(pins, maps::BACKENDS, known.backends)?,
            rings: mapped(pins, maps::RINGS, known.ring_slots.div_ceil(LINE_SLOTS))?,
            next_hops: mapped(pins, maps::NEXT_HOPS, MAX_NEXT_HOPS)?,
            interfaces: mapped(pins, maps::INTERFACES, MAX_INTERFACES)?,
            sources: mapped(pins, maps::SOURCES, MAX_SOURCES)?,
            loads: mapped(pins, maps::LOADS, known.backends)?,
            flows: Arc::new(flows),
            service_keys: typed(pins, maps::SERVICE_KEYS)?,
            servers: typed(pins, maps::SERVERS)?,
            addresses: typed(pins, maps::ADDRESSES)?,
            egress: typed(pins, maps::EGRESS)?,
            packets: typed(pins, maps::PACKETS)?,
            backend_counters: typed(pins, maps::BACKEND_COUNTERS)?,
            identity,
        })
    }

    /// The identity alone: what tells a finished data plane from one that was never finished.
    pub(super) fn map_identity(pins: &Pins) -> Result<Memory<Identity>, DatapathError> {
        mapped(pins, maps::IDENTITY, 1)
    }

    /// Where the instance that explains writes its answer.
    pub(super) fn map_explanation(pins: &Pins) -> Result<Memory<Explanation>, DatapathError> {
        mapped(pins, maps::EXPLANATION, 1)
    }

    /// What the data plane was made with.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity.get(0)
    }

    /// Puts a service's key in, or points it at another index.
    pub(super) fn insert_key(&mut self, key: &ServiceKey, index: u32) -> Result<(), DatapathError> {
        self.service_keys
            .insert(key.to_bytes(), index, 0)
            .map_err(|error| DatapathError::kernel("cannot add a service to the data plane", &error))
    }

    /// Takes a service's key out.
    pub(super) fn remove_key(&mut self, key: &ServiceKey) -> Result<(), DatapathError> {
        self.service_keys
            .remove(&key.to_bytes())
            .map_err(|error| DatapathError::kernel("cannot remove a service from the data plane", &error))
    }

    /// Every service's key and index.
    pub(super) fn keys(&self) -> Result<Vec<(ServiceKey, u32)>, DatapathError> {
        self.service_keys
            .iter()
            .map(|entry| entry.map(|(bytes, index)| (ServiceKey::from_bytes(&bytes), index)))
            .collect::<Result<_, _>>()
            .map_err(|error| DatapathError::kernel("cannot read the data plane's services", &error))
    }

    /// Says whose backend a server is, in mode `nat`; nobody's any more where no service is left.
    pub(super) fn set_server(&mut self, key: &ServiceKey, server: Server) -> Result<(), DatapathError> {
        let done = if server == Server::default() {
            self.servers.remove(&key.to_bytes())
        } else {
            self.servers.insert(key.to_bytes(), server.to_bytes(), 0)
        };
        done.map_err(|error| DatapathError::kernel("cannot say whose backend a server is", &error))
    }

    /// Every server of mode `nat`, and whose backend it is.
    pub(super) fn servers(&self) -> Result<Vec<(ServiceKey, Server)>, DatapathError> {
        self.servers
            .iter()
            .map(|entry| entry.map(|(key, value)| (ServiceKey::from_bytes(&key), Server::from_bytes(&value))))
            .collect::<Result<_, _>>()
            .map_err(|error| DatapathError::kernel("cannot read the data plane's servers", &error))
    }

    /// Says what an address is used for; none: for nothing any more.
    pub(super) fn set_address(
        &mut self,
        address: Addr,
        used: Option<AddressUse>,
    ) -> Result<(), DatapathError> {
        let done = match used {
            Some(AddressUse(used)) => self.addresses.insert(address.0, used, 0),
            None => self.addresses.remove(&address.0),
        };
        done.map_err(|error| DatapathError::kernel("cannot say what an address is used for", &error))
    }

    /// Every address that is used for something, and what for.
    pub(super) fn addresses(&self) -> Result<Vec<(Addr, AddressUse)>, DatapathError> {
        self.addresses
            .iter()
            .map(|entry| entry.map(|(address, used)| (Addr(address), AddressUse(used))))
            .collect::<Result<_, _>>()
            .map_err(|error| DatapathError::kernel("cannot read what addresses are used for", &error))
    }

    /// Lets frames out by the interface in `slot`.
    pub(super) fn set_egress(&mut self, slot: u32, interface_index: u32) -> Result<(), DatapathError> {
        self.egress
            .set(slot, interface_index, None, 0)
            .map_err(|error| DatapathError::kernel("cannot register an interface for egress", &error))
    }

    /// Packets that came in by the interface in `slot`, by reason, summed over CPUs.
    pub(super) fn packets(&self, slot: u32) -> Result<Vec<(Reason, u64)>, DatapathError> {
        let read = |reason: &Reason| {
            let values = self.packets.get(&counter_index(slot, *reason), 0)?;
            Ok((*reason, values.iter().sum()))
        };
        Reason::ALL
            .iter()
            .map(read)
            .collect::<Result<_, aya::maps::MapError>>()
            .map_err(|error| DatapathError::kernel("cannot read the packet counters", &error))
    }

    /// One backend's counters, summed over CPUs.
    pub(super) fn backend_counters(&self, index: u32) -> Result<BackendCounters, DatapathError> {
        let values = self
            .backend_counters
            .get(&index, 0)
            .map_err(|error| DatapathError::kernel("cannot read a backend's counters", &error))?;
        let mut sum = [0u64; BACKEND_COUNTERS];
        for cpu in values.iter() {
            for (total, value) in sum.iter_mut().zip(cpu) {
                *total = total.wrapping_add(*value);
            }
        }
        Ok(sum)
    }

    /// Sets one backend's counters to zero on every CPU.
    pub(super) fn clear_backend_counters(&mut self, index: u32) -> Result<(), DatapathError> {
        let failed =
            |error: &dyn std::error::Error| DatapathError::kernel("cannot clear a backend's counters", error);
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| failed(&error))?;
        let zeroes = aya::maps::PerCpuValues::try_from(vec![[0u64; BACKEND_COUNTERS]; cpus])
            .map_err(|error| failed(&error))?;
        self.backend_counters.set(index, zeroes, 0).map_err(|error| failed(&error))
    }
}

fn open(path: &Path) -> Result<MapData, DatapathError> {
    MapData::from_pin(path).map_err(|error| {
        DatapathError::kernel(format!("cannot open the pinned map {}", path.display()), &error)
    })
}

fn check(path: &Path, name: &str, entries: u32, value_bytes: u32) -> Result<(), DatapathError> {
    let map = open(path)?;
    let info = map.info().map_err(|error| {
        DatapathError::kernel(format!("cannot inspect the map {}", path.display()), &error)
    })?;
    if info.max_entries() == entries && info.value_size() == value_bytes {
        return Ok(());
    }
    Err(DatapathError::Refused(format!(
        "the pinned map {} has {} entries of {} bytes where this build expects {entries} of {value_bytes} for {name}: \
         another program has made it; remove it with `flowgate detach --all`, or give the agent another pin_dir",
        path.display(),
        info.max_entries(),
        info.value_size(),
    )))
}

fn mapped<T: super::memory::Shared>(
    pins: &Pins,
    name: &str,
    entries: u32,
) -> Result<Memory<T>, DatapathError> {
    let map = open(&pins.map(name))?;
    Memory::map(map.fd(), entries)
        .map_err(|error| DatapathError::kernel(format!("cannot map {name} into memory"), &error))
}

fn typed<T: TryFrom<Map, Error = aya::maps::MapError>>(pins: &Pins, name: &str) -> Result<T, DatapathError> {
    let wrong = |error| DatapathError::kernel(format!("the pinned map {name} is of another type"), &error);
    let map = Map::from_map_data(open(&pins.map(name))?).map_err(wrong)?;
    T::try_from(map).map_err(wrong)
}
