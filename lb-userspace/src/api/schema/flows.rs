//! Flows, one by one and counted, and what would become of a packet.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{NextHopView, TableRow};
use crate::model::{FlowState, Mode, Protocol, Scheduler, ServiceName};

/// `POST /v1/flows/list`: every condition must be met; the most recently used come first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowQuery {
    /// Only those of this service.
    pub service: Option<ServiceName>,
    /// Only those of this backend.
    pub backend: Option<SocketAddr>,
    /// Only those of clients at this address; of steered flows (dsr) it is not known.
    pub from_address: Option<IpAddr>,
    /// Only those from this port; with `from_address`.
    pub from_port: Option<u16>,
    /// Only those in this state.
    pub state: Option<FlowState>,
    /// At most so many; 100 where absent.
    pub limit: Option<usize>,
}

/// The answer to a [`FlowQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowList {
    /// The flows.
    pub flows: Vec<FlowRow>,
    /// How many more meet the conditions.
    pub more: u64,
    /// Steered flows that could not be compared with `from_address`.
    pub not_compared: u64,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRow {
    /// Its service.
    pub service: ServiceName,
    /// Its backend.
    pub backend: SocketAddr,
    /// The client; not known of steered flows (dsr), of which the table has no more than a tag.
    pub client: Option<SocketAddr>,
    /// full-nat: what the backend sees in the client's place.
    pub source: Option<SocketAddr>,
    /// How far it has come.
    pub state: FlowState,
    /// Since its last packet.
    pub idle_seconds: u64,
    /// Until it is forgotten, if no packet comes.
    pub forgotten_in_seconds: u64,
}

/// `POST /v1/flows/count`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowCountQuery {
    /// Only those of this service.
    pub service: Option<ServiceName>,
    /// Only those of this backend.
    pub backend: Option<SocketAddr>,
    /// How to group them.
    pub by: Option<GroupBy>,
}

/// What flows are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum GroupBy {
    /// Their service.
    Service,
    /// Their backend.
    Backend,
    /// How far they have come.
    State,
    /// The client's /24 or /64; translated flows only.
    Client,
}

/// The answer to a [`FlowCountQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCount {
    /// All that meet the conditions, those that are closing among them.
    pub flows: u64,
    /// The tables, whatever the conditions.
    pub tables: Vec<TableRow>,
    /// The largest first; of clients no more than 20.
    pub groups: Vec<FlowGroup>,
    /// Flows in groups that are not listed.
    pub rest: u64,
}

/// Flows that have something in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowGroup {
    /// What they have in common.
    pub name: String,
    /// How many there are.
    pub flows: u64,
}

/// `POST /v1/lookup`: what would become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookupQuery {
    /// Its source.
    pub from: SocketAddr,
    /// Its destination.
    pub to: SocketAddr,
    /// `tcp` where absent.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// TCP: whether it opens a connection (SYN) or belongs to one.
    #[serde(default)]
    pub opens: bool,
}

/// The answer to a [`LookupQuery`], by the program itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// What would become of the packet: a reason, as `stats` has them.
    pub reason: String,
    /// `forward`, `pass`, `answer` or `drop`.
    pub verdict: String,
    /// The service that the packet is for, or whose flow it answers.
    pub service: Option<LookupService>,
    /// The flow that is remembered, if one is.
    pub flow: Option<LookupFlow>,
    /// The place on the ring of a new flow's backend, and how many there are.
    pub ring_slot: Option<(u32, u32)>,
    /// The backend that it would go to, or comes from.
    pub backend: Option<SocketAddr>,
    /// full-nat: what the backend would see in the client's place; port 0 is one that is yet to be picked.
    pub source: Option<SocketAddr>,
    /// Where it would leave.
    pub next_hop: Option<NextHopView>,
    /// The same in words.
    pub why: Vec<String>,
}

/// The service of a [`Lookup`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupService {
    /// Its name.
    pub name: ServiceName,
    /// Its forwarding mode.
    pub mode: Mode,
    /// Its scheduler.
    pub scheduler: Scheduler,
}

/// The flow of a [`Lookup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupFlow {
    /// What the packet is to it.
    pub fate: FlowFate,
    /// How far it has come.
    pub state: FlowState,
    /// Since its last packet.
    pub idle_seconds: u64,
}

/// What a packet is to a flow that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowFate {
    /// The packet goes on with it.
    GoesOn,
    /// It is over; the packet begins another.
    IsOver,
    /// Its backend is gone, disabled or down; the packet begins another, or is reset.
    Leaves,
    /// The packet answers it.
    IsAnswered,
}
