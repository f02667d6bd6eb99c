//! The daemon's life, from its options to its end.

use std::path::PathBuf;

/// What `flowgate agent` was started with; what is absent comes from the file, or has its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentOptions {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Interfaces to attach to, in place of the file's.
    pub interfaces: Vec<String>,
    /// The socket of the API, in place of the file's.
    pub socket: Option<PathBuf>,
    /// Where services made on the command line are kept, in place of the file's.
    pub state_dir: Option<PathBuf>,
    /// Where maps, programs and links are pinned, in place of the file's.
    pub pin_dir: Option<PathBuf>,
    /// How the log is written.
    pub log_format: LogFormat,
    /// Whether every packet's fate is written to the log.
    pub debug_packets: bool,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// Where it cannot start, or cannot go on.
pub fn run(options: AgentOptions) -> anyhow::Result<()> {
    let AgentOptions { config, .. } = options;
    anyhow::bail!("this build has no agent (configuration: {config:?})")
}
