//! What commands do: a request, its answer, and how that is shown.

mod backend;
mod config;
mod decap;
mod detach;
mod drain;
mod flow;
mod service;

use clap::CommandFactory as _;

use super::{
    args::{Cli, Command},
    failure::Failure,
    render,
    terminal::Terminal,
};

pub(super) use decap::DecapReport;

/// Runs a command that ends by itself, or that is ended.
pub(crate) async fn run(command: Command, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    match command {
        Command::Agent(_) => Err(Failure::Failed("the agent does not end by itself".to_owned())),
        Command::Status(args) => {
            let status = args.client.client().status().await?;
            terminal.answer(args.client.output, &status, render::status)
        }
        Command::Stats(args) => {
            let stats = args.client.client().stats().await?;
            terminal.answer(args.client.output, &stats, |stats, paint| render::stats(stats, args.all, paint))
        }
        Command::Service(command) => service::run(command, terminal).await,
        Command::Backend(command) => backend::run(command, terminal).await,
        Command::Config(command) => config::run(command, terminal).await,
        Command::Flow(command) => flow::run(command, terminal).await,
        Command::Lookup(args) => flow::lookup(args, terminal).await,
        Command::Decap(args) => decap::run(args, terminal).await,
        Command::Detach(args) => detach::run(args, terminal).await,
        Command::Completions(args) => {
            // Into memory first: the generator panics where a pipe is closed.
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "flowgate", &mut script);
            terminal.text(&String::from_utf8_lossy(&script))
        }
    }
}
