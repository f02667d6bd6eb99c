//! `[[service]]` and its `[[service.backend]]`s.

use std::net::{IpAddr, SocketAddr};

use super::{address, fragments, health, options, tunnel};
use crate::{
    config::{
        entry::{BackendEntry, ServiceEntry},
        error::{Problem, Problems, Scope},
        together::Claim,
    },
    model::{Backend, Fragments, Mode, PanicAction, Refuse, Service, ServiceName},
    ring,
};

/// What came out of an entry.
pub(super) struct Draft {
    /// As far as it is valid: what other services must not have.
    pub(super) claim: Claim,
    /// The service, unless something was not valid.
    pub(super) service: Option<Service>,
}

/// Validates one service by itself.
pub(super) fn validate(entry: &ServiceEntry, scope: &Scope, problems: &mut Problems) -> Draft {
    let name = entry.name.parse::<ServiceName>().map_err(|cause| scope.problem("name", cause.to_string()));
    let name = problems.keep(name);
    let ip = problems.keep(address::unicast(&entry.address, "address", scope));
    let port = problems.keep(service_port(entry.port, scope));
    let options = options::validate(entry, ip, scope, problems);
    let health_scope = scope.part("health", ["health".into()]);
    let health = health::validate(entry.health.as_ref(), entry.protocol, &health_scope, problems);
    let mode = entry.mode.unwrap_or(Mode::FullNat);
    let backends = backends(&entry.backends, Front { ip, port, mode }, scope, problems);
    let front = ip.zip(port).map(|(ip, port)| SocketAddr::new(ip, port));
    let claim = Claim {
        scope: scope.clone(),
        name: entry.name.clone(),
        protocol: entry.protocol,
        address: front,
        mode,
        fragments: entry.fragments.unwrap_or(Fragments::FollowFirst),
        ring_slots: ring::size(backends.iter().flatten().map(|backend| backend.weight)),
        backends: backends.iter().map(|backend| backend.map(|backend| backend.address)).collect(),
    };
    let tunnel = tunnel::validate(entry, mode, scope, problems);
    let fragments = problems.keep(fragments::validate(entry, mode, scope));
    let whole = || {
        let (options, tunnel) = (options?, tunnel?);
        Some(Service {
            name: name?,
            address: front?,
            protocol: entry.protocol,
            mode,
            scheduler: options.scheduler,
            affinity_prefix: entry.affinity_prefix,
            idle_timeout: options.idle_timeout,
            half_open_timeout: options.half_open_timeout,
            closing_timeout: options.closing_timeout,
            on_down: options.on_down,
            refuse: entry.refuse.unwrap_or(Refuse::Drop),
            answer_ping: entry.answer_ping.unwrap_or(false),
            fragments: fragments?,
            slow_start: options.slow_start,
            panic_threshold: options.panic_threshold,
            panic_action: entry.panic_action.unwrap_or(PanicAction::All),
            failover_below: options.failover_below,
            tunnel_port: tunnel.port,
            tunnel_dont_fragment: tunnel.dont_fragment,
            health: health?,
            backends: backends.into_iter().collect::<Option<_>>()?,
        })
    };
    Draft { claim, service: whole() }
}

fn service_port(port: u16, scope: &Scope) -> Result<u16, Problem> {
    match port {
        0 => Err(scope.problem("port", "port = 0 is not a port: give the port that clients connect to")),
        port => Ok(port),
    }
}

/// What backends must agree with, as far as it is known.
#[derive(Clone, Copy)]
struct Front {
    ip: Option<IpAddr>,
    port: Option<u16>,
    mode: Mode,
}

/// The backends in the entries' order; none in the place of one that is not valid.
fn backends(
    entries: &[BackendEntry],
    front: Front,
    scope: &Scope,
    problems: &mut Problems,
) -> Vec<Option<Backend>> {
    let mut seen = std::collections::BTreeSet::new();
    let mut backends = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let scope = scope.part(&label(entry, index), ["backend".into(), index.into()]);
        let mut backend = backend(entry, front, &scope, problems);
        if let Some(twice) = backend.filter(|backend| !seen.insert(backend.address)) {
            let message = format!("{} is there twice: remove one, or give it another port", twice.address);
            problems.push(scope.problem("", message));
            backend = None;
        }
        backends.push(backend);
    }
    backends
}

fn label(entry: &BackendEntry, index: usize) -> String {
    match (entry.address.parse::<IpAddr>(), entry.port) {
        (Ok(ip), Some(port)) => format!("backend {}", SocketAddr::new(ip, port)),
        (Ok(ip), None) => format!("backend {ip}"),
        (Err(_), _) => format!("backend {}", index + 1),
    }
}

fn backend(entry: &BackendEntry, front: Front, scope: &Scope, problems: &mut Problems) -> Option<Backend> {
    let ip = address::unicast(&entry.address, "address", scope).and_then(|ip| same_version(ip, front, scope));
    let ip = problems.keep(ip);
    let port = problems.keep(backend_port(entry.port, front, scope));
    let weight = problems.keep(weight(entry.weight, scope));
    let priority = problems.keep(priority(entry.priority, scope));
    let address = SocketAddr::new(ip?, port??);
    Some(Backend { address, weight: weight?, priority: priority?, max_flows: entry.max_flows.unwrap_or(0) })
}

fn same_version(ip: IpAddr, front: Front, scope: &Scope) -> Result<IpAddr, Problem> {
    let version = |ip: IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    match front.ip {
        Some(service) if service.is_ipv4() != ip.is_ipv4() && !front.mode.is_tunnel() => {
            let (own, other) = (version(ip), version(service));
            let message = format!(
                "address = \"{ip}\" is {own} and the service is {other}: give an {other} address, make an {own} \
                 service, or use mode = \"ipip\" or \"gue\", which reach backends of the other version"
            );
            Err(scope.problem("address", message))
        }
        _ => Ok(ip),
    }
}

/// The port; none where it is the service's and that is not valid.
fn backend_port(port: Option<u16>, front: Front, scope: &Scope) -> Result<Option<u16>, Problem> {
    match (port, front.port) {
        (Some(0), _) => Err(scope.problem(
            "port",
            "port = 0 is not a port: leave it out to use the \
            service's",
        )),
        (Some(port), Some(service)) if !front.mode.rewrites_ports() && port != service => Err(scope.problem(
            "port",
            format!(
                "port = {port} is not the service's port {service}, and mode = \"{}\" cannot rewrite ports: use \
                 port = {service}, or mode = \"full-nat\" or \"nat\"",
                front.mode
            ),
        )),
        (port, service) => Ok(port.or(service)),
    }
}

fn weight(weight: Option<u16>, scope: &Scope) -> Result<u16, Problem> {
    let weight = weight.unwrap_or(Backend::DEFAULT_WEIGHT);
    match weight_fault(weight) {
        Some(message) => Err(scope.problem("weight", message)),
        None => Ok(weight),
    }
}

fn priority(priority: Option<u8>, scope: &Scope) -> Result<u8, Problem> {
    let (priority, max) = (priority.unwrap_or(0), Backend::MAX_PRIORITY);
    if priority <= max {
        return Ok(priority);
    }
    Err(scope.problem(
        "priority",
        format!("priority = {priority} is out of range: use 0, which is used first, to {max}"),
    ))
}

/// Why a weight is not one, where it is not.
pub(crate) fn weight_fault(weight: u16) -> Option<String> {
    let max = Backend::MAX_WEIGHT;
    (weight > max).then(|| format!("weight = {weight} is out of range: use 0 to {max}"))
}
