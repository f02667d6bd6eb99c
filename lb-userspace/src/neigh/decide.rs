//! What routes, links and neighbours mean for an address: pure, no I/O, no clock.

use std::{net::IpAddr, time::Duration};

use super::{
    Mac, NextHop, Unresolved,
    links::Link,
    tables::{Neighbour, NeighbourState, Tables},
};

/// The kernel's route to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// What becomes of packets to it.
    pub(super) kind: RouteKind,
    /// The egress interface's index.
    pub(super) ifindex: u32,
    /// The router; none where the address is on-link.
    pub(super) gateway: Option<IpAddr>,
    /// The address that the kernel would send from.
    pub(super) source: Option<IpAddr>,
    /// The route's own MTU.
    pub(super) mtu: Option<u32>,
}

/// What becomes of packets that a route matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteKind {
    /// Sent to one machine.
    Unicast,
    /// Handed to this machine itself.
    Local,
    /// Sent to many machines.
    Broadcast,
    /// Anything else.
    Other,
}

/// Why the kernel has no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// None matches, or the one that does says that the network is unreachable.
    None,
    /// A route forbids it: its type.
    Forbidden(&'static str),
    /// The kernel could not be asked.
    Failed(String),
}

/// What is known of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// Its next hop, or why there is none.
    pub(super) result: Result<NextHop, Unresolved>,
    /// The neighbour that its packets go to, interface and address, where a route leads to one.
    pub(super) neighbour: Option<(u32, IpAddr)>,
}

impl Decision {
    fn unresolved(reason: String, neighbour: Option<(u32, IpAddr)>) -> Self {
        Self { result: Err(Unresolved::settled(reason)), neighbour }
    }
}

/// The next hop of `address`. `before` is what was decided last.
///
/// While the kernel asks for a MAC address, the one that was known before stays in use, as the kernel's own
/// packets would wait no longer than that: only a question without an answer takes a next hop away.
pub(super) fn decide(
    address: IpAddr,
    route: &Result<Route, NoRoute>,
    tables: &Tables,
    before: Option<&Result<NextHop, Unresolved>>,
) -> Decision {
    if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        let reason = format!(
            "{address} is link-local, so it names no interface: use a global or unique-local address"
        );
        return Decision::unresolved(reason, None);
    }
    let route = match route {
        Ok(route) => route,
        Err(why) => return Decision::unresolved(no_route(address, why, tables), None),
    };
    match route.kind {
        RouteKind::Unicast => {}
        RouteKind::Local => {
            let reason = format!(
                "the route to {address} is local (the address is this machine's own): a backend is another machine"
            );
            return Decision::unresolved(reason, None);
        }
        RouteKind::Broadcast | RouteKind::Other => {
            let reason =
                format!("{address} is not the address of one machine: a backend has a unicast address");
            return Decision::unresolved(reason, None);
        }
    }
    let Some(link) = tables.links.get(&route.ifindex) else {
        let reason = format!("the interface that leads to {address} (index {}) is gone", route.ifindex);
        return Decision::unresolved(reason, None);
    };
    let source_mac = match usable(link) {
        Ok(mac) => mac,
        Err(reason) => return Decision::unresolved(reason, None),
    };
    let gateway = route.gateway.unwrap_or(address);
    let neighbour = Some((link.index, gateway));
    let via = |mac| NextHop {
        ifindex: link.index,
        interface: link.name.clone(),
        gateway,
        on_link: route.gateway.is_none(),
        mac,
        source_mac,
        source: route.source,
        mtu: route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
    };
    let entry = tables.neighbours.get(&(link.index, gateway));
    let silent = || Unresolved::settled(silent(address, gateway, link));
    let result = match trust(entry, source_mac) {
        Trust::Mac(mac) => Ok(via(mac)),
        Trust::Silent => Err(silent()),
        Trust::Pending => match before {
            Some(Ok(hop)) if (hop.ifindex, hop.gateway) == (link.index, gateway) => Ok(via(hop.mac)),
            Some(Err(said)) if *said == silent() => Err(silent()),
            _ => Err(Unresolved::pending(pending(address, gateway, link))),
        },
    };
    Decision { result, neighbour }
}

