//! `flowgate stats`.

use super::{
    paint::{Paint, Tone},
    table::Table,
    units::percent,
};
use crate::api::schema::Stats;

/// Reasons (those that no packet has met only where `all` is set), tables of flows, services.
pub(crate) fn stats(stats: &Stats, all: bool, paint: Paint) -> String {
    [reasons(stats, all, paint), tables(stats, paint), services(stats, paint)]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

fn reasons(stats: &Stats, all: bool, paint: Paint) -> String {
    let mut table = Table::new(["INTERFACE", "REASON", "VERDICT", ">PACKETS"]);
    let mut rows = stats.reasons.iter().filter(|row| all || row.packets > 0).peekable();
    if rows.peek().is_none() {
        return "No packets yet.\n".to_owned();
    }
    for row in rows {
        let tone = if row.verdict == "drop" && row.packets > 0 { Tone::Warning } else { Tone::Plain };
        let packets = row.packets.to_string();
        table.row(tone, [row.interface.clone(), row.reason.clone(), row.verdict.clone(), packets]);
    }
    table.render(paint)
}

#[expect(clippy::cast_precision_loss, reason = "a share, shown with one decimal")]
fn tables(stats: &Stats, paint: Paint) -> String {
    if stats.tables.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["TABLE", ">SLOTS", ">USED", ">FULL"]);
    for row in &stats.tables {
        let full = percent(row.used as f64 / row.slots.max(1) as f64);
        table.row(Tone::Plain, [row.table.clone(), row.slots.to_string(), row.used.to_string(), full]);
    }
    table.render(paint)
}

fn services(stats: &Stats, paint: Paint) -> String {
    if stats.services.is_empty() {
        return String::new();
    }
    let titles = ["SERVICE", ">FLOWS", ">PACKETS IN", ">BYTES IN", ">PACKETS OUT", ">BYTES OUT"];
    let mut table = Table::new(titles);
    for row in &stats.services {
        let totals = row.totals;
        let counts = [totals.flows, totals.packets_in, totals.bytes_in, totals.packets_out, totals.bytes_out];
        let [flows, packets_in, bytes_in, packets_out, bytes_out] = counts.map(|count| count.to_string());
        let name = row.service.to_string();
        table.row(Tone::Plain, [name, flows, packets_in, bytes_in, packets_out, bytes_out]);
    }
    table.render(paint)
}
