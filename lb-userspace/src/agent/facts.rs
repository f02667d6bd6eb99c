//! What is true of each backend at this moment: what probes say, where its packets would leave, and what follows.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use crate::{
    health::HealthEvent,
    model::{AdminState, AgentSettings, Desired, DesiredService, Health, Mode, ServiceName},
    neigh::{NextHop, NextHopEvent, Unresolved},
};

/// What has been learned.
#[derive(Debug, Default)]
pub(super) struct Facts {
    health: HashMap<(ServiceName, SocketAddr), HealthEvent>,
    next_hops: HashMap<IpAddr, Result<NextHop, Unresolved>>,
    /// Slots of the interfaces that the data plane is attached to, by index.
    pub(super) slots: HashMap<u32, u32>,
    /// full-nat's source addresses, where the operator has named some.
    pub(super) sources: Vec<IpAddr>,
    /// The networks that `ipip` sends from, where the operator has named some.
    pub(super) ipip_sources: Vec<IpNet>,
}

/// A backend as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The weight in force.
    pub(super) weight: u16,
    /// The admin state in force.
    pub(super) admin_state: AdminState,
    /// What probes say, or `down` where there is no way to it.
    pub(super) health: Health,
    /// Why it is not up, in words.
    pub(super) reason: String,
    /// Where its packets leave, and by which slot.
    pub(super) next_hop: Option<(NextHop, u32)>,
    /// What is wrong with the way to it, whatever probes say.
    pub(super) way_problem: Option<String>,
    /// The addresses that it is spoken to from.
    pub(super) sources: Sources,
}

/// The addresses that a backend is spoken to from, where the mode changes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// In full-nat any of them, in tunnels the one.
    pub(super) addresses: Vec<IpAddr>,
    /// `ipip`: how many of the last bits are a flow's own.
    pub(super) host_bits: u8,
}

impl Sources {
    fn of(addresses: Vec<IpAddr>) -> Self {
        Self { addresses, host_bits: 0 }
    }
}

impl Standing {
    /// Whether it gets new flows.
    pub(super) fn is_active(&self) -> bool {
        self.health == Health::Up && self.admin_state == AdminState::Enabled && self.weight > 0
    }
}

impl Facts {
    /// Nothing but what the agent was started with.
    pub(super) fn new(slots: HashMap<u32, u32>, settings: &AgentSettings) -> Self {
        let (sources, ipip_sources) = (settings.source_addresses.clone(), settings.ipip_sources.clone());
        Self { slots, sources, ipip_sources, ..Self::default() }
    }

    /// Takes note of a verdict.
    pub(super) fn on_health(&mut self, event: HealthEvent) {
        self.health.insert((event.service.clone(), event.backend), event);
    }

    /// Takes note of a next hop.
    pub(super) fn on_next_hop(&mut self, event: NextHopEvent) {
        self.next_hops.insert(event.address, event.result);
    }

    /// Forgets what nobody wants any more.
    pub(super) fn retain(&mut self, desired: &Desired) {
        self.health.retain(|(service, backend), _| {
            desired.services.get(service).is_some_and(|entry| entry.service.backend(*backend).is_some())
        });
        let addresses = backend_addresses(desired);
        self.next_hops.retain(|address, _| addresses.contains(address));
    }

    /// Whether there is a word, good or bad, on the health and the next hop of every backend.
    pub(super) fn are_complete(&self, desired: &Desired) -> bool {
        desired.services.values().all(|entry| {
            entry.service.backends.iter().all(|backend| {
                let name = (entry.service.name.clone(), backend.address);
                self.health.contains_key(&name) && self.next_hops.contains_key(&backend.address.ip())
            })
        })
    }

