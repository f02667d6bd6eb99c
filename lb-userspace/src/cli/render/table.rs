//! Tables without lines: columns two spaces apart, numbers to the right.

use comfy_table::{CellAlignment, ContentArrangement, presets};

use super::{
    paint::{Paint, Tone},
    plain,
};

/// A table in the making. Cells are never wrapped: an address in two halves cannot be copied.
pub(super) struct Table {
    table: comfy_table::Table,
    tones: Vec<Tone>,
}

impl Table {
    /// A table with these column titles; a column whose title begins with `>` holds numbers.
    pub(super) fn new<const COLUMNS: usize>(titles: [&str; COLUMNS]) -> Self {
        let mut table = comfy_table::Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(titles.map(|title| title.trim_start_matches('>')));
        for (column, title) in table.column_iter_mut().zip(titles) {
            column.set_padding((0, 2));
            if title.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table, tones: vec![Tone::Title] }
    }

    /// One more row.
    pub(super) fn row<const COLUMNS: usize>(&mut self, tone: Tone, cells: [String; COLUMNS]) {
        self.table.add_row(cells.map(|cell| plain(&cell)));
        self.tones.push(tone);
    }

    /// The lines of the table.
    pub(super) fn render(&self, paint: Paint) -> String {
        // One line a row, since no cell holds a line break.
        let lines = self.table.lines().zip(&self.tones);
        lines.map(|(line, tone)| paint.paint(*tone, line.trim_end()) + "\n").collect()
    }
}
