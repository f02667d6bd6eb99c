//! The command line: arguments to requests, answers to text.
//!
//! `args` is what may be written, `commands` does it, `render` makes answers readable. Only the agent is spoken
//! to, over its socket; no map is opened here.

mod args;
mod commands;
mod failure;
mod render;
mod terminal;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use clap::Parser as _;

use self::{
    args::{Cli, Command},
    failure::Failure,
    render::Paint,
    terminal::Terminal,
};

/// What the `flowgate` binary does: 0 done, 1 refused or failed, 2 wrong usage, 3 the agent cannot be reached.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        // It makes a runtime of its own.
        Command::Agent(args) => {
            crate::agent::run(args.into()).map_err(|error| Failure::Failed(format!("{error:#}")))
        }
        command => once(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Runs a command that ends by itself.
fn once(command: Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start: {error}")))?;
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let mut terminal = Terminal {
        paint: Paint::for_terminal(out.is_terminal()),
        err_is_terminal: err.is_terminal(),
        out: &mut out,
        err: &mut err,
    };
    runtime.block_on(commands::run(command, &mut terminal))
}
