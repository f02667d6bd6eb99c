//! One line per step: what it did and how long it took.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::Result;

/// The steps taken so far and their times.
#[derive(Default)]
pub(crate) struct Steps {
    taken: Vec<(String, Duration)>,
}

impl Steps {
    /// Takes a step and says how it went; the step's own value is what it has to say.
    pub(crate) fn run<T: Display>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<()> {
        self.take(name, || step().map(|said| (said.to_string(), ())))
    }

    /// Like [`Steps::run`], for a step that also makes something.
    pub(crate) fn take<T>(&mut self, name: &str, step: impl FnOnce() -> Result<(String, T)>) -> Result<T> {
        let start = Instant::now();
        let outcome = step();
        let took = start.elapsed();
        self.taken.push((name.to_owned(), took));
        let (said, made) = outcome?;
        say(format_args!("{name}: {said} ({})", seconds(took)));
        Ok(made)
    }

    /// All times, the slowest being what one wants to know next.
    pub(crate) fn summary(&self) -> String {
        let total = self.taken.iter().map(|(_, took)| *took).sum();
        let width = self.taken.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(5);
        self.taken
            .iter()
            .map(|(name, took)| (name.as_str(), *took))
            .chain([("total", total)])
            .map(|(name, took)| format!("  {name:width$} {:>8}\n", seconds(took)))
            .collect()
    }
}

/// A line of our own between those of cargo.
pub(crate) fn say(line: impl Display) {
    eprintln!("xtask: {line}");
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_lists_every_step_also_failed_ones() {
        let mut steps = Steps::default();
        steps.run("first", || Ok("done")).expect("the step succeeds");
        steps.run("second", || -> Result<String> { anyhow::bail!("broken") }).expect_err("it fails");
        let summary = steps.summary();
        assert_eq!(summary, "  first     0.0 s\n  second    0.0 s\n  total     0.0 s\n");
    }
}
