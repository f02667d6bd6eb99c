//! `flowgate backend list` and `show`.

use super::{
    facts::facts,
    paint::{Paint, Tone},
    plain,
    service::traffic,
    table::Table,
    units::{percent, span},
};
use crate::{
    api::schema::BackendRow,
    model::{AdminState, Health, ServiceName},
};

/// One line for each backend, then why those that are not up are not.
pub(crate) fn backends(rows: &[BackendRow], paint: Paint) -> String {
    if rows.is_empty() {
        return "No backends: add one with `flowgate backend add SERVICE ADDRESS:PORT`.\n".to_owned();
    }
    let mut table =
        Table::new(["SERVICE", "BACKEND", ">WEIGHT", "HEALTH", "ADMIN STATE", ">SHARE", ">FLOWS"]);
    for row in rows {
        let [backend, weight, health, admin_state, share, flows] = cells(row);
        table.row(tone(row), [row.service.to_string(), backend, weight, health, admin_state, share, flows]);
    }
    table.render(paint) + &notes(rows)
}

/// The backends of one service, under its properties.
pub(super) fn members(rows: &[BackendRow], service: &ServiceName, paint: Paint) -> String {
    if rows.is_empty() {
        return format!("No backends: add one with `flowgate backend add {service} ADDRESS:PORT`.\n");
    }
    let mut table = Table::new(["BACKEND", ">WEIGHT", "HEALTH", "ADMIN STATE", ">SHARE", ">FLOWS"]);
    for row in rows {
        table.row(tone(row), cells(row));
    }
    table.render(paint) + &notes(rows)
}

/// One backend.
pub(crate) fn backend(row: &BackendRow, paint: Paint) -> String {
    let title = format!("backend {} {}", row.service, row.socket_address());
    let because =
        if row.health_reason.is_empty() { String::new() } else { format!(": {}", row.health_reason) };
    let next_hop = row.next_hop.as_ref().map_or_else(
        || "not known".to_owned(),
        |hop| format!("{} ({}) by {}", hop.address, hop.mac, hop.interface),
    );
    let new_flows = if row.active {
        format!("{} of the service's{}", percent(row.share), starting(row))
    } else {
        "none".to_owned()
    };
    let overridden = if row.overridden { "yes, until `flowgate backend reset`" } else { "no" };
    let mut about = vec![
        ("health", format!("{} for {}{because}", row.health, span(row.health_since_seconds))),
        ("admin state", row.admin_state.to_string()),
        ("weight", row.weight.to_string()),
        ("priority", row.priority.to_string()),
        ("bound", row.max_flows.map_or("none".to_owned(), |flows| format!("{flows} flows"))),
        ("overridden", overridden.to_owned()),
        ("new flows", new_flows),
        ("next hop", next_hop),
        ("flows", format!("{} now, {} since it was made", row.flows, row.totals.flows)),
    ];
    about.extend(traffic(row.totals));
    facts(paint, &title, &about)
}

fn starting(row: &BackendRow) -> String {
    if row.slow_start >= 1.0 {
        return String::new();
    }
    format!(", {} of its share while it starts slowly", percent(row.slow_start))
}

fn cells(row: &BackendRow) -> [String; 6] {
    let star = if row.overridden { "*" } else { "" };
    [
        row.socket_address().to_string(),
        row.weight.to_string(),
        row.health.to_string(),
        format!("{}{star}", row.admin_state),
        percent(row.share),
        row.flows.to_string(),
    ]
}

fn notes(rows: &[BackendRow]) -> String {
    let mut lines = Vec::new();
    if rows.iter().any(|row| row.overridden) {
        lines.push("* weight or admin state overridden until `flowgate backend reset`\n".to_owned());
    }
    lines.extend(rows.iter().filter(|row| row.health != Health::Up).map(|row| {
        let for_so_long = span(row.health_since_seconds);
        let backend = row.socket_address();
        let reason = plain(&row.health_reason);
        format!("{} {backend} is {} for {for_so_long}: {reason}\n", row.service, row.health)
    }));
    lines.extend(
        rows.iter()
            .filter(|row| row.active && row.slow_start < 1.0)
            .map(|row| format!("{} {} starts slowly{}\n", row.service, row.socket_address(), starting(row))),
    );
    let is_full = |row: &&BackendRow| row.max_flows.is_some_and(|bound| row.flows >= u64::from(bound));
    lines.extend(rows.iter().filter(is_full).map(|row| {
        let (service, backend) = (&row.service, row.socket_address());
        format!("{service} {backend} has all the flows that it may have: {}\n", row.flows)
    }));
    if lines.is_empty() { String::new() } else { format!("\n{}", lines.concat()) }
}

fn tone(row: &BackendRow) -> Tone {
    match (row.health, row.admin_state) {
        (Health::Down, _) => Tone::Bad,
        (Health::Checking, _) | (Health::Up, AdminState::Draining | AdminState::Disabled) => Tone::Warning,
        (Health::Up, AdminState::Enabled) => Tone::Plain,
    }
}
