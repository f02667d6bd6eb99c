//! Model to entries and to a file's text: what `config show` prints, `agent --config` accepts.

use std::fmt::{Display, Write as _};

use super::{
    entry::{BackendEntry, HealthEntry, HealthKind, ServiceEntry},
    validate::format_duration,
};
use crate::api::schema::ServiceOptions;
use crate::model::{
    AdminState, AgentSettings, AttachMode, Backend, Desired, DesiredService, HealthCheck, Limits, Mode,
    Origin, Probe, Protocol, Service,
};

/// The service as an entry, every default filled in.
#[must_use]
pub fn service_to_entry(service: &Service) -> ServiceEntry {
    let of_tcp = |text: String| (service.protocol == Protocol::Tcp).then_some(text);
    ServiceEntry {
        name: service.name.to_string(),
        address: service.address.ip().to_string(),
        port: service.address.port(),
        protocol: service.protocol,
        mode: Some(service.mode),
        scheduler: Some(service.scheduler),
        affinity_prefix: service.affinity_prefix,
        idle_timeout: Some(format_duration(service.idle_timeout)),
        half_open_timeout: of_tcp(format_duration(service.half_open_timeout)),
        closing_timeout: of_tcp(format_duration(service.closing_timeout)),
        on_down: Some(service.on_down),
        refuse: Some(service.refuse),
        answer_ping: Some(service.answer_ping),
        fragments: Some(service.fragments),
        slow_start: Some(format_duration(service.slow_start)),
        panic_threshold: Some(service.panic_threshold),
        panic_action: Some(service.panic_action),
        failover_below: Some(service.failover_below),
        tunnel_port: (service.mode == Mode::Gue).then_some(service.tunnel_port),
        tunnel_dont_fragment: service.mode.is_tunnel().then_some(service.tunnel_dont_fragment),
        health: Some(health_to_entry(&service.health)),
        backends: service.backends.iter().map(backend_to_entry).collect(),
    }
}

/// The service's options, every default filled in that has an effect.
#[must_use]
pub fn service_to_options(service: &Service) -> ServiceOptions {
    let entry = service_to_entry(service);
    ServiceOptions {
        affinity_prefix: entry.affinity_prefix,
        idle_timeout: entry.idle_timeout,
        half_open_timeout: entry.half_open_timeout,
        closing_timeout: entry.closing_timeout,
        on_down: entry.on_down,
        refuse: entry.refuse,
        answer_ping: entry.answer_ping,
        fragments: entry.fragments,
        slow_start: entry.slow_start,
        panic_threshold: entry.panic_threshold,
        panic_action: entry.panic_action,
        failover_below: entry.failover_below,
        tunnel_port: entry.tunnel_port,
        tunnel_dont_fragment: entry.tunnel_dont_fragment,
    }
}

/// The backend as an entry, every default filled in.
#[must_use]
pub fn backend_to_entry(backend: &Backend) -> BackendEntry {
    BackendEntry {
        address: backend.address.ip().to_string(),
        port: Some(backend.address.port()),
        weight: Some(backend.weight),
        priority: Some(backend.priority),
        max_flows: (backend.max_flows > 0).then_some(backend.max_flows),
    }
}

/// The health check as an entry, every default filled in that has an effect.
#[must_use]
pub fn health_to_entry(health: &HealthCheck) -> HealthEntry {
    let none = HealthEntry {
        kind: HealthKind::None,
        path: None,
        host: None,
        expect_status: None,
        interval: None,
        timeout: None,
        rise: None,
        fall: None,
        port: None,
    };
    let probed = HealthEntry {
        kind: HealthKind::Tcp,
        interval: Some(format_duration(health.interval)),
        timeout: Some(format_duration(health.timeout)),
        rise: Some(health.rise),
        fall: Some(health.fall),
        port: health.port,
        ..none.clone()
    };
    match &health.probe {
        Probe::None => none,
        Probe::Tcp => probed,
        Probe::Http(check) => HealthEntry {
            kind: HealthKind::Http,
            path: Some(check.path.clone()),
            host: check.host.clone(),
            expect_status: Some(match check.expect_status {
                (low, high) if low == high => low.to_string(),
                (low, high) => format!("{low}-{high}"),
            }),
            ..probed
        },
    }
}

/// The state in force as a file: weights are those in force, and comments say where a service was declared
/// and what was overridden. An admin state has no place in the file, so that only a comment says it.
#[must_use]
pub fn render(agent: &AgentSettings, limits: &Limits, desired: &Desired) -> String {
    let mut file = File::default();
    file.agent(agent);
    file.limits(limits);
    for service in desired.services.values() {
        file.service(service);
    }
    file.text
}

#[derive(Default)]
struct File {
    text: String,
}

