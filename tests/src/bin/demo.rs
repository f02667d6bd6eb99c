//! Flowgate in about a minute, on one machine: `cargo xtask demo` runs this.

#[path = "../demo/mod.rs"]
mod demo;

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use harness::cleanup;

/// Shows Flowgate at work between a client and four backends, all in network namespaces of this machine.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Args {
    /// Leave everything running at the end, and say what to try in it.
    #[arg(long)]
    keep: bool,
    /// Remove what `--keep` kept, or a demo or test that was killed has left behind.
    #[arg(long, conflicts_with = "keep")]
    clean: bool,
    /// How long each part takes at least.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..=3600))]
    seconds: u64,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// A backend's servers, for `--keep`: they outlive the demo.
    #[command(hide = true)]
    Serve {
        /// What the servers answer with.
        name: String,
        /// HTTP, at every address.
        #[arg(long)]
        http: Vec<u16>,
        /// UDP echo.
        #[arg(long)]
        udp: Vec<SocketAddr>,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.role {
        Some(Role::Serve { name, http, udp }) => demo::serve(name, http, udp).map(|()| true),
        None if args.clean => demo::clean(),
        None => demo::run(Duration::from_secs(args.seconds), args.keep),
    };
    // What failed may have failed because Ctrl-C took it away.
    cleanup::wait_for_the_end_if_ending();
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
