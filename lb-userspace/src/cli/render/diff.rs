//! `flowgate config diff`.

use super::{
    paint::{Paint, Tone},
    table::Table,
    units::percent,
};
use crate::api::schema::ConfigDiff;

/// The changes, then each service's shares before and after, then what would move.
pub(crate) fn config_diff(diff: &ConfigDiff, paint: Paint) -> String {
    if diff.changes.is_empty() {
        return "Nothing would change.\n".to_owned();
    }
    let mut text: String = diff.changes.iter().map(|change| format!("{change}\n")).collect();
    let titles = ["SERVICE", "BACKEND", ">SHARE NOW", ">SHARE THEN", ">FLOWS", ">WOULD MOVE"];
    let mut table = Table::new(titles);
    let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), percent);
    for service in &diff.services {
        for row in &service.backends {
            let tone = if row.flows_moved > 0 { Tone::Warning } else { Tone::Plain };
            table.row(
                tone,
                [
                    service.service.to_string(),
                    row.backend.to_string(),
                    share(row.share_before),
                    share(row.share_after),
                    row.flows.to_string(),
                    row.flows_moved.to_string(),
                ],
            );
        }
    }
    text += &format!("\n{}", table.render(paint));
    text + &match diff.flows_moved {
        0 => "\nNo present flow would move.\n".to_owned(),
        flows => format!(
            "\n{flows} present flows would lose their backend: drain it first with `flowgate backend drain --wait`\n"
        ),
    }
}
