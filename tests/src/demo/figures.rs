//! What was measured, against its bounds.

use std::{fmt::Display, time::Duration};

use super::screen::Screen;

/// The figures so far.
#[derive(Debug, Default)]
pub(super) struct Figures {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    value: String,
    bound: String,
    pass: bool,
}

impl Figures {
    /// A count that has to be what is expected.
    pub(super) fn exactly<T: Copy + PartialEq + Display>(&mut self, what: &str, value: T, expected: T) {
        self.add(what, value.to_string(), expected.to_string(), value == expected);
    }

    /// A count that has to be at least so large.
    pub(super) fn at_least<T: Copy + PartialOrd + Display>(&mut self, what: &str, value: T, bound: T) {
        self.add(what, value.to_string(), format!("{bound} or more"), value >= bound);
    }

    /// A time that has to be short; none where it never came to an end.
    pub(super) fn within(&mut self, what: &str, value: Option<Duration>, bound: Duration) {
        let text = value.map_or_else(|| "never".to_owned(), seconds);
        let pass = value.is_some_and(|value| value <= bound);
        self.add(what, text, format!("{} at most", seconds(bound)), pass);
    }

    /// A percentage that has to be at least so large.
    pub(super) fn percent_at_least(&mut self, what: &str, value: f64, bound: f64) {
        let percent = |part: f64| format!("{:.0} %", part * 100.0);
        self.add(what, percent(value), format!("{} or more", percent(bound)), value >= bound);
    }

    fn add(&mut self, what: &str, value: String, bound: String, pass: bool) {
        self.rows.push(Row { what: what.to_owned(), value, bound, pass });
    }

    /// Prints the table. False where a figure is out of its bounds.
    pub(super) fn show(&self, screen: &Screen) -> bool {
        let width = |column: fn(&Row) -> &str| {
            self.rows.iter().map(|row| column(row).chars().count()).max().unwrap_or_default()
        };
        let (what, value, bound) = (width(|row| &row.what), width(|row| &row.value), width(|row| &row.bound));
        for row in &self.rows {
            let mark = if row.pass { screen.green("pass") } else { screen.red("FAIL") };
            println!(
                "  {:<what$}   {:>value$}   (bound: {:<bound$})   {mark}",
                row.what,
                row.value,
                row.bound,
                bound = bound
            );
        }
        let failed = self.rows.iter().filter(|row| !row.pass).count();
        println!();
        if failed == 0 {
            println!("  {}", screen.green("Every figure is within its bounds."));
        } else {
            println!(
                "  {}",
                screen.red(&format!("{failed} of {} figures are out of bounds.", self.rows.len()))
            );
        }
        failed == 0
    }
}

/// `0.34 s`
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
