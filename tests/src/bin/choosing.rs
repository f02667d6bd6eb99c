//! Figures on choosing a backend: `cargo xtask bench choosing` runs this.

#[path = "../choosing/mod.rs"]
mod choosing;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use choosing::Scale;
use clap::Parser;

const FLOWS: u32 = 250_000;
const SYNS: u32 = 10_000_000;

/// Measures how backends are chosen, by the real data plane, and writes the figures down.
#[derive(Debug, Parser)]
#[command(name = "choosing")]
struct Args {
    /// So little of everything that it takes seconds: whether it runs, not figures.
    #[arg(long)]
    quick: bool,
    /// Flows that live through changes of backends.
    #[arg(long, value_name = "N", default_value_t = FLOWS, value_parser = clap::value_parser!(u32).range(1000..=2_000_000))]
    flows: u32,
    /// SYNs in the flood.
    #[arg(long, value_name = "N", default_value_t = SYNS, value_parser = clap::value_parser!(u32).range(10..=16_000_000))]
    syns: u32,
    /// Where the figures go as JSON.
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// The page whose tables are to be these figures.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("choosing: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let scale = if args.quick { Scale::quick() } else { Scale::full(args.flows, args.syns) };
    let figures = choosing::measure(&scale)?;
    choosing::write_json(&figures, &args.json)?;
    let mut command = "cargo xtask bench choosing".to_owned();
    if args.quick {
        command.push_str(" --quick");
    } else if (args.flows, args.syns) != (FLOWS, SYNS) {
        command.push_str(&format!(" -- --flows {} --syns {}", args.flows, args.syns));
    }
    args.page.iter().try_for_each(|page| choosing::write_page(&figures, &command, page))
}