impl File {
    fn agent(&mut self, agent: &AgentSettings) {
        self.line("[agent]");
        let interfaces = agent.interfaces.iter().map(|interface| match interface.mode {
            AttachMode::Auto => quote(&interface.name),
            mode => format!("{{ name = {}, mode = \"{}\" }}", quote(&interface.name), mode.as_str()),
        });
        self.set("interfaces", list(interfaces));
        self.set("socket", quote(&agent.socket.to_string_lossy()));
        self.set("state_dir", quote(&agent.state_dir.to_string_lossy()));
        self.set("pin_dir", quote(&agent.pin_dir.to_string_lossy()));
        self.set(
            "source_addresses",
            list(agent.source_addresses.iter().map(|address| quote(&address.to_string()))),
        );
        self.set("ipip_sources", list(agent.ipip_sources.iter().map(|network| quote(&network.to_string()))));
        self.set("debug_packets", agent.debug_packets);
    }

    fn limits(&mut self, limits: &Limits) {
        self.line("\n[limits]");
        self.set("flows", limits.flows);
        self.set("services", limits.services);
        self.set("backends", limits.backends);
        self.set("ring_slots", limits.ring_slots);
        self.set("fragments", limits.fragments);
    }

    fn service(&mut self, desired: &DesiredService) {
        let entry = service_to_entry(&desired.service);
        self.line("\n[[service]]");
        self.line(&match &desired.origin {
            Origin::File { path, line } => {
                format!("# declared in {}, line {line}", comment(&path.to_string_lossy()))
            }
            Origin::Cli => "# made on the command line".to_owned(),
        });
        self.set("name", quote(&entry.name));
        self.set("address", quote(&entry.address));
        self.set("port", entry.port);
        self.set("protocol", quote(entry.protocol.as_str()));
        self.set_some("mode", entry.mode.map(|mode| quote(mode.as_str())));
        self.set_some("scheduler", entry.scheduler.map(|scheduler| quote(scheduler.as_str())));
        self.set_some("affinity_prefix", entry.affinity_prefix);
        self.set_some("idle_timeout", entry.idle_timeout.as_deref().map(quote));
        self.set_some("half_open_timeout", entry.half_open_timeout.as_deref().map(quote));
        self.set_some("closing_timeout", entry.closing_timeout.as_deref().map(quote));
        self.set_some("on_down", entry.on_down.map(|on_down| quote(on_down.as_str())));
        self.set_some("refuse", entry.refuse.map(|refuse| quote(refuse.as_str())));
        self.set_some("answer_ping", entry.answer_ping);
        self.set_some("fragments", entry.fragments.map(|fragments| quote(fragments.as_str())));
        self.set_some("slow_start", entry.slow_start.as_deref().map(quote));
        self.set_some("panic_threshold", entry.panic_threshold);
        self.set_some("panic_action", entry.panic_action.map(|action| quote(action.as_str())));
        self.set_some("failover_below", entry.failover_below);
        self.set_some("tunnel_port", entry.tunnel_port);
        self.set_some("tunnel_dont_fragment", entry.tunnel_dont_fragment.map(|how| quote(how.as_str())));
        if let Some(health) = &entry.health {
            self.health(health);
        }
        for backend in &desired.service.backends {
            self.backend(desired, backend);
        }
    }

    fn health(&mut self, health: &HealthEntry) {
        self.line("\n[service.health]");
        self.set("type", quote(health.kind.as_str()));
        self.set_some("path", health.path.as_deref().map(quote));
        self.set_some("host", health.host.as_deref().map(quote));
        self.set_some("expect_status", health.expect_status.as_deref().map(quote));
        self.set_some("interval", health.interval.as_deref().map(quote));
        self.set_some("timeout", health.timeout.as_deref().map(quote));
        self.set_some("rise", health.rise);
        self.set_some("fall", health.fall);
        self.set_some("port", health.port);
    }

    fn backend(&mut self, desired: &DesiredService, backend: &Backend) {
        let weight = desired.weight(backend.address);
        let admin_state = desired.admin_state(backend.address);
        self.line("\n[[service.backend]]");
        if weight != backend.weight {
            self.line(&format!("# weight overridden at run time; declared: {}", backend.weight));
        }
        if admin_state != AdminState::Enabled {
            self.line(&format!("# {admin_state} at run time: not a part of this file"));
        }
        let entry = backend_to_entry(&Backend { weight, ..*backend });
        self.set("address", quote(&entry.address));
        self.set_some("port", entry.port);
        self.set_some("weight", entry.weight);
        self.set_some("priority", entry.priority);
        self.set_some("max_flows", entry.max_flows);
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn set(&mut self, key: &str, value: impl Display) {
        writeln!(self.text, "{key} = {value}").expect("a string takes everything");
    }

    fn set_some(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }
}

fn quote(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// A text that can neither end a comment nor be forbidden in one.
fn comment(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests;
