//! `flowgate config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::client::ClientArgs;

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  flowgate config check /etc/flowgate/flowgate.toml
  flowgate config diff /etc/flowgate/flowgate.toml
  flowgate config reload
  flowgate config show";

/// `flowgate config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration file; no agent is needed
    #[command(after_help = "EXAMPLES:\n  flowgate config check /etc/flowgate/flowgate.toml")]
    Check(ConfigCheckArgs),
    /// Show what a file would change: who would get which part of new flows, and how many flows would move
    #[command(
        after_help = "EXAMPLES:\n  flowgate config diff /etc/flowgate/flowgate.toml\n  flowgate config diff new.toml --output json"
    )]
    Diff(ConfigDiffArgs),
    /// Print the state in force as a configuration file
    #[command(
        after_help = "EXAMPLES:\n  flowgate config show > flowgate.toml\n  flowgate config show --output json"
    )]
    Show(ConfigArgs),
    /// Have the agent read its file again and apply it
    #[command(after_help = "EXAMPLES:\n  flowgate config reload")]
    Reload(ConfigArgs),
}

/// `flowgate config check`.
#[derive(Debug, Args)]
pub(crate) struct ConfigCheckArgs {
    /// The file
    pub(crate) file: PathBuf,
}

/// `flowgate config diff`.
#[derive(Debug, Args)]
pub(crate) struct ConfigDiffArgs {
    /// The file
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `flowgate config show` and `reload`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
