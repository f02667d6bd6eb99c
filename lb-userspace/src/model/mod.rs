//! What an operator may ask for, in its valid form: pure data, no clock, no I/O.
//!
//! Text becomes these types in `config::validate`, the only place that makes them from outside input;
//! everything behind it can rely on what their docs say.

mod desired;
mod health_check;
mod limits;
mod name;
mod service;

pub use desired::{Desired, DesiredService, Origin, Override};
pub use health_check::{HealthCheck, HttpCheck, Probe};
pub use limits::Limits;
pub use name::{InvalidServiceName, ServiceName};
pub use service::{
    AdminState, Backend, FlowState, Fragments, Health, Mode, OnDown, PanicAction, Protocol, Refuse,
    Scheduler, Service, TunnelDontFragment,
};

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;

/// A whole configuration, as `flowgate agent --config FILE` reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The agent's own settings: fixed while it runs.
    pub agent: AgentSettings,
    /// Sizes of the tables: fixed when the data plane is loaded.
    pub limits: Limits,
    /// The services that the file declares, in its order.
    pub services: Vec<(Service, Origin)>,
}

/// The `[agent]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSettings {
    /// The interfaces to attach to, at least one, no name twice.
    pub interfaces: Vec<InterfaceSettings>,
    /// The Unix socket of the API.
    pub socket: PathBuf,
    /// Where services made on the command line, and overrides, are kept.
    pub state_dir: PathBuf,
    /// The directory on bpffs under which maps, programs and links are pinned.
    pub pin_dir: PathBuf,
    /// Addresses that full-nat translates to; empty: the host's own towards each backend.
    pub source_addresses: Vec<IpAddr>,
    /// Networks that the outer source addresses of mode `ipip` are of, so that flows differ; at most one of each IP
    /// version. Without one they are the host's own.
    pub ipip_sources: Vec<IpNet>,
    /// Whether the data plane writes a debug line for each packet into the agent's log.
    pub debug_packets: bool,
}

impl AgentSettings {
    /// [`AgentSettings::socket`] where none is given.
    pub const DEFAULT_SOCKET: &str = "/run/flowgate/flowgate.sock";
    /// [`AgentSettings::state_dir`] where none is given.
    pub const DEFAULT_STATE_DIR: &str = "/var/lib/flowgate";
    /// [`AgentSettings::pin_dir`] where none is given.
    pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/flowgate";
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            socket: Self::DEFAULT_SOCKET.into(),
            state_dir: Self::DEFAULT_STATE_DIR.into(),
            pin_dir: Self::DEFAULT_PIN_DIR.into(),
            source_addresses: Vec::new(),
            ipip_sources: Vec::new(),
            debug_packets: false,
        }
    }
}

/// One interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSettings {
    /// Its name, as `ip link` shows it.
    pub name: String,
    /// How the program is attached.
    pub mode: AttachMode,
}

/// How the XDP program is attached to an interface.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum AttachMode {
    /// In the driver; refused where the driver cannot.
    Native,
    /// In the kernel's stack, after the socket buffer is made: slower, works everywhere.
    Generic,
    /// Native where the driver can, generic (and a warning in `status`) where it cannot.
    #[default]
    Auto,
}

impl AttachMode {
    /// The word for it in files, commands and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Auto => "auto",
        }
    }
}
