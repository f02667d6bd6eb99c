//! What may be written on the command line.

mod address;
mod agent;
mod backend;
mod client;
mod config;
mod decap;
mod detach;
mod flow;
mod service;
#[cfg(test)]
mod tests;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::{
    address::ReweightedBackend,
    agent::AgentArgs,
    backend::{BackendArgs, BackendCommand, BackendSetArgs, DrainArgs},
    client::{ClientArgs, Output},
    config::ConfigCommand,
    decap::{DecapArgs, DecapMode},
    detach::DetachArgs,
    flow::{FlowCommand, LookupArgs},
    service::{HealthArgs, ServiceAddArgs, ServiceCommand, ServiceSetArgs},
};

const EXAMPLES: &str = "\
EXAMPLES:
  flowgate agent --interface eth0
  flowgate service add web --address 10.1.0.10 --port 80 --protocol tcp
  flowgate backend add web 10.2.0.11:8080
  flowgate status

EXIT CODES:
  0 done, 1 refused or failed, 2 wrong usage, 3 the agent cannot be reached";

/// A layer-4 load balancer: an XDP data plane, the agent that owns it, and this command line
#[derive(Debug, Parser)]
#[command(name = "flowgate", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the agent in the foreground: attach, load, probe, serve
    #[command(after_help = agent::EXAMPLES)]
    Agent(AgentArgs),
    /// Show agent, interfaces, services and what needs attention, on one screen
    #[command(after_help = "EXAMPLES:\n  flowgate status\n  flowgate status --output json")]
    Status(StatusArgs),
    /// Add, list, show, change and remove services
    #[command(subcommand, after_help = service::EXAMPLES)]
    Service(ServiceCommand),
    /// Add, list, show, change, drain and remove the backends of services
    #[command(subcommand, after_help = backend::EXAMPLES)]
    Backend(BackendCommand),
    /// Check a configuration file, or compare it; show or reload the agent's configuration
    #[command(subcommand, after_help = config::EXAMPLES)]
    Config(ConfigCommand),
    /// List and count the flows that are remembered
    #[command(subcommand, after_help = flow::EXAMPLES)]
    Flow(FlowCommand),
    /// Ask the data plane what it would do with a packet, and why
    #[command(after_help = flow::LOOKUP_EXAMPLES)]
    Lookup(LookupArgs),
    /// Show the data plane's counters
    #[command(
        after_help = "EXAMPLES:\n  flowgate stats\n  flowgate stats --all\n  flowgate stats --output json"
    )]
    Stats(StatsArgs),
    /// On a backend's machine: take the outer headers off that ipip and gue have put on
    #[command(after_help = decap::EXAMPLES)]
    Decap(DecapArgs),
    /// Take programs and pins away: packets are no longer balanced, and the agent ends
    #[command(after_help = detach::EXAMPLES)]
    Detach(DetachArgs),
    /// Print a script that completes commands in a shell
    #[command(
        after_help = "EXAMPLES:\n  flowgate completions bash > /etc/bash_completion.d/flowgate\n  flowgate completions fish > ~/.config/fish/completions/flowgate.fish"
    )]
    Completions(CompletionsArgs),
}

/// `flowgate status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `flowgate stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Show reasons that no packet has met, too
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `flowgate completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}
