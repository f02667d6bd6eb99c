//! `flowgate backend`.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, Subcommand};

use super::{
    address::{NewBackend, ReweightedBackend, backend_address, new_backend, reweighted_backend, weight},
    client::ClientArgs,
};
use crate::model::{Backend, ServiceName};

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  flowgate backend add web 10.2.0.11:8080
  flowgate backend list web
  flowgate backend drain web 10.2.0.11:8080 --wait
  flowgate backend enable web 10.2.0.11:8080
  flowgate backend remove web 10.2.0.11:8080";

const ADD_EXAMPLES: &str = "\
EXAMPLES:
  flowgate backend add web 10.2.0.11:8080
  flowgate backend add web 10.2.0.11 --weight 20
  flowgate backend add web [2001:db8::1]:80
  flowgate backend add web 2001:db8::1";

const SET_EXAMPLES: &str = "\
EXAMPLES:
  flowgate backend set web 10.2.0.11:8080 --weight 20
  flowgate backend set web 10.2.0.11:8080 10.2.0.12:8080 --weight 0
  flowgate backend set web 10.2.0.11:8080=99 10.2.0.12:8080=1
  flowgate backend set web 10.2.0.11:8080 --max-flows 2000

Several backends change at once: no packet sees one changed and another not.
Weights are in force until `flowgate backend reset`, also over restarts.
Priority and max-flows of a service that the file declares are changed there.";

const DRAIN_EXAMPLES: &str = "\
EXAMPLES:
  flowgate backend drain web 10.2.0.11:8080
  flowgate backend drain web 10.2.0.11:8080 --wait
  flowgate backend drain web 10.2.0.11:8080 --wait --timeout 1h

The drain is in force until `flowgate backend enable` or `reset`, also where
--wait ends at its timeout (exit code 1).";

/// `flowgate backend`.
#[derive(Debug, Subcommand)]
pub(crate) enum BackendCommand {
    /// Add a backend to a service
    #[command(after_help = ADD_EXAMPLES)]
    Add(BackendAddArgs),
    /// List the backends of one service, or of all
    #[command(
        after_help = "EXAMPLES:\n  flowgate backend list\n  flowgate backend list web\n  flowgate backend list --output json"
    )]
    List(BackendListArgs),
    /// Show one backend
    #[command(after_help = "EXAMPLES:\n  flowgate backend show web 10.2.0.11:8080")]
    Show(BackendArgs),
    /// Change backends: weights, priority, bounds
    #[command(after_help = SET_EXAMPLES)]
    Set(BackendSetArgs),
    /// Give a backend no new flows; old ones go on
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Give a backend new flows again
    #[command(after_help = "EXAMPLES:\n  flowgate backend enable web 10.2.0.11:8080")]
    Enable(BackendArgs),
    /// Send a backend nothing, old flows included
    #[command(after_help = "EXAMPLES:\n  flowgate backend disable web 10.2.0.11:8080")]
    Disable(BackendArgs),
    /// End what was overridden at run time: weight and admin state are the declared ones again
    #[command(after_help = "EXAMPLES:\n  flowgate backend reset web 10.2.0.11:8080")]
    Reset(BackendArgs),
    /// Remove a backend; its flows break unless it was drained
    #[command(after_help = "EXAMPLES:\n  flowgate backend remove web 10.2.0.11:8080")]
    Remove(BackendArgs),
}

/// `flowgate backend add`.
#[derive(Debug, Args)]
pub(crate) struct BackendAddArgs {
    /// The service
    pub(crate) service: ServiceName,
    /// ADDRESS or ADDRESS:PORT; without a port, the service's
    #[arg(value_name = "ADDRESS[:PORT]", value_parser = new_backend)]
    pub(crate) backend: NewBackend,
    /// Share of new flows relative to the other backends, 0 to 1000 [default: 10]
    #[arg(long, value_parser = weight)]
    pub(crate) weight: Option<u16>,
    /// 0 is used first, 1 where too few of 0 are up, and so on to 15 [default: 0]
    #[arg(long, value_parser = priority())]
    pub(crate) priority: Option<u8>,
    /// Flows above which it gets no new ones [default: no bound]
    #[arg(long, value_name = "FLOWS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_flows: Option<u32>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

fn priority() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(..=i64::from(Backend::MAX_PRIORITY))
}

/// `flowgate backend list`.
#[derive(Debug, Args)]
pub(crate) struct BackendListArgs {
    /// Only the backends of this service
    pub(crate) service: Option<ServiceName>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// A command on one backend.
#[derive(Debug, Args)]
pub(crate) struct BackendArgs {
    /// The service
    pub(crate) service: ServiceName,
    /// The backend
    #[arg(value_name = "ADDRESS:PORT", value_parser = backend_address)]
    pub(crate) backend: SocketAddr,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `flowgate backend set`.
#[derive(Debug, Args)]
pub(crate) struct BackendSetArgs {
    /// The service
    pub(crate) service: ServiceName,
    /// The backends, each with its new weight if --weight is not for all
    #[arg(value_name = "ADDRESS:PORT[=WEIGHT]", required = true, value_parser = reweighted_backend)]
    pub(crate) backends: Vec<ReweightedBackend>,
    /// Share of new flows relative to the other backends, 0 to 1000
    #[arg(long, value_parser = weight)]
    pub(crate) weight: Option<u16>,
    /// 0 is used first, 1 where too few of 0 are up, and so on to 15
    #[arg(long, value_parser = priority())]
    pub(crate) priority: Option<u8>,
    /// Flows above which it gets no new ones; 0 for no bound
    #[arg(long, value_name = "FLOWS")]
    pub(crate) max_flows: Option<u32>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `flowgate backend drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The service
    pub(crate) service: ServiceName,
    /// The backend
    #[arg(value_name = "ADDRESS:PORT", value_parser = backend_address)]
    pub(crate) backend: SocketAddr,
    /// Wait until no flow is left
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", requires = "wait", default_value = "5m", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
