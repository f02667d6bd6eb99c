//! A thing's properties, one a line.

use super::{
    paint::{Paint, Tone},
    plain,
};

/// A title, then labels and values in two columns.
pub(super) fn facts(paint: Paint, title: &str, facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    let mut text = paint.paint(Tone::Title, title) + "\n";
    for (label, value) in facts {
        text += &format!("  {label:width$}  {}\n", plain(value));
    }
    text
}
