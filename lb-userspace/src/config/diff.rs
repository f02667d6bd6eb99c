//! What differs between two desired states, in words.

use std::{collections::BTreeSet, fmt, net::SocketAddr};

use super::{render::health_to_entry, validate::format_duration};
use crate::model::{Desired, DesiredService, HealthCheck, Probe, ServiceName};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A service is there that was not, with its backends.
    ServiceAdded(ServiceName),
    /// A service is gone, with its backends.
    ServiceRemoved(ServiceName),
    /// A field of a service.
    ServiceChanged(ServiceName, Field),
    /// A backend is there that was not.
    BackendAdded(ServiceName, SocketAddr),
    /// A backend is gone.
    BackendRemoved(ServiceName, SocketAddr),
    /// A field of a backend.
    BackendChanged(ServiceName, SocketAddr, Field),
}

/// A field with what it was and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, as the file has it.
    pub name: &'static str,
    /// What it was.
    pub old: String,
    /// What it is.
    pub new: String,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, old, new } = self;
        write!(f, "{name} {old} -> {new}")
    }
}

impl Change {
    /// The service that it is about.
    #[must_use]
    pub const fn service(&self) -> &ServiceName {
        match self {
            Self::ServiceAdded(service)
            | Self::ServiceRemoved(service)
            | Self::ServiceChanged(service, _)
            | Self::BackendAdded(service, _)
            | Self::BackendRemoved(service, _)
            | Self::BackendChanged(service, _, _) => service,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceAdded(service) => write!(f, "service {service} added"),
            Self::ServiceRemoved(service) => write!(f, "service {service} removed"),
            Self::ServiceChanged(service, field) => write!(f, "service {service}: {field}"),
            Self::BackendAdded(service, backend) => write!(f, "backend {service} {backend} added"),
            Self::BackendRemoved(service, backend) => write!(f, "backend {service} {backend} removed"),
            Self::BackendChanged(service, backend, field) => {
                write!(f, "backend {service} {backend}: {field}")
            }
        }
    }
}

/// What has changed from `old` to `new`, by service. Where a service was declared, and the order of its
/// backends, make no difference.
#[must_use]
pub fn diff(old: &Desired, new: &Desired) -> Vec<Change> {
    let names: BTreeSet<&ServiceName> = old.services.keys().chain(new.services.keys()).collect();
    let mut changes = Vec::new();
    for name in names {
        match (old.services.get(name), new.services.get(name)) {
            (Some(old), Some(new)) => service(name, old, new, &mut changes),
            (Some(_), None) => changes.push(Change::ServiceRemoved(name.clone())),
            (None, Some(_)) => changes.push(Change::ServiceAdded(name.clone())),
            (None, None) => {}
        }
    }
    changes
}

fn service(name: &ServiceName, old: &DesiredService, new: &DesiredService, changes: &mut Vec<Change>) {
    let mut fields = differing(service_fields(old), service_fields(new));
    let probed = |of: &DesiredService| of.service.health.probe != Probe::None;
    if probed(old) != probed(new) {
        // Everything else of the check comes or goes with it.
        fields.retain(|field| field.name == "health.type" || !field.name.starts_with("health."));
    }
    changes.extend(fields.into_iter().map(|field| Change::ServiceChanged(name.clone(), field)));
    let addresses = |of: &DesiredService| -> BTreeSet<SocketAddr> {
        of.service.backends.iter().map(|backend| backend.address).collect()
    };
    let (was, is) = (addresses(old), addresses(new));
    for address in was.union(&is).copied() {
        match (was.contains(&address), is.contains(&address)) {
            (true, true) => {
                let mut fields = differing(backend_fields(old, address), backend_fields(new, address));
                // It matters only where an override hides it.
                if fields.iter().any(|field| field.name == "weight") {
                    fields.retain(|field| field.name != "declared weight");
                }
                let changed = |field| Change::BackendChanged(name.clone(), address, field);
                changes.extend(fields.into_iter().map(changed));
            }
            (true, false) => changes.push(Change::BackendRemoved(name.clone(), address)),
            (false, _) => changes.push(Change::BackendAdded(name.clone(), address)),
        }
    }
}

/// Fields in an order that is the same for all of their kind.
type Fields = Vec<(&'static str, String)>;

fn differing(old: Fields, new: Fields) -> Vec<Field> {
    let both = old.into_iter().zip(new).filter(|(old, new)| old.1 != new.1);
    both.map(|((name, old), (_, new))| Field { name, old, new }).collect()
}

fn service_fields(desired: &DesiredService) -> Fields {
    let service = &desired.service;
    let mut fields = vec![
        ("address", service.address.to_string()),
        ("protocol", service.protocol.to_string()),
        ("mode", service.mode.to_string()),
        ("scheduler", service.scheduler.to_string()),
        ("affinity_prefix", service.affinity_prefix.map_or("unset".to_owned(), |bits| bits.to_string())),
        ("idle_timeout", format_duration(service.idle_timeout)),
        ("half_open_timeout", format_duration(service.half_open_timeout)),
        ("closing_timeout", format_duration(service.closing_timeout)),
        ("on_down", service.on_down.to_string()),
        ("refuse", service.refuse.to_string()),
        ("answer_ping", service.answer_ping.to_string()),
        ("fragments", service.fragments.to_string()),
        ("slow_start", format_duration(service.slow_start)),
        ("panic_threshold", service.panic_threshold.to_string()),
        ("panic_action", service.panic_action.to_string()),
        ("failover_below", service.failover_below.to_string()),
        ("tunnel_port", service.tunnel_port.to_string()),
        ("tunnel_dont_fragment", service.tunnel_dont_fragment.to_string()),
    ];
    fields.extend(health_fields(&service.health));
    fields
}

fn health_fields(health: &HealthCheck) -> Fields {
    let entry = health_to_entry(health);
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let text = |text: Option<String>| text.unwrap_or_else(|| "unset".to_owned());
    vec![
        ("health.type", entry.kind.as_str().to_owned()),
        ("health.path", text(entry.path)),
        ("health.host", text(entry.host)),
        ("health.expect_status", text(entry.expect_status)),
        ("health.interval", text(entry.interval)),
        ("health.timeout", text(entry.timeout)),
        ("health.rise", text(number(entry.rise))),
        ("health.fall", text(number(entry.fall))),
        ("health.port", text(number(entry.port.map(u32::from)))),
    ]
}

fn backend_fields(service: &DesiredService, address: SocketAddr) -> Fields {
    let backend = service.service.backend(address);
    let declared = backend.map_or(0, |backend| backend.weight);
    let bound = match backend.map_or(0, |backend| backend.max_flows) {
        0 => "unset".to_owned(),
        max_flows => max_flows.to_string(),
    };
    vec![
        ("priority", backend.map_or(0, |backend| backend.priority).to_string()),
        ("max_flows", bound),
        ("weight", service.weight(address).to_string()),
        ("declared weight", declared.to_string()),
        ("admin_state", service.admin_state(address).to_string()),
    ]
}

#[cfg(test)]
mod tests;
