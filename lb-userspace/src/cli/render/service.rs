//! `flowgate service list` and `show`.

use std::net::SocketAddr;

use super::{
    backend::members,
    facts::facts,
    paint::{Paint, Tone},
    table::Table,
    units::{si, with_unit},
};
use crate::{
    api::schema::{FlowTotals, ServiceDetail, ServiceOptions, ServiceRow},
    config::entry::{HealthEntry, HealthKind},
    model::{Fragments, OnDown, Origin, PanicAction, Refuse, TunnelDontFragment},
};

/// One line for each service.
pub(crate) fn services(rows: &[ServiceRow], paint: Paint) -> String {
    if rows.is_empty() {
        return "No services: make one with `flowgate service add`.\n".to_owned();
    }
    let mut table =
        Table::new(["SERVICE", "ADDRESS", "MODE", "SCHEDULER", "FROM", ">UP", ">FLOWS", ">PACKETS/S"]);
    for row in rows {
        let from = match row.origin {
            Origin::File { .. } => "file",
            Origin::Cli => "cli",
        };
        table.row(
            tone(row),
            [
                row.name.to_string(),
                place(row),
                row.mode.to_string(),
                row.scheduler.to_string(),
                from.to_owned(),
                up_of_all(row),
                row.flows.to_string(),
                si(row.rates.packets_per_second),
            ],
        );
    }
    table.render(paint)
}

/// One service and its backends.
pub(crate) fn service(detail: &ServiceDetail, paint: Paint) -> String {
    let row = &detail.row;
    let declared = match &row.origin {
        Origin::File { path, line } => format!("{}:{line}", path.display()),
        Origin::Cli => "on the command line".to_owned(),
    };
    let rates = row.rates;
    let rate = format!(
        "{} packets/s, {}, {} new flows/s",
        si(rates.packets_per_second),
        with_unit(rates.bits_per_second, "bit/s"),
        si(rates.flows_per_second)
    );
    let mut about = vec![
        ("address", place(row)),
        ("mode", row.mode.to_string()),
        ("scheduler", row.scheduler.to_string()),
        ("flows kept", timeouts(&detail.options)),
        ("new flows", new_flows(detail)),
        ("health check", health_check(&detail.health_check)),
        ("declared", declared),
        ("backends", format!("{} up", up_of_all(row))),
        ("ring", format!("{} slots", detail.ring_slots)),
        ("flows", format!("{} now, {} since it was made", row.flows, row.totals.flows)),
    ];
    if detail.options.answer_ping == Some(true) {
        about.push(("pings", "answered by Flowgate".to_owned()));
    }
    if detail.options.fragments == Some(Fragments::ByAddress) {
        about.push(("fragments", "steered by addresses alone".to_owned()));
    }
    about.extend(tunnel(&detail.options));
    about.extend(traffic(row.totals));
    about.push(("rate", rate));
    let about = facts(paint, &format!("service {}", row.name), &about);
    format!("{about}\n{}", members(&detail.backend, &row.name, paint))
}

/// What outer headers say, where the mode has them.
fn tunnel(options: &ServiceOptions) -> Option<(&'static str, String)> {
    let fragments = match options.tunnel_dont_fragment? {
        TunnelDontFragment::Copy => "\"don't fragment\" as in the packet",
        TunnelDontFragment::Set => "\"don't fragment\" always",
        TunnelDontFragment::Clear => "\"don't fragment\" never",
    };
    let port = options.tunnel_port.map_or(String::new(), |port| format!("to UDP port {port}, "));
    Some(("tunnel", format!("{port}{fragments}")))
}

/// How long flows without packets are remembered, and what becomes of those of a backend that goes down.
fn timeouts(options: &ServiceOptions) -> String {
    let mut text = format!("{} idle", options.idle_timeout.as_deref().unwrap_or("?"));
    if let Some(half_open) = &options.half_open_timeout {
        text += &format!(", {half_open} half-open");
    }
    if let Some(closing) = &options.closing_timeout {
        text += &format!(", {closing} closing");
    }
    match options.on_down {
        Some(OnDown::Rehash) => text + "; moved from a backend that is down",
        Some(OnDown::Reset) => text + "; reset where a backend is down",
        _ => text + "; also where a backend is down",
    }
}

/// Who gets new flows, in words.
fn new_flows(detail: &ServiceDetail) -> String {
    let options = &detail.options;
    let mut text = match (detail.panic, options.panic_action) {
        (true, Some(PanicAction::None)) => "to nobody: panic, too few backends are up".to_owned(),
        (true, _) => "to all backends: panic, too few are up".to_owned(),
        (false, _) => {
            let used: Vec<_> = detail.priorities.iter().map(u8::to_string).collect();
            format!("to priority {}", if used.is_empty() { "0".to_owned() } else { used.join(" and ") })
        }
    };
    if let Some(bits) = options.affinity_prefix {
        text += &format!(", a /{bits} of clients to one backend");
    }
    if let Some(slow_start) = options.slow_start.as_deref().filter(|slow_start| *slow_start != "0s") {
        text += &format!(", slowly for {slow_start} at first");
    }
    let refusal = if options.refuse == Some(Refuse::Reject) { "rejected" } else { "dropped" };
    text + &format!("; {refusal} where nobody can take them")
}

/// What came from clients, and what went back to them.
pub(super) fn traffic(totals: FlowTotals) -> [(&'static str, String); 2] {
    let line = |packets, bytes| format!("{packets} packets, {}", with_unit(bytes, "B"));
    [
        ("from clients", line(totals.packets_in, totals.bytes_in)),
        ("to clients", line(totals.packets_out, totals.bytes_out)),
    ]
}

/// `10.1.0.10:80/tcp`.
pub(super) fn place(row: &ServiceRow) -> String {
    format!("{}/{}", SocketAddr::new(row.address, row.port), row.protocol)
}

pub(super) fn up_of_all(row: &ServiceRow) -> String {
    format!("{}/{}", row.backends_up, row.backends)
}

pub(super) fn tone(row: &ServiceRow) -> Tone {
    match row.backends_up {
        0 => Tone::Bad,
        up if up < row.backends => Tone::Warning,
        _ => Tone::Plain,
    }
}

fn health_check(check: &HealthEntry) -> String {
    let kind = match check.kind {
        HealthKind::None => return "none: backends are up at once".to_owned(),
        HealthKind::Tcp => "tcp",
        HealthKind::Http => "http",
    };
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let parts = [
        ("", check.path.clone()),
        (" on port ", check.port.map(|port| port.to_string())),
        (", host ", check.host.clone()),
        (", status ", check.expect_status.clone()),
        (", every ", check.interval.clone()),
        (", timeout ", check.timeout.clone()),
        (", rise ", number(check.rise)),
        (", fall ", number(check.fall)),
    ];
    let mut text = kind.to_owned();
    for (label, value) in parts {
        if let Some(value) = value {
            let label = if label.is_empty() { " " } else { label };
            text += label;
            text += &value;
        }
    }
    text
}
