//! What is true of each backend at this moment: what probes say, where its packets would leave, and what follows.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::{
    health::HealthEvent,
    model::{AdminState, Desired, DesiredService, Health, Mode, ServiceName},
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
    /// Since when it has this health.
    pub(super) since: Option<Instant>,
    /// Where its packets leave, and by which slot.
    pub(super) next_hop: Option<(NextHop, u32)>,
    /// What is wrong with the way to it, whatever probes say.
    pub(super) way_problem: Option<String>,
    /// full-nat: the addresses that it is spoken to from.
    pub(super) sources: Vec<IpAddr>,
}

impl Standing {
    /// Whether it gets new flows.
    pub(super) fn is_active(&self) -> bool {
        self.health == Health::Up && self.admin_state == AdminState::Enabled && self.weight > 0
    }
}

impl Facts {
    /// Nothing but what the agent was started with.
    pub(super) fn new(slots: HashMap<u32, u32>, sources: Vec<IpAddr>) -> Self {
        Self { slots, sources, ..Self::default() }
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
            Ok((next_hop, _)) if entry.service.mode == Mode::FullNat => {
                self.sources_towards(desired, next_hop)
            }
            _ => Ok(Vec::new()),
        };
        let (next_hop, way_problem, sources) = match (way, sources) {
            (Ok(way), Ok(sources)) => (Some(way), None, sources),
            (Ok(way), Err(problem)) => (Some(way), Some(problem), Vec::new()),
            (Err(problem), _) => (None, Some(problem), Vec::new()),
        };
        if let Some(problem) = &way_problem {
            health = Health::Down;
            reason.clone_from(problem);
        }
        Standing {
            weight: entry.weight(backend),
            admin_state: entry.admin_state(backend),
            health,
            reason,
            since: verdict.map(|event| event.at),
            next_hop,
            way_problem,
            sources,
        }
    }

    /// Where packets for an address leave, or why they cannot.
    fn way(&self, mode: Mode, address: IpAddr) -> Result<(NextHop, u32), String> {
        let next_hop = match self.next_hops.get(&address) {
            Some(Ok(next_hop)) => next_hop,
            Some(Err(Unresolved(reason))) => return Err(reason.clone()),
            None => return Err(format!("the next hop to {address} is not known yet")),
        };
        let interface = &next_hop.interface;
        let Some(slot) = self.slots.get(&next_hop.ifindex) else {
            return Err(format!(
                "{address} is reached by {interface}, which Flowgate is not attached to: add \"{interface}\" to agent.interfaces and start the agent again"
            ));
        };
        if mode == Mode::Dsr && !next_hop.on_link {
            return Err(format!(
                "{address} is behind the router {}, and dsr reaches only backends on the same network: use mode full-nat",
                next_hop.gateway
            ));
        }
        Ok((next_hop.clone(), *slot))
    }

    /// The addresses that full-nat may speak to a backend from.
    fn sources_towards(&self, desired: &Desired, next_hop: &NextHop) -> Result<Vec<IpAddr>, String> {
        let same_version = |address: &&IpAddr| address.is_ipv4() == next_hop.gateway.is_ipv4();
        let named: Vec<_> = self.sources.iter().filter(same_version).copied().collect();
        if !named.is_empty() {
            return Ok(named);
        }
        let interface = &next_hop.interface;
        match next_hop.source {
            Some(source) if is_service_address(desired, source) => Err(format!(
                "this machine would speak to it from {source}, which is a service's address, so that answers would not come back: keep it from being chosen with `ip address change {source} dev {interface} preferred_lft 0`, or name agent.source_addresses"
            )),
            Some(source) => Ok(vec![source]),
            None => Err(format!(
                "{interface} has no address to speak to it from: give it one, or name agent.source_addresses"
            )),
        }
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
