//! Figures on choosing a backend: shares, disruption, tables under pressure, and times.

mod disruption;
mod page;
mod pressure;
mod shares;
mod stage;
mod times;

use std::{fmt::Display, fs, path::Path, sync::OnceLock, time::Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

pub(crate) use page::write as write_page;

/// How much is measured.
pub(crate) struct Scale {
    /// Flows for each set of weights.
    share_flows: u32,
    share_backends: &'static [usize],
    disruption_flows: u32,
    disruption_backends: &'static [usize],
    /// `limits.flows` of the table that is filled.
    fill_flows: u32,
    flood_established: u32,
    flood_syns: u32,
    /// Flows that are counted, steered and translated, and `limits.flows` of their tables.
    counted: (u32, u32, u32),
    /// Of everything that is a time.
    repetitions: usize,
}

impl Scale {
    /// For the page; `disruption_flows` and `flood_syns` are the largest part of the time.
    pub(crate) fn full(disruption_flows: u32, flood_syns: u32) -> Self {
        Self {
            share_flows: 250_000,
            share_backends: &[2, 10, 100, 1_000],
            disruption_flows,
            disruption_backends: &[10, 100, 1_000],
            fill_flows: 1 << 19,
            flood_established: 500_000,
            flood_syns,
            counted: (10_000_000, 2_500_000, 1 << 23),
            repetitions: 21,
        }
    }

    /// Whether it runs at all.
    pub(crate) fn quick() -> Self {
        Self {
            share_flows: 5_000,
            share_backends: &[2, 10],
            disruption_flows: 5_000,
            disruption_backends: &[10],
            fill_flows: 1 << 12,
            flood_established: 4_000,
            flood_syns: 40_000,
            counted: (4_000, 2_000, 1 << 12),
            repetitions: 3,
        }
    }
}

/// Measures everything.
pub(crate) fn measure(scale: &Scale) -> Result<Value> {
    Ok(json!({
        "machine": machine()?,
        "shares": shares::measure(scale).context("shares")?,
        "disruption": disruption::measure(scale).context("disruption")?,
        "fill": pressure::measure_fill(scale).context("fill")?,
        "flood": pressure::measure_flood(scale).context("flood")?,
        "count": times::measure_count(scale).context("count")?,
        "ring": times::measure_build(scale).context("ring")?,
        "change": times::measure_change(scale).context("change")?,
    }))
}

fn machine() -> Result<Value> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's release")?;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("the CPU's name")?;
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(json!({
        "kernel": kernel.trim(),
        "cpu": field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        "cpus": cpus,
        "flowgate": env!("CARGO_PKG_VERSION"),
    }))
}

/// Writes the figures as JSON.
pub(crate) fn write_json(figures: &Value, path: &Path) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    let text = serde_json::to_string_pretty(figures)? + "\n";
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// A line that says how far it is.
fn progress(line: impl Display) {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    let begun = BEGUN.get_or_init(Instant::now);
    eprintln!("choosing: {:5.1} s: {line}", begun.elapsed().as_secs_f64());
}
