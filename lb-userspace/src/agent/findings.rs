//! What needs attention, and what to do about it.

use std::time::Instant;

use lb_common::Reason;

use super::{controller::Controller, plan::key_of};
use crate::{
    api::schema::{Finding, Severity},
    model::{AdminState, AttachMode, DesiredService, Health, Mode, PanicAction},
};

/// A table that is fuller than this, in percent, is spoken of: it works best half full.
const FULL_PERCENT: u64 = 75;

/// Of the ports towards a backend; a little above that some are refused.
const PORTS_PERCENT: u64 = 75;

impl Controller {
    /// Everything that needs attention, the worst first.
    pub(super) fn findings(&mut self) -> Vec<Finding> {
        let mut findings = self.warnings.clone();
        if let Some(problem) = &self.apply_problem {
            findings.push(Finding {
                severity: Severity::Error,
                subject: "data plane".to_owned(),
                message: format!("it is not what was asked for: {problem}"),
                hint: "what was asked for is tried again every second".to_owned(),
            });
        }
        self.about_interfaces(&mut findings);
        for entry in self.desired.services.values() {
            self.about_service(entry, &mut findings);
            self.about_placement(entry, &mut findings);
        }
        self.about_ports(&mut findings);
        self.about_tables(&mut findings);
        self.about_drops(&mut findings);
        findings.sort_by_key(|finding| finding.severity);
        findings
    }

    fn about_interfaces(&self, findings: &mut Vec<Finding>) {
        for interface in self.interfaces.iter() {
            let name = &interface.settings.name;
            let mut add = |severity, message: String, hint: String| {
                findings.push(Finding { severity, subject: format!("interface {name}"), message, hint });
            };
            match (interface.attached, &interface.problem) {
                (None, problem) => add(
                    Severity::Error,
                    problem.clone().unwrap_or_else(|| "not attached".to_owned()),
                    format!("Flowgate attaches as soon as {name} is there and takes the program"),
                ),
                (Some(attached), _) if !attached.running => add(
                    Severity::Error,
                    "no packets pass: it is down or has no carrier".to_owned(),
                    format!("check the cable, and `ip link set {name} up`"),
                ),
                (Some(attached), _)
                    if attached.mode == AttachMode::Generic
                        && interface.settings.mode == AttachMode::Auto =>
                {
                    add(
                        Severity::Warning,
                        "its driver has no native XDP, so the program runs in generic mode, which is slower"
                            .to_owned(),
                        format!(
                            "use an interface whose driver has XDP, or accept it with {{ name = \"{name}\", mode = \"generic\" }}"
                        ),
                    );
                }
                _ => {}
            }
        }
    }

    fn about_service(&self, entry: &DesiredService, findings: &mut Vec<Finding>) {
        let service = &entry.service;
        let mut active = 0;
        for backend in &service.backends {
            let standing = self.facts.standing(&self.desired, entry, backend.address);
            active += usize::from(standing.is_active());
            if standing.health == Health::Down && standing.admin_state != AdminState::Disabled {
                let hint = if standing.way_problem.is_some() {
                    format!(
                        "`ip route get {}` shows the way that the kernel would take",
                        backend.address.ip()
                    )
                } else {
                    format!("it gets new flows again once it passes {} probes in a row", service.health.rise)
                };
                findings.push(Finding {
                    severity: Severity::Warning,
                    subject: format!("backend {} {}", service.name, backend.address),
                    message: format!("down: {}", standing.reason),
                    hint,
                });
            }
        }
        if active == 0 {
            let (message, hint) = if service.backends.is_empty() {
                let name = &service.name;
                (
                    "it has no backends: every packet is refused",
                    format!("`flowgate backend add {name} ADDRESS:PORT`"),
                )
            } else {
                let name = &service.name;
                (
                    "no backend gets new flows: they are refused",
                    format!("`flowgate backend list {name}` says why"),
                )
            };
            findings.push(Finding {
                severity: Severity::Error,
                subject: format!("service {}", service.name),
                message: message.to_owned(),
                hint,
            });
        }
    }

    fn about_placement(&self, entry: &DesiredService, findings: &mut Vec<Finding>) {
        let service = &entry.service;
        let (name, placement) = (&service.name, self.placements.of(&service.name));
        let mut add = |severity, subject: String, message: String, hint: String| {
            findings.push(Finding { severity, subject, message, hint });
        };
        let subject = || format!("service {name}");
        let which = || format!("`flowgate backend list {name}` says which are down, and why");
        let first = service.backends.iter().map(|backend| backend.priority).min();
        if placement.panic {
            let (severity, who) = match service.panic_action {
                PanicAction::All => (Severity::Warning, "all are used, whatever probes say"),
                PanicAction::None => (Severity::Error, "none gets new flows"),
            };
            let threshold = service.panic_threshold;
            let message = format!("panic: fewer than {threshold} % of its backends are up, so {who}");
            add(severity, subject(), message, which());
        } else if let Some(last) = placement.priorities.last().filter(|last| Some(**last) != first) {
            let message = format!("too few of its first backends are up: priority {last} is in use");
            add(Severity::Warning, subject(), message, which());
        }
        let full: Vec<_> = placement.shares.iter().filter(|share| share.is_full).collect();
        let active = placement.shares.iter().filter(|share| share.ring_weight > 0).count();
        if !full.is_empty() && full.iter().all(|share| share.ring_weight > 0) && full.len() == active {
            let hint =
                format!("add backends, or raise the bound: `flowgate backend set {name} ... --max-flows N`");
            add(Severity::Error, subject(), "every backend is full: new flows are refused".to_owned(), hint);
            return;
        }
        for share in full {
            let message = "full: it has all the flows that it may have, so new ones go to others".to_owned();
            let hint =
                format!("raise its bound: `flowgate backend set {name} {} --max-flows N`", share.address);
            add(Severity::Warning, format!("backend {name} {}", share.address), message, hint);
        }
    }

