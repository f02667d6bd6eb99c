//! Made-up and damaged frames for the real program: `cargo xtask fuzz` runs this.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use harness::fuzz;

/// Throws frames at the real data plane and judges by a model what becomes of them.
#[derive(Debug, Parser)]
#[command(name = "fuzz")]
struct Args {
    /// How long.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// The first seed: a run that has failed says which one makes the same frames again.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let now = || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let progress = |report: &fuzz::Report| {
        let a_minute = report.frames as f64 / report.took.as_secs_f64() * 60.0;
        eprint!("\r{} frames, {a_minute:.0} a minute, {:.0?}  ", report.frames, report.took);
    };
    match fuzz::run(Duration::from_secs(args.minutes * 60), args.seed.unwrap_or_else(now), progress) {
        Ok(report) => {
            println!("\n{} frames in {:.1?}: {}", report.frames, report.took, report.outcomes_in_words());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nfuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}
