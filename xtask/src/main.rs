//! Developers' commands. `cargo xtask --help` lists them.
//!
//! Small on purpose: it is compiled before everything else.

mod bench;
mod build;
mod demo;
mod ebpf;
mod fuzz;
mod leftovers;
mod linker;
mod lint;
mod packages;
mod paths;
mod process;
mod setup;
mod steps;
mod test;
mod tidy;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::steps::Steps;

const EXAMPLES: &str = "\
Examples:
  cargo xtask build                    one file: target/release/flowgate
  cargo xtask test                     lint, then every test (as root)
  cargo xtask test net_drain           the tests of one file, or those whose name contains this
  cargo xtask test --quick             what needs no root: lint and host-level tests
  cargo xtask demo --keep              the demo, left running afterwards
  cargo xtask fuzz --minutes 10        frames that went wrong on the way, judged by a model
  cargo xtask bench choosing           figures on choosing a backend, into docs/choosing.md

Exit status: 0 done, 1 failed, 2 wrong usage.";

/// Builds, tests, measures and shows Flowgate; installs what that needs and says so.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Make target/release/flowgate, one file with the eBPF object inside
    Build,
    /// Install what build, test and demo need
    Setup,
    /// Lint, then run the host-level tests and the tests on the real kernel (as root)
    Test(test::Options),
    /// Build and start the demo (as root)
    Demo(demo::Options),
    /// Make figures with the real program, as JSON and in docs/ (as root)
    Bench(bench::Options),
    /// Throw made-up and damaged frames at the real program, and judge by a model what becomes of them (as root)
    Fuzz(fuzz::Options),
    /// Check formatting, warnings and the architecture's rules
    Lint,
    /// Check the architecture's rules only
    Tidy,
}

fn main() -> ExitCode {
    let mut steps = Steps::default();
    let outcome = match Arguments::parse().task {
        Task::Build => build::build(&mut steps),
        Task::Setup => setup::everything(&mut steps),
        Task::Test(options) => test::test(&options, &mut steps),
        Task::Demo(options) => demo::demo(&options, &mut steps),
        Task::Bench(options) => bench::bench(&options, &mut steps),
        Task::Fuzz(options) => fuzz::fuzz(&options, &mut steps),
        Task::Lint => lint::lint(&mut steps),
        Task::Tidy => steps.run("tidy", tidy::tidy),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
