//! What a decapsulator has seen.

use super::{
    paint::{Paint, Tone},
    table::Table,
};
use crate::cli::commands::DecapReport;

/// A line for each fate of frames.
pub(crate) fn decap(report: &DecapReport, paint: Paint) -> String {
    let mut table = Table::new(["OUTCOME", ">FRAMES"]);
    for count in &report.frames {
        table.row(Tone::Plain, [count.outcome.to_owned(), count.frames.to_string()]);
    }
    table.render(paint)
}
