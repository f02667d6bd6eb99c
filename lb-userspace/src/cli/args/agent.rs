//! `flowgate agent`.

use std::path::PathBuf;

use clap::Args;

use crate::agent::{AgentOptions, LogFormat};

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  flowgate agent --config /etc/flowgate/flowgate.toml
  flowgate agent --interface eth0 --interface eth1
  flowgate agent --config lb.toml --socket /tmp/lb.sock --state-dir /tmp/lb

The agent can be stopped and started at any time: packets go on meanwhile.";

/// `flowgate agent`.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// The configuration file; read again by `flowgate config reload`
    #[arg(long, value_name = "FILE", required_unless_present = "interface")]
    pub(crate) config: Option<PathBuf>,
    /// An interface to attach to, in place of the file's; may be given several times
    #[arg(long, value_name = "INTERFACE")]
    pub(crate) interface: Vec<String>,
    /// The socket of the API, in place of the file's [default: /run/flowgate/flowgate.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Where services made on the command line, and overrides, are kept, in place of the file's [default:
    /// /var/lib/flowgate]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) state_dir: Option<PathBuf>,
    /// The directory on bpffs for maps, programs and links, in place of the file's [default:
    /// /sys/fs/bpf/flowgate]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) pin_dir: Option<PathBuf>,
    /// How the log is written
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Write every packet's fate to the log: slow, for debugging only
    #[arg(long)]
    pub(crate) debug_packets: bool,
}

impl From<AgentArgs> for AgentOptions {
    fn from(args: AgentArgs) -> Self {
        Self {
            config: args.config,
            interfaces: args.interface,
            socket: args.socket,
            state_dir: args.state_dir,
            pin_dir: args.pin_dir,
            log_format: args.log_format,
            debug_packets: args.debug_packets,
        }
    }
}
