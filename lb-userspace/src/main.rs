//! The `flowgate` binary: the agent and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    flowgate::cli::main()
}
