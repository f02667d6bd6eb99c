//! `flowgate service`.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::{
    address::{WeightedBackend, ip_address, weighted_backend},
    client::ClientArgs,
};
use crate::{
    config::entry::HealthKind,
    model::{
        Fragments, Mode, OnDown, PanicAction, Protocol, Refuse, Scheduler, ServiceName, TunnelDontFragment,
    },
};

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  flowgate service add web --address 10.1.0.10 --port 80 --protocol tcp
  flowgate service list
  flowgate service show web
  flowgate service remove web";

const ADD_EXAMPLES: &str = "\
EXAMPLES:
  flowgate service add web --address 10.1.0.10 --port 80 --protocol tcp
  flowgate service add web --address 10.1.0.10 --port 80 --protocol tcp \\
      --backend 10.2.0.11:8080 --backend 10.2.0.12:8080@20
  flowgate service add api --address 2001:db8::10 --port 443 --protocol tcp \\
      --health-type http --health-path /healthz --health-port 8081
  flowgate service add dns --address 10.1.0.53 --port 53 --protocol udp \\
      --mode dsr --idle-timeout 10s
  flowgate service add db --address 10.1.0.20 --port 5432 --protocol tcp \\
      --scheduler least-conn --on-down reset --refuse reject

A service made here is kept in the agent's state directory.
One that the configuration file declares can only be changed there.";

const SET_EXAMPLES: &str = "\
EXAMPLES:
  flowgate service set web --scheduler source-hash --affinity-prefix 24
  flowgate service set web --slow-start 1m --panic-threshold 40
  flowgate service set web --idle-timeout 10m
  flowgate service set web --health-type http --health-path /healthz
  flowgate service set web --health-interval 500ms --health-timeout 250ms";

/// `flowgate service`.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Make a service
    #[command(after_help = ADD_EXAMPLES)]
    Add(Box<ServiceAddArgs>),
    /// List services with their backends, flows and rates
    #[command(after_help = "EXAMPLES:\n  flowgate service list\n  flowgate service list --output json")]
    List(ServiceListArgs),
    /// Show one service and its backends
    #[command(
        after_help = "EXAMPLES:\n  flowgate service show web\n  flowgate service show web --output json"
    )]
    Show(ServiceArgs),
    /// Change a service; what is not named stays as it is
    #[command(
        after_help = SET_EXAMPLES
    )]
    Set(Box<ServiceSetArgs>),
    /// Remove a service and its backends
    #[command(after_help = "EXAMPLES:\n  flowgate service remove web")]
    Remove(ServiceArgs),
}

/// `flowgate service add`.
#[derive(Debug, Args)]
pub(crate) struct ServiceAddArgs {
    /// Its name: letters, digits, `.`, `_` and `-`
    pub(crate) name: ServiceName,
    /// The address that clients connect to
    #[arg(long, value_name = "ADDRESS", value_parser = ip_address)]
    pub(crate) address: IpAddr,
    /// The port that clients connect to
    #[arg(long)]
    pub(crate) port: u16,
    /// The protocol
    #[arg(long, value_enum)]
    pub(crate) protocol: Protocol,
    /// A backend, with its weight if it is not 10: ADDRESS[:PORT][@WEIGHT]; may be given several times
    #[arg(long = "backend", value_name = "BACKEND", value_parser = weighted_backend)]
    pub(crate) backends: Vec<WeightedBackend>,
    #[command(flatten)]
    pub(crate) options: ServiceOptions,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    // Last: its heading holds for whatever follows.
    #[command(flatten)]
    pub(crate) health: HealthArgs,
}

/// `flowgate service list`.
#[derive(Debug, Args)]
pub(crate) struct ServiceListArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// A command on one service.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// The service
    pub(crate) name: ServiceName,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `flowgate service set`.
