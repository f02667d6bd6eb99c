//! `flowgate detach`.

use std::path::PathBuf;

use clap::Args;

use super::client::ClientArgs;

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  flowgate detach
  flowgate detach --all

Where an agent runs, it does this and ends. Where none does, this command
does it, as root.";

/// `flowgate detach`.
#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// Also what agents of other versions have left
    #[arg(long)]
    pub(crate) all: bool,
    /// The directory on bpffs for maps, programs and links [default: the agent's, or /sys/fs/bpf/flowgate]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) pin_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
