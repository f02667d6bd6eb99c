use std::path::Path;

use proptest::prelude::*;

use super::{health_to_entry, render, service_to_entry};
use crate::{
    api::schema::BackendChange,
    config::{
        edit,
        error::ConfigError,
        testing::{any_desired, in_file, service},
        validate::{read, validate_service},
    },
    model::{AdminState, AgentSettings, AttachMode, Backend, Desired, InterfaceSettings, Limits, Service},
};

fn settings() -> AgentSettings {
    let interface = |name: &str, mode| InterfaceSettings { name: name.to_owned(), mode };
    AgentSettings {
        interfaces: vec![interface("eth0", AttachMode::Auto), interface("ens\"3", AttachMode::Generic)],
        socket: "/run/flowgate/flow \"gate\".sock".into(),
        state_dir: "/var/lib/flowgate\\x".into(),
        pin_dir: "/sys/fs/bpf/flowgate".into(),
        source_addresses: vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        ipip_sources: vec!["10.99.0.0/16".parse().unwrap(), "fd00:99::/64".parse().unwrap()],
        debug_packets: true,
    }
}

#[test]
fn what_is_in_force_is_shown_with_where_it_comes_from() {
    let file = vec![(service("web", "10.1.0.10", &["10.2.0.11", "10.2.0.12"]), in_file(12))];
    let desired = edit::replace_file_services(&Desired::default(), file, &Limits::default()).unwrap();
    let change = BackendChange {
        weight: Some(20),
        admin_state: Some(AdminState::Draining),
        ..BackendChange::default()
    };
    let backend = "10.2.0.11:8080".parse().unwrap();
    let desired = edit::set_backend(&desired, &"web".parse().unwrap(), backend, change).unwrap();
    let expected = r#"
[[service]]
# declared in /etc/flowgate.toml, line 12
name = "web"
address = "10.1.0.10"
port = 80
protocol = "tcp"
mode = "full-nat"
scheduler = "maglev"
idle_timeout = "5m"
half_open_timeout = "1m"
closing_timeout = "1m"
on_down = "keep"
refuse = "drop"
answer_ping = false
fragments = "follow-first"
slow_start = "0s"
panic_threshold = 0
panic_action = "all"
failover_below = 50

[service.health]
type = "tcp"
interval = "2s"
timeout = "1s"
rise = 2
fall = 3

[[service.backend]]
# weight overridden at run time; declared: 10
# draining at run time: not a part of this file
address = "10.2.0.11"
port = 8080
weight = 20
priority = 0

[[service.backend]]
address = "10.2.0.12"
port = 8080
weight = 10
priority = 0
"#;
    let shown = render(&settings(), &Limits::default(), &desired);
    assert!(shown.ends_with(expected), "{shown}");
}

/// The services with the weights in force.
fn in_force(desired: &Desired) -> Vec<Service> {
    let weigh = |entry: &crate::model::DesiredService| {
        let mut service = entry.service.clone();
        for backend in &mut service.backends {
            *backend = Backend { weight: entry.weight(backend.address), ..*backend };
        }
        service
    };
    desired.services.values().map(weigh).collect()
}

proptest! {
    #[test]
    fn what_is_shown_is_read_as_the_same(desired in any_desired(), flows in 1024_u32..=134_217_728) {
        let limits = Limits { flows, ..Limits::default() };
        let text = render(&settings(), &limits, &desired);
        let failed = |error: ConfigError| TestCaseError::fail(error.to_string());
        let config = read(&text, Path::new("shown.toml")).map_err(failed)?;
        prop_assert_eq!(config.agent, settings());
        prop_assert_eq!(config.limits, limits);
        let services: Vec<Service> = config.services.into_iter().map(|(service, _)| service).collect();
        prop_assert_eq!(services, in_force(&desired));
    }

    #[test]
    fn entries_are_the_same_service_again(desired in any_desired()) {
        for entry in desired.services.values() {
            let written = service_to_entry(&entry.service);
            prop_assert_eq!(written.health.as_ref(), Some(&health_to_entry(&entry.service.health)));
            prop_assert_eq!(&validate_service(&written).unwrap(), &entry.service);
        }
    }
}