/// How long after the last request the kernel should be asked for this neighbour; none: it need not be.
///
/// - Without an entry nobody asks: at once, and again after a second in case the request was lost.
/// - A failed one is asked for again, which takes the kernel three seconds.
/// - The data plane's packets do not count as use, so an entry turns stale after half a minute though millions of
///   packets go there, and a backend that comes back with another MAC address would go unnoticed. A request turns
///   it to `delay`, then `probe`: one unicast question. So an entry is confirmed about twice a minute.
pub(super) fn ask_after(entry: Option<&Neighbour>) -> Option<Duration> {
    match entry {
        None => Some(Duration::from_secs(1)),
        Some(entry) if entry.kept => None,
        Some(entry) => match entry.state {
            NeighbourState::None => Some(Duration::from_secs(1)),
            NeighbourState::Failed => Some(Duration::from_secs(4)),
            NeighbourState::Stale => Some(Duration::from_secs(10)),
            NeighbourState::Incomplete
            | NeighbourState::Reachable
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::NoArp
            | NeighbourState::Permanent => None,
        },
    }
}

/// Whether a neighbour's MAC address can be used.
enum Trust {
    Mac(Mac),
    /// The question is open.
    Pending,
    /// It did not answer.
    Silent,
}

fn trust(entry: Option<&Neighbour>, own: Mac) -> Trust {
    let Some(entry) = entry else { return Trust::Pending };
    match entry.state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent => entry.mac.map_or(Trust::Silent, Trust::Mac),
        // On an interface that does not ask, the kernel enters the interface's own address: no way to anyone.
        NeighbourState::NoArp => match entry.mac {
            Some(mac) if mac != own => Trust::Mac(mac),
            Some(_) | None => Trust::Silent,
        },
        NeighbourState::None | NeighbourState::Incomplete => Trust::Pending,
        NeighbourState::Failed => Trust::Silent,
    }
}

/// The MAC address of a link that packets can leave by, or why they cannot.
fn usable(link: &Link) -> Result<Mac, String> {
    let name = &link.name;
    if !link.up {
        return Err(format!("interface {name} is down: `ip link set {name} up`"));
    }
    if !link.carrier {
        return Err(format!("interface {name} has no carrier: check its cable, or its peer"));
    }
    link.mac.ok_or_else(|| {
        format!("interface {name} is not an Ethernet interface: backends must be reached through one that is")
    })
}

fn no_route(address: IpAddr, why: &NoRoute, tables: &Tables) -> String {
    match why {
        NoRoute::None => {
            // The kernel removes a network's route with its interface, and then knows no reason any more.
            let down = tables.addresses.iter().find_map(|own| {
                let link = tables.links.get(&own.ifindex)?;
                (!link.up && own.network.contains(address)).then_some((link, own.network))
            });
            match down {
                Some((Link { name, .. }, network)) => format!(
                    "no route to {address}: interface {name}, which has {}/{}, is down: `ip link set {name} up`",
                    network.address, network.length
                ),
                None => {
                    format!("no route to {address}: add one, or give an interface an address in its network")
                }
            }
        }
        NoRoute::Forbidden(kind) => {
            format!("the route to {address} is of type {kind}: see `ip route get {address}`")
        }
        NoRoute::Failed(error) => format!("the kernel's route to {address} could not be looked up: {error}"),
    }
}

fn silent(address: IpAddr, gateway: IpAddr, link: &Link) -> String {
    let protocol = protocol(gateway);
    let interface = &link.name;
    if gateway == address {
        format!(
            "{address} does not answer {protocol} on {interface}: check that it is running and on that network"
        )
    } else {
        format!(
            "{gateway}, the gateway to {address}, does not answer {protocol} on {interface}: \
             check that it is running, or the route"
        )
    }
}

fn pending(address: IpAddr, gateway: IpAddr, link: &Link) -> String {
    let protocol = protocol(gateway);
    let interface = &link.name;
    if gateway == address {
        format!("waiting for {address} to answer {protocol} on {interface}")
    } else {
        format!("waiting for {gateway}, the gateway to {address}, to answer {protocol} on {interface}")
    }
}

fn protocol(neighbour: IpAddr) -> &'static str {
    match neighbour {
        IpAddr::V4(_) => "ARP",
        IpAddr::V6(_) => "neighbour discovery",
    }
}

#[cfg(test)]
mod tests;