    /// How a backend stands.
    pub(super) fn standing(
        &self,
        desired: &Desired,
        entry: &DesiredService,
        backend: SocketAddr,
    ) -> Standing {
        let verdict = self.health.get(&(entry.service.name.clone(), backend));
        let (mut health, mut reason) = match verdict {
            Some(event) => (event.health, event.reason.clone()),
            None => (Health::Checking, "not probed yet".to_owned()),
        };
        let way = self.way(entry.service.mode, backend.ip());
        let sources = match &way {
            Ok((next_hop, _)) => self.sources_towards(desired, entry.service.mode, backend.ip(), next_hop),
            Err(_) => Ok(Sources::default()),
        };
        let (next_hop, way_problem, sources) = match (way, sources) {
            (Ok(way), Ok(sources)) => (Some(way), None, sources),
            (Ok(way), Err(problem)) => (Some(way), Some(problem), Sources::default()),
            (Err(problem), _) => (None, Some(problem), Sources::default()),
        };
        if let Some(problem) = &way_problem {
            health = if problem.pending { Health::Checking } else { Health::Down };
            reason.clone_from(&problem.reason);
        }
        Standing {
            weight: entry.weight(backend),
            admin_state: entry.admin_state(backend),
            health,
            reason,
            next_hop,
            way_problem: way_problem.map(|problem| problem.reason),
            sources,
        }
    }

    /// Where packets for an address leave, or why they cannot.
    fn way(&self, mode: Mode, address: IpAddr) -> Result<(NextHop, u32), Unresolved> {
        let next_hop = match self.next_hops.get(&address) {
            Some(known) => known.as_ref().map_err(Clone::clone)?,
            None => return Err(Unresolved::pending(format!("the next hop to {address} is not known yet"))),
        };
        let interface = &next_hop.interface;
        let Some(slot) = self.slots.get(&next_hop.ifindex) else {
            return Err(Unresolved::settled(format!(
                "{address} is reached by {interface}, which Flowgate is not attached to: add \"{interface}\" to agent.interfaces and start the agent again"
            )));
        };
        if mode == Mode::Dsr && !next_hop.on_link {
            return Err(Unresolved::settled(format!(
                "{address} is behind the router {}, and dsr reaches only backends on the same network: use mode full-nat, ipip or gue",
                next_hop.gateway
            )));
        }
        Ok((next_hop.clone(), *slot))
    }

    /// The addresses that a backend is spoken to from.
    fn sources_towards(
        &self,
        desired: &Desired,
        mode: Mode,
        backend: IpAddr,
        next_hop: &NextHop,
    ) -> Result<Sources, Unresolved> {
        let is_v4 = backend.is_ipv4();
        match mode {
            Mode::Nat | Mode::Dsr => Ok(Sources::default()),
            Mode::FullNat => {
                let named = self.sources.iter().filter(|address| address.is_ipv4() == is_v4);
                let named: Vec<_> = named.copied().collect();
                if !named.is_empty() {
                    return Ok(Sources::of(named));
                }
                own_source(desired, next_hop)
            }
            Mode::Ipip => match self.ipip_sources.iter().find(|network| network.addr().is_ipv4() == is_v4) {
                Some(network) => Ok(Sources {
                    addresses: vec![network.network()],
                    host_bits: network.max_prefix_len() - network.prefix_len(),
                }),
                None => outer_source(next_hop),
            },
            Mode::Gue => outer_source(next_hop),
        }
    }
}

/// The address that tunnels to a backend begin at: this machine's own, to which nothing comes back.
fn outer_source(next_hop: &NextHop) -> Result<Sources, Unresolved> {
    next_hop.source.map(|source| Sources::of(vec![source])).ok_or_else(|| {
        Unresolved::settled(format!(
            "{} has no address to send to it from: give it one of its IP version",
            next_hop.interface
        ))
    })
}

/// The address that this machine itself would speak to a backend from.
fn own_source(desired: &Desired, next_hop: &NextHop) -> Result<Sources, Unresolved> {
    let interface = &next_hop.interface;
    match next_hop.source {
        Some(source) if is_service_address(desired, source) => Err(Unresolved::settled(format!(
            "this machine would speak to it from {source}, which is a service's address, so that answers would not come back: keep it from being chosen with `ip address change {source} dev {interface} preferred_lft 0`, or name agent.source_addresses"
        ))),
        Some(source) => Ok(Sources::of(vec![source])),
        None => Err(Unresolved::settled(format!(
            "{interface} has no address to speak to it from: give it one, or name agent.source_addresses"
        ))),
    }
}

fn is_service_address(desired: &Desired, address: IpAddr) -> bool {
    desired.services.values().any(|entry| entry.service.address.ip() == address)
}

/// The addresses of all backends.
pub(super) fn backend_addresses(desired: &Desired) -> BTreeSet<IpAddr> {
    let backends = desired.services.values().flat_map(|entry| &entry.service.backends);
    backends.map(|backend| backend.address.ip()).collect()
}
