//! Figures on choosing a backend: `cargo xtask bench choosing` runs this.

#[path = "../choosing/mod.rs"]
mod choosing;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use choosing::Scale;
use clap::Parser;

/// Measures how backends are chosen, by the real data plane, and writes the figures down.
#[derive(Debug, Parser)]
#[command(name = "choosing")]
struct Args {
    /// So little of everything that it takes seconds: whether it runs, not figures.
    #[arg(long)]
    quick: bool,
    /// SYNs in the flood.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(10..=16_000_000))]
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
    let scale = if args.quick { Scale::quick() } else { Scale::full(args.syns) };
    let figures = choosing::measure(&scale)?;
    choosing::write_json(&figures, &args.json)?;
    let command = match (args.quick, args.syns) {
        (true, _) => "cargo xtask bench choosing --quick".to_owned(),
        (false, 10_000_000) => "cargo xtask bench choosing".to_owned(),
        (false, syns) => format!("cargo xtask bench choosing --syns {syns}"),
    };
    args.page.iter().try_for_each(|page| choosing::write_page(&figures, &command, page))
}