    /// full-nat: each flow of a backend needs a port of a source address, and finds one easily up to half of them.
    fn about_ports(&mut self, findings: &mut Vec<Finding>) {
        self.meter.counts(&self.datapath.maps, Instant::now());
        let maps = &self.datapath.maps;
        let ports = u64::from(maps.nat_port_count());
        for entry in self.desired.services.values().filter(|entry| entry.service.mode == Mode::FullNat) {
            let key = key_of(&entry.service);
            for backend in &entry.service.backends {
                let flows = self.meter.flows_of(maps, &key, backend.address);
                let sources = self.facts.standing(&self.desired, entry, backend.address).sources;
                let sources = sources.addresses.len() as u64;
                if sources == 0 || flows * 100 <= sources * ports * PORTS_PERCENT {
                    continue;
                }
                let wanted = (flows * 2).div_ceil(ports).max(sources + 1);
                findings.push(Finding {
                    severity: Severity::Warning,
                    subject: format!("backend {} {}", entry.service.name, backend.address),
                    message: format!(
                        "{flows} of the {} ports that it can be spoken to from are in use: new flows may find none",
                        sources * ports
                    ),
                    hint: format!(
                        "name {wanted} agent.source_addresses (there is {sources}), and start the agent again"
                    ),
                });
            }
        }
    }

    fn about_drops(&self, findings: &mut Vec<Finding>) {
        for (reason, packets) in self.meter.recent_drops(Instant::now()) {
            findings.push(Finding {
                severity: Severity::Error,
                subject: format!("packets dropped: {}", reason.label()),
                message: format!("{packets} in the last second that had any"),
                hint: drop_hint(reason).to_owned(),
            });
        }
    }

    fn about_tables(&mut self, findings: &mut Vec<Finding>) {
        let slots = self.datapath.maps.flow_tables().slots();
        let counts = self.meter.counts(&self.datapath.maps, Instant::now());
        for (name, used, slots) in
            [("steered flows", counts.steered, slots.0), ("translated flows", counts.translated, slots.1)]
        {
            if used * 100 > slots * FULL_PERCENT {
                findings.push(Finding {
                    severity: Severity::Warning,
                    subject: format!("table of {name}"),
                    message: format!(
                        "{used} of {slots} slots are used: new flows begin to push out old ones"
                    ),
                    hint: "raise limits.flows, then `flowgate detach` and start the agent again".to_owned(),
                });
            }
        }
    }
}

/// What to do about packets that are dropped.
fn drop_hint(reason: Reason) -> &'static str {
    match reason {
        Reason::TtlExpired => {
            "a loop, or many traceroutes: `tcpdump` on the interface shows whose packets they are"
        }
        Reason::NoBackend => "`flowgate service list` shows which service has no backend up",
        Reason::BackendsFull => "every backend has its max_flows: add backends, or raise the bound",
        Reason::BackendDown => "`flowgate backend list` shows which backend is down",
        Reason::NoNextHop | Reason::NoSourceAddress => {
            "`flowgate backend list` says what is wrong with the way"
        }
        Reason::ExceedsMtu => {
            "clients send packets that do not fit through the tunnel, and are not all told so: raise the MTU towards \
             backends, or see docs/tunnels.md"
        }
        Reason::NoHeadroom => {
            "the driver leaves no room for outer headers: attach in mode generic, or use another mode than ipip and gue"
        }
        Reason::FragmentLost => {
            "parts of packets whose backend has gone: harmless where backends were removed or disabled"
        }
        Reason::PortsExhausted => {
            "see `flowgate stats`: if the table of translated flows is fuller than half raise limits.flows, else name \
             more agent.source_addresses"
        }
        Reason::TableContended => {
            "two CPUs began flows in one place: harmless where rare, else raise limits.flows"
        }
        Reason::NoReturnPath => "too many MAC addresses have sent packets: `flowgate detach` and start again",
        Reason::NoEgress => "an interface is gone: `flowgate status` shows which",
        Reason::BadState => "a fault of Flowgate: please report it with `flowgate stats --output json`",
        Reason::Forwarded
        | Reason::Replied
        | Reason::IcmpError
        | Reason::BackendReset
        | Reason::RejectedNoBackend
        | Reason::RejectedFull
        | Reason::TimeExceeded
        | Reason::PacketTooBig
        | Reason::PingAnswered
        | Reason::NotIp
        | Reason::VlanTagged
        | Reason::Malformed
        | Reason::Fragment
        | Reason::NotTransport
        | Reason::NotService => "these are not dropped",
    }
}
