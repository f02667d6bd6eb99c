//! Made-up configurations for tests.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use proptest::prelude::*;

use super::{
    edit,
    entry::{BackendEntry, ServiceEntry},
    validate::validate_service,
};
use crate::{
    api::schema::BackendChange,
    model::{
        AdminState, Backend, Desired, Fragments, HealthCheck, HttpCheck, Limits, Mode, OnDown, Origin,
        PanicAction, Probe, Protocol, Refuse, Scheduler, Service, TunnelDontFragment,
    },
};

/// A small valid entry with backends at these addresses.
pub(crate) fn entry(name: &str, address: &str, backends: &[&str]) -> ServiceEntry {
    ServiceEntry {
        name: name.to_owned(),
        address: address.to_owned(),
        port: 80,
        protocol: Protocol::Tcp,
        mode: None,
        scheduler: None,
        affinity_prefix: None,
        idle_timeout: None,
        half_open_timeout: None,
        closing_timeout: None,
        on_down: None,
        refuse: None,
        answer_ping: None,
        fragments: None,
        slow_start: None,
        panic_threshold: None,
        panic_action: None,
        failover_below: None,
        tunnel_port: None,
        tunnel_dont_fragment: None,
        health: None,
        backends: backends
            .iter()
            .map(|address| BackendEntry {
                address: (*address).to_owned(),
                port: Some(8080),
                weight: None,
                priority: None,
                max_flows: None,
            })
            .collect(),
    }
}

/// A small valid service with backends at these addresses, port 8080.
pub(crate) fn service(name: &str, address: &str, backends: &[&str]) -> Service {
    validate_service(&entry(name, address, backends)).unwrap()
}

/// Declared in the file, at this line.
pub(crate) fn in_file(line: usize) -> Origin {
    Origin::File { path: PathBuf::from("/etc/flowgate.toml"), line }
}

fn any_health(protocol: Protocol) -> impl Strategy<Value = HealthCheck> {
    let http = (
        "(/[a-z0-9._~%20-]{0,8}){1,3}(\\?[a-z=&]{0,8})?",
        prop::option::of("[a-z0-9.-]{1,20}(:[0-9]{1,5})?"),
    )
        .prop_flat_map(|(path, host)| (Just(path), Just(host), 100_u16..=599))
        .prop_flat_map(|(path, host, low)| (Just(path), Just(host), Just(low), low..=599))
        .prop_map(|(path, host, low, high)| {
            Probe::Http(HttpCheck { path, host, expect_status: (low, high) })
        });
    let probe = prop_oneof![Just(Probe::None), Just(Probe::Tcp), http];
    let times = (10_u64..=3_600_000).prop_flat_map(|interval| (Just(interval), 1..=interval));
    let port = match protocol {
        Protocol::Tcp => prop::option::of(1_u16..).boxed(),
        Protocol::Udp => (1_u16..).prop_map(Some).boxed(),
    };
    (probe, times, 1_u32..=100, 1_u32..=100, port).prop_map(|(probe, times, rise, fall, port)| {
        if probe == Probe::None {
            return HealthCheck {
                probe,
                interval: HealthCheck::DEFAULT_INTERVAL,
                timeout: HealthCheck::DEFAULT_TIMEOUT,
                rise: HealthCheck::DEFAULT_RISE,
                fall: HealthCheck::DEFAULT_FALL,
                port: None,
            };
        }
        let (interval, timeout) = (Duration::from_millis(times.0), Duration::from_millis(times.1));
        HealthCheck { probe, interval, timeout, rise, fall, port }
    })
}

