//! `flowgate flow list`, `flow count` and `lookup`.

use super::{
    facts::facts,
    paint::{Paint, Tone},
    table::Table,
    units::{percent, span},
};
use crate::{
    api::schema::flows::{FlowCount, FlowList, Lookup},
    model::FlowState,
};

/// One line for each flow, then what is not shown.
pub(crate) fn flows(list: &FlowList, paint: Paint) -> String {
    if list.flows.is_empty() {
        return "No such flows.\n".to_owned() + &left_out(list);
    }
    let titles = ["SERVICE", "CLIENT", "BACKEND", "SEEN AS", "STATE", ">IDLE", ">FORGOTTEN IN"];
    let mut table = Table::new(titles);
    for row in &list.flows {
        let or_dash = |address: Option<std::net::SocketAddr>| {
            address.map_or_else(|| "-".to_owned(), |address| address.to_string())
        };
        let tone = if row.state == FlowState::HalfOpen { Tone::Warning } else { Tone::Plain };
        table.row(
            tone,
            [
                row.service.to_string(),
                or_dash(row.client),
                row.backend.to_string(),
                or_dash(row.source),
                row.state.to_string(),
                span(row.idle_seconds),
                span(row.forgotten_in_seconds),
            ],
        );
    }
    table.render(paint) + &left_out(list)
}

fn left_out(list: &FlowList) -> String {
    let mut lines = String::new();
    if list.more > 0 {
        lines += &format!("\n{} more: narrow it down, or raise --limit\n", list.more);
    }
    if list.not_compared > 0 {
        lines += &format!(
            "\n{} steered flows (dsr) could not be compared: their clients' addresses are not kept\n",
            list.not_compared
        );
    }
    lines
}

/// The sum, the groups, and how full the tables are.
#[expect(clippy::cast_precision_loss, reason = "shares, shown with one decimal")]
pub(crate) fn flow_count(count: &FlowCount, paint: Paint) -> String {
    let share = |flows: u64, of: u64| percent(flows as f64 / of.max(1) as f64);
    let mut text = format!("{} flows\n", count.flows);
    if !count.groups.is_empty() {
        let mut table = Table::new(["OF", ">FLOWS", ">SHARE"]);
        for group in &count.groups {
            table.row(
                Tone::Plain,
                [group.name.clone(), group.flows.to_string(), share(group.flows, count.flows)],
            );
        }
        if count.rest > 0 {
            table.row(
                Tone::Plain,
                ["others".to_owned(), count.rest.to_string(), share(count.rest, count.flows)],
            );
        }
        text += &format!("\n{}", table.render(paint));
    }
    let mut table = Table::new(["TABLE", ">SLOTS", ">USED", ">FULL"]);
    for row in &count.tables {
        let full = share(row.used, row.slots);
        table.row(Tone::Plain, [row.table.clone(), row.slots.to_string(), row.used.to_string(), full]);
    }
    text + &format!("\n{}", table.render(paint))
}

/// What would become of a packet, and why.
pub(crate) fn lookup(lookup: &Lookup, paint: Paint) -> String {
    let mut about = vec![("fate", format!("{} ({})", lookup.verdict, lookup.reason))];
    if let Some(service) = &lookup.service {
        about.push(("service", format!("{} ({}, {})", service.name, service.mode, service.scheduler)));
    }
    if let Some(backend) = lookup.backend {
        about.push(("backend", backend.to_string()));
    }
    if let Some(hop) = &lookup.next_hop {
        about.push(("next hop", format!("{} ({}) by {}", hop.address, hop.mac, hop.interface)));
    }
    let why: String = lookup.why.iter().map(|line| format!("  {line}\n")).collect();
    format!("{}\n{}{why}", facts(paint, "the packet", &about), paint.paint(Tone::Title, "why") + "\n")
}
