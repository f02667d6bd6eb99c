//! What services must not be to each other: one rule for the file, for commands, and for both together.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use lb_common::server::SERVER_SERVICES;

use super::error::{Problem, Scope};
use crate::{
    model::{Desired, DesiredService, Fragments, Limits, Mode, Origin, Protocol, Service},
    ring,
};

/// What a service has that others must not.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) scope: Scope,
    pub(super) name: String,
    pub(super) protocol: Protocol,
    /// None where it is not valid.
    pub(super) address: Option<SocketAddr>,
    /// How its packets are forwarded.
    pub(super) mode: Mode,
    /// How its packets in parts are steered.
    pub(super) fragments: Fragments,
    /// In their order; none in the place of one that is not valid.
    pub(super) backends: Vec<Option<SocketAddr>>,
    /// The size of its ring.
    pub(super) ring_slots: u32,
}

impl Claim {
    fn of(service: &Service, origin: &Origin) -> Self {
        Self {
            scope: scope(service.name.as_str(), origin),
            name: service.name.to_string(),
            protocol: service.protocol,
            address: Some(service.address),
            mode: service.mode,
            fragments: service.fragments,
            backends: service.backends.iter().map(|backend| Some(backend.address)).collect(),
            ring_slots: ring::size(service.backends.iter().map(|backend| backend.weight)),
        }
    }
}

/// What a service is called in messages, with its place where it has one.
pub(super) fn scope(name: &str, origin: &Origin) -> Scope {
    let place = match origin {
        Origin::File { path, line } => Some(format!("{} line {line}", path.display())),
        Origin::Cli => None,
    };
    Scope::service(name, place.as_deref(), None)
}

/// Every clash among the services of `desired`. `suspects` are those that have just changed: of two that
/// clash, the message is about them.
pub(super) fn check<'a>(
    desired: &'a Desired,
    suspects: impl Fn(&DesiredService) -> bool,
    limits: &Limits,
) -> Vec<Problem> {
    let (changed, others): (Vec<&'a DesiredService>, Vec<_>) =
        desired.services.values().partition(|service| suspects(service));
    let claims: Vec<Claim> =
        others.into_iter().chain(changed).map(|entry| Claim::of(&entry.service, &entry.origin)).collect();
    clashes(&claims, limits)
}

/// Every clash among services; of two that clash, the message is about the later one.
pub(super) fn clashes(claims: &[Claim], limits: &Limits) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut names: HashMap<&str, &Claim> = HashMap::new();
    let mut addresses: BTreeMap<(SocketAddr, Protocol), &Claim> = BTreeMap::new();
    for claim in claims {
        if let Some(first) = names.get(claim.name.as_str()) {
            let message = format!("the name is also that of {}: choose another", first.scope.subject());
            problems.push(claim.scope.problem("name", message));
        }
        names.entry(&claim.name).or_insert(claim);
        let Some(address) = claim.address else { continue };
        if let Some(first) = addresses.get(&(address, claim.protocol)) {
            let (protocol, first) = (claim.protocol, first.scope.subject());
            let message = format!(
                "address {address} and protocol {protocol} are also those of {first}: change or remove one"
            );
            problems.push(claim.scope.problem("address", message));
        }
        addresses.entry((address, claim.protocol)).or_insert(claim);
    }
    for claim in claims {
        for (index, backend) in claim.backends.iter().enumerate() {
            let Some(backend) = backend else { continue };
            let Some(service) = addresses.get(&(*backend, claim.protocol)) else { continue };
            let scope = claim.scope.part(&format!("backend {backend}"), ["backend".into(), index.into()]);
            let owner = if service.name == claim.name { "this service" } else { service.scope.subject() };
            let message = format!(
                "address is the one that clients of {owner} connect to, so packets would go round in a \
                 loop: give the server's own address"
            );
            problems.push(scope.problem("address", message));
        }
    }
    problems.extend(shared_fragments(claims));
    problems.extend(crowded_servers(claims));
    problems.extend(overruns(claims, limits));
    problems
}

/// Services that share the address of one whose parts of packets go by it: parts have no port to tell them apart by.
fn shared_fragments(claims: &[Claim]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, claim) in
        claims.iter().enumerate().filter(|(_, claim)| claim.fragments == Fragments::ByAddress)
    {
        let Some(address) = claim.address else { continue };
        let shares = |(at, other): &(usize, &Claim)| {
            *at != index
                && other.protocol == claim.protocol
                && other.address.is_some_and(|other| other.ip() == address.ip())
        };
        if let Some((_, other)) = claims.iter().enumerate().find(shares) {
            let message = format!(
                "fragments = \"by-address\" takes all parts of packets for {}, and {} has the same address; parts have no \
                 port: use \"follow-first\", or another address",
                address.ip(),
                other.scope.subject()
            );
            problems.push(claim.scope.problem("fragments", message));
        }
    }
    problems
}

/// Mode `nat`: servers that are backends of more services than the data plane tells apart.
fn crowded_servers(claims: &[Claim]) -> Vec<Problem> {
    let mut services: BTreeMap<(SocketAddr, Protocol), usize> = BTreeMap::new();
    let mut problems = Vec::new();
    for claim in claims.iter().filter(|claim| claim.mode == Mode::Nat) {
        for (index, backend) in claim.backends.iter().enumerate() {
            let Some(backend) = backend else { continue };
            let count = services.entry((*backend, claim.protocol)).or_default();
            *count += 1;
            if *count > SERVER_SERVICES {
                let scope = claim.scope.part(&format!("backend {backend}"), ["backend".into(), index.into()]);
                let message = format!(
                    "address {backend} is a backend of {count} services of mode = \"nat\", and answers of one server are \
                     told apart for {SERVER_SERVICES} at most: use mode = \"full-nat\" for some, or another port of the server"
                );
                problems.push(scope.problem("address", message));
            }
        }
    }
    problems
}

fn overruns(claims: &[Claim], limits: &Limits) -> Vec<Problem> {
    let scope = Scope::section("limits");
    let over = |field: &str, needed: usize, what: &str, limit: u32| {
        let message = format!(
            "{field} = {limit} is not enough for {needed} {what}: raise it under [limits], which takes \
             effect when the agent is started anew"
        );
        (needed > limit as usize).then(|| scope.problem(field, message))
    };
    let rings = || claims.iter().map(|claim| claim.ring_slots as usize);
    // A new ring is written beside the old one.
    let slots = rings().sum::<usize>() + rings().max().unwrap_or(0);
    let backends = claims.iter().map(|claim| claim.backends.len()).sum();
    [
        over("services", claims.len(), "services", limits.services),
        over("backends", backends, "backends of all services", limits.backends),
        over("ring_slots", slots, "slots of all rings", limits.ring_slots),
    ]
    .into_iter()
    .flatten()
    .collect()
}