/// A valid service whose name, address and backends no service of another `number` has.
fn any_service(number: u8) -> impl Strategy<Value = Service> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let backend = (1_u8..=20, 1_u16..=3, 0_u16..=Backend::MAX_WEIGHT);
    let shape = (any::<bool>(), any::<bool>(), 1_u16.., 1_u64..=36_000, prop::collection::vec(backend, 0..6));
    protocol.prop_flat_map(move |protocol| {
        (any_health(protocol), shape.clone()).prop_map(
            move |(health, (v6, dsr, port, idle_seconds, hosts))| {
                let at = |net: u8, host: u8, port: u16| {
                    let text = if v6 {
                        format!("[2001:db8:{net}:{number}::{host}]")
                    } else {
                        format!("10.{net}.{number}.{host}")
                    };
                    format!("{text}:{port}").parse::<SocketAddr>().unwrap()
                };
                let mut backends: Vec<Backend> = hosts
                    .into_iter()
                    .map(|(host, offset, weight)| {
                        let port = if dsr { port } else { 8080 + offset };
                        // Drawn from what is drawn already: what counts is that they differ.
                        let (priority, max_flows) = (host % 3, u32::from(offset - 1) * 1000);
                        Backend { address: at(2, host, port), weight, priority, max_flows }
                    })
                    .collect();
                let mut seen = std::collections::BTreeSet::new();
                backends.retain(|backend| seen.insert(backend.address));
                let tcp = protocol == Protocol::Tcp;
                let mode = match (dsr, idle_seconds % 3) {
                    (true, 0) => Mode::Dsr,
                    (true, 1) => Mode::Ipip,
                    (true, _) => Mode::Gue,
                    (false, _) => Mode::FullNat,
                };
                let seconds = |modulus| Duration::from_secs(1 + idle_seconds % modulus);
                Service {
                    name: format!("s{number}").parse().unwrap(),
                    address: at(1, 10 + number, port),
                    protocol,
                    mode,
                    scheduler: Scheduler::SourceHash,
                    affinity_prefix: (idle_seconds % 2 == 0).then_some(24),
                    idle_timeout: Duration::from_secs(idle_seconds),
                    half_open_timeout: if tcp { seconds(7) } else { Service::DEFAULT_HALF_OPEN_TIMEOUT },
                    closing_timeout: if tcp { seconds(11) } else { Service::DEFAULT_CLOSING_TIMEOUT },
                    on_down: if tcp { OnDown::Reset } else { OnDown::Rehash },
                    refuse: if v6 { Refuse::Reject } else { Refuse::Drop },
                    answer_ping: idle_seconds % 3 == 0,
                    fragments: if !tcp && number == 0 && (dsr || mode.is_tunnel()) {
                        Fragments::ByAddress
                    } else {
                        Fragments::FollowFirst
                    },
                    slow_start: Duration::from_millis(idle_seconds * 100),
                    panic_threshold: (idle_seconds % 101) as u8,
                    panic_action: if dsr { PanicAction::None } else { PanicAction::All },
                    failover_below: (idle_seconds % 99) as u8,
                    tunnel_port: if mode == Mode::Gue {
                        6080 + u16::from(number)
                    } else {
                        Service::DEFAULT_TUNNEL_PORT
                    },
                    tunnel_dont_fragment: match mode {
                        Mode::Ipip => TunnelDontFragment::Clear,
                        Mode::Gue => TunnelDontFragment::Set,
                        Mode::FullNat | Mode::Nat | Mode::Dsr => TunnelDontFragment::Copy,
                    },
                    health,
                    backends,
                }
            },
        )
    })
}

/// Services of the file and of the command line, some backends overridden.
pub(crate) fn any_desired() -> impl Strategy<Value = Desired> {
    let services: Vec<_> = (0..4).map(|number| prop::option::of(any_service(number)).boxed()).collect();
    let overrides = prop::collection::vec(
        (any::<prop::sample::Index>(), prop::option::of(0_u16..=1000), 0_usize..4),
        0..6,
    );
    (services, overrides).prop_map(|(services, overrides)| {
        let services: Vec<Service> = services.into_iter().flatten().collect();
        let (file, cli): (Vec<_>, Vec<_>) =
            services.into_iter().partition(|service| service.address.port() % 2 == 0);
        let file = file.into_iter().zip(1..).map(|(service, line)| (service, in_file(line))).collect();
        let limits = Limits::default();
        let mut desired = edit::replace_file_services(&Desired::default(), file, &limits).unwrap();
        desired = edit::add_services(&desired, cli, &limits).unwrap();
        let all: Vec<_> = desired
            .services
            .values()
            .flat_map(|entry| {
                entry.service.backends.iter().map(|backend| (entry.service.name.clone(), backend.address))
            })
            .collect();
        for (at, weight, state) in overrides {
            if all.is_empty() {
                break;
            }
            let (service, backend) = at.get(&all);
            let states =
                [None, Some(AdminState::Enabled), Some(AdminState::Draining), Some(AdminState::Disabled)];
            let change = BackendChange { weight, admin_state: states[state], ..BackendChange::default() };
            desired = edit::set_backend(&desired, service, *backend, change).unwrap();
        }
        desired
    })
}
