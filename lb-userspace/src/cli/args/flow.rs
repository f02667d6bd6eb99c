//! `flowgate flow` and `flowgate lookup`.

use std::net::SocketAddr;

use clap::{Args, Subcommand};

use super::{
    address::{NewBackend, backend_address, new_backend},
    client::ClientArgs,
};
use crate::{
    api::schema::flows::GroupBy,
    model::{FlowState, Protocol, ServiceName},
};

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  flowgate flow list --service web
  flowgate flow count --by backend";

const LIST_EXAMPLES: &str = "\
EXAMPLES:
  flowgate flow list
  flowgate flow list --service web --state half-open
  flowgate flow list --from 198.51.100.7 --limit 10
  flowgate flow list --backend 10.2.0.11:8080 --output json

Of a flow in mode dsr the table keeps a tag and the backend: its client shows
as \"-\", and --from cannot find it. `flowgate lookup` can.";

const COUNT_EXAMPLES: &str = "\
EXAMPLES:
  flowgate flow count
  flowgate flow count --by backend --service web
  flowgate flow count --by client

Connections that are over count until they are forgotten; in backend list they
count only while they still have packets. --by client groups by the clients'
/24 or /64, shows the largest 20, and knows no flows in mode dsr.";

pub(super) const LOOKUP_EXAMPLES: &str = "\
EXAMPLES:
  flowgate lookup --from 198.51.100.7:40000 --to 10.1.0.10:80
  flowgate lookup --from [2001:db8::7]:99 --to [2001:db8::10]:53 --protocol udp
  flowgate lookup --from 198.51.100.7:40000 --to 10.1.0.10:80 --opens

The program itself answers, from what it remembers at this moment, and nothing
is changed by asking.";

/// `flowgate flow`.
#[derive(Debug, Subcommand)]
pub(crate) enum FlowCommand {
    /// List flows, the most recently used first
    #[command(after_help = LIST_EXAMPLES)]
    List(FlowListArgs),
    /// Count flows
    #[command(after_help = COUNT_EXAMPLES)]
    Count(FlowCountArgs),
}

/// `flowgate flow list`.
#[derive(Debug, Args)]
pub(crate) struct FlowListArgs {
    /// Only those of this service
    #[arg(long)]
    pub(crate) service: Option<ServiceName>,
    /// Only those of this backend
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = backend_address)]
    pub(crate) backend: Option<SocketAddr>,
    /// Only those of this client (full-nat)
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = new_backend)]
    pub(crate) from: Option<NewBackend>,
    /// Only those in this state
    #[arg(long, value_enum)]
    pub(crate) state: Option<FlowState>,
    /// Show at most so many
    #[arg(long, value_name = "FLOWS", default_value_t = 100)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `flowgate flow count`.
#[derive(Debug, Args)]
pub(crate) struct FlowCountArgs {
    /// Only those of this service
    #[arg(long)]
    pub(crate) service: Option<ServiceName>,
    /// Only those of this backend
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = backend_address)]
    pub(crate) backend: Option<SocketAddr>,
    /// Group them
    #[arg(long, value_enum)]
    pub(crate) by: Option<GroupBy>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// `flowgate lookup`.
#[derive(Debug, Args)]
pub(crate) struct LookupArgs {
    /// The packet's source
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = backend_address)]
    pub(crate) from: SocketAddr,
    /// The packet's destination
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = backend_address)]
    pub(crate) to: SocketAddr,
    /// The protocol
    #[arg(long, value_enum, default_value = "tcp")]
    pub(crate) protocol: Protocol,
    /// tcp: a packet that opens a connection (SYN), not one of a connection
    #[arg(long)]
    pub(crate) opens: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
