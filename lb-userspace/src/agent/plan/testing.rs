//! A service with two backends, and what may be true of them.

use std::{collections::HashMap, time::Instant};

use crate::{
    agent::facts::Facts,
    config::{entry::ServiceEntry, validate::validate_service},
    health::HealthEvent,
    model::{AgentSettings, Desired, DesiredService, Health, Origin},
    neigh::{self, NextHopEvent},
};

/// The service's backends.
pub(in crate::agent) const BACKENDS: [&str; 2] = ["10.2.0.11:80", "10.2.0.12:80"];

/// The service.
pub(in crate::agent) fn desired(mode: &str) -> Desired {
    let entry: ServiceEntry = serde_json::from_value(serde_json::json!({
        "name": "web", "address": "10.1.0.10", "port": 80, "protocol": "tcp", "mode": mode,
        "backend": [{ "address": "10.2.0.11" }, { "address": "10.2.0.12" }],
    }))
    .expect("a service");
    let service = validate_service(&entry).expect("a valid service");
    let name = service.name.clone();
    let entry = DesiredService { service, origin: Origin::Cli, overrides: std::collections::BTreeMap::new() };
    Desired { services: [(name, entry)].into() }
}

/// A way to either backend, by slot 3.
pub(in crate::agent) fn next_hop(on_link: bool) -> neigh::NextHop {
    neigh::NextHop {
        ifindex: 7,
        interface: "eth1".to_owned(),
        gateway: "10.2.0.11".parse().expect("an address"),
        on_link,
        mac: [2, 0, 0, 0, 0, 11],
        source_mac: [2, 0, 0, 0, 0, 1],
        source: Some("10.2.0.1".parse().expect("an address")),
        mtu: 1500,
    }
}

/// Both backends are reached, and their health is as said.
pub(in crate::agent) fn facts_of(desired: &Desired, health: [Health; 2]) -> Facts {
    let mut facts = Facts::new(HashMap::from([(7, 3)]), &AgentSettings::default());
    let service = desired.services.keys().next().expect("a service").clone();
    for (backend, health) in BACKENDS.into_iter().zip(health) {
        let backend: std::net::SocketAddr = backend.parse().expect("an address and a port");
        let reason = String::new();
        let at = Instant::now();
        facts.on_health(HealthEvent { service: service.clone(), backend, health, reason, at });
        facts.on_next_hop(NextHopEvent { address: backend.ip(), result: Ok(next_hop(true)) });
    }
    facts
}