#[derive(Debug, Args)]
pub(crate) struct ServiceSetArgs {
    /// The service
    pub(crate) name: ServiceName,
    #[command(flatten)]
    pub(crate) options: ServiceOptions,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    // Last: its heading holds for whatever follows.
    #[command(flatten)]
    pub(crate) health: HealthArgs,
}

// No doc comments on what is flattened: clap would make them the command's own.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServiceOptions {
    /// How packets reach the backends [a new service: full-nat]
    #[arg(long, value_enum)]
    pub(crate) mode: Option<Mode>,
    /// How a backend is chosen for a new flow [a new service: maglev]
    #[arg(long, value_enum)]
    pub(crate) scheduler: Option<Scheduler>,
    /// source-hash: how many leading bits of a client's address count, so that a network sticks together [a new
    /// service: all]
    #[arg(long, value_name = "BITS")]
    pub(crate) affinity_prefix: Option<u8>,
    /// How long an established or UDP flow without packets is remembered [a new service: 5m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) idle_timeout: Option<String>,
    /// tcp: how long a connection is remembered that has not got beyond its SYN [a new service: 1m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) half_open_timeout: Option<String>,
    /// tcp: how long a connection that is over is remembered, for late packets [a new service: 1m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) closing_timeout: Option<String>,
    /// What becomes of a backend's flows when it goes down [a new service: keep]
    #[arg(long, value_enum)]
    pub(crate) on_down: Option<OnDown>,
    /// How new flows are refused that no backend can take [a new service: drop]
    #[arg(long, value_enum)]
    pub(crate) refuse: Option<Refuse>,
    /// Whether Flowgate answers pings to the service's address [a new service: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) answer_ping: Option<bool>,
    /// How packets in parts are steered [a new service: follow-first]
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) fragments: Option<Fragments>,
    /// How long a backend that comes up takes to its whole share; 0s for at once [a new service: 0s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) slow_start: Option<String>,
    /// Percent of backends that must be up, else panic sets in; 0 for never [a new service: 0]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100))]
    pub(crate) panic_threshold: Option<u8>,
    /// In panic, use all backends whatever probes say, or none [a new service: all]
    #[arg(long, value_enum)]
    pub(crate) panic_action: Option<PanicAction>,
    /// Percent of a priority's backends that must be up, else the next priority is used as well [a new service: 50]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100))]
    pub(crate) failover_below: Option<u8>,
    /// gue: the UDP port that backends take packets at [a new service: 6080]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) tunnel_port: Option<u16>,
    /// ipip, gue: what outer IPv4 headers say of fragments [a new service: copy]
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) tunnel_dont_fragment: Option<TunnelDontFragment>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Health check")]
pub(crate) struct HealthArgs {
    /// What is asked of a backend [a new service: tcp for TCP, none for UDP]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) health_type: Option<HealthKind>,
    /// http: path and query [default: /]
    #[arg(long, value_name = "PATH")]
    pub(crate) health_path: Option<String>,
    /// http: the Host header [default: the backend's address and port]
    #[arg(long, value_name = "HOST")]
    pub(crate) health_host: Option<String>,
    /// http: the status that passes, or a range such as 200-299 [default: 200-399]
    #[arg(long, value_name = "STATUS")]
    pub(crate) health_expect_status: Option<String>,
    /// From one probe to the next [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) health_interval: Option<String>,
    /// How long a backend may take to answer [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) health_timeout: Option<String>,
    /// Passed probes in a row that make a backend up [default: 2]
    #[arg(long, value_name = "PROBES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) health_rise: Option<u32>,
    /// Failed probes in a row that make a backend down [default: 3]
    #[arg(long, value_name = "PROBES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) health_fall: Option<u32>,
    /// The port to probe [default: the backend's]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) health_port: Option<u16>,
}

/// Checks a duration, and leaves it as it was written.
fn duration(text: &str) -> Result<String, String> {
    match humantime::parse_duration(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}: write it with its unit, for example 500ms, 2s or 5m")),
    }
}
