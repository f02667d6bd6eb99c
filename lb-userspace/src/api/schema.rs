//! What the agent answers: the JSON of the API, which the command line prints with `--output json`.
//!
//! Requests use the shapes of `config::entry`, so a service has the same names in the file and here.

pub mod flows;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{
    config::entry::HealthEntry,
    model::{
        AdminState, AttachMode, Fragments, Health, Mode, OnDown, Origin, PanicAction, Protocol, Refuse,
        Scheduler, ServiceName, TunnelDontFragment,
    },
};

/// `GET /v1/status`: one screen's worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The agent.
    pub agent: AgentStatus,
    /// Every interface that the configuration names.
    pub interfaces: Vec<InterfaceStatus>,
    /// Every service, by name.
    pub services: Vec<ServiceRow>,
    /// What needs attention, the worst first.
    pub findings: Vec<Finding>,
}

/// The agent itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its version.
    pub version: String,
    /// The layout of the maps; another one means another pin directory.
    pub abi: u32,
    /// Its process id.
    pub pid: u32,
    /// Since it was started.
    pub uptime_seconds: u64,
    /// Whether it took over a running data plane when it started.
    pub adopted: bool,
    /// The configuration file, where it was given one.
    pub config: Option<String>,
    /// Where maps, programs and links are pinned.
    pub pin_dir: String,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its index; none while it is not there.
    pub index: Option<u32>,
    /// How the program is attached (never `auto`); none while it is not.
    pub attached: Option<AttachMode>,
    /// Packets seen, by what became of them.
    pub packets: PacketTotals,
}

/// Packets of one interface since the data plane was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketTotals {
    /// Sent on, in either direction.
    pub forwarded: u64,
    /// Handed to the kernel untouched.
    pub passed: u64,
    /// Answered by Flowgate itself: refused, or reset.
    pub answered: u64,
    /// Dropped.
    pub dropped: u64,
}

/// Something that needs attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The thing, for example `backend web 10.2.0.11:8080`.
    pub subject: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// How bad a finding is; the worst sorts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Traffic is being lost.
    Error,
    /// Traffic may be lost, or is slower than it need be.
    Warning,
}

/// One service, in `service list` and `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Its name.
    pub name: ServiceName,
    /// The address that clients connect to.
    pub address: IpAddr,
    /// The port that clients connect to.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The forwarding mode.
    pub mode: Mode,
    /// The scheduler.
    pub scheduler: Scheduler,
    /// Where it was declared.
    pub origin: Origin,
    /// Backends that get new flows.
    pub backends_up: usize,
    /// All backends.
    pub backends: usize,
    /// Flows remembered at this moment.
    pub flows: u64,
    /// Since it was made.
    pub totals: FlowTotals,
    /// Over the last second.
    pub rates: Rates,
}

/// One service in full: `service show`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceDetail {
    /// The row of `service list`.
    #[serde(flatten)]
    pub row: ServiceRow,
    /// Every option, each default filled in that has an effect.
    #[serde(flatten)]
    pub options: ServiceOptions,
    /// The priorities in use, the first always.
    pub priorities: Vec<u8>,
    /// Whether too few backends are up, so that the panic threshold decides.
    pub panic: bool,
    /// How its backends are probed, every default filled in.
    pub health_check: HealthEntry,
    /// Slots of its ring; 0 where no backend gets new flows.
    pub ring_slots: u32,
    /// Its backends.
    pub backend: Vec<BackendRow>,
}

/// A service's options, as the file has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceOptions {
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_prefix: Option<u8>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_open_timeout: Option<String>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing_timeout: Option<String>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_down: Option<OnDown>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuse: Option<Refuse>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_ping: Option<bool>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragments: Option<Fragments>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<String>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic_threshold: Option<u8>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic_action: Option<PanicAction>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover_below: Option<u8>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_port: Option<u16>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_dont_fragment: Option<TunnelDontFragment>,
}

/// One backend: `backend list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendRow {
    /// The service it belongs to.
    pub service: ServiceName,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The weight in force.
    pub weight: u16,
    /// Its priority.
    pub priority: u8,
    /// Flows above which it gets no new ones, where there is a bound.
    pub max_flows: Option<u32>,
    /// How much of its share it has got while it starts slowly, 0 to 1.
    pub slow_start: f64,
    /// What probes say.
    pub health: Health,
    /// Why it is `down` or `checking`, in words; empty while it is up.
    pub health_reason: String,
    /// What the operator says.
    pub admin_state: AdminState,
    /// Whether weight or admin state was overridden at run time.
    pub overridden: bool,
    /// Whether it gets new flows.
    pub active: bool,
    /// Its share of the ring, 0 to 1.
    pub share: f64,
    /// The next hop, once it is known.
    pub next_hop: Option<NextHopView>,
    /// Flows remembered at this moment.
    pub flows: u64,
    /// Since it was made.
    pub totals: FlowTotals,
    /// Seconds since `health` last changed.
    pub health_since_seconds: u64,
}

impl BackendRow {
    /// Address and port: the backend's name within its service.
    #[must_use]
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// Where packets for a backend leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHopView {
    /// The interface.
    pub interface: String,
    /// The next hop's address: the backend's own where it is on-link.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: String,
}

/// Packets, bytes and flows, counted by the data plane. Bytes are of whole frames as received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTotals {
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Packets from backends (full-nat).
    pub packets_out: u64,
    /// Bytes from backends (full-nat).
    pub bytes_out: u64,
    /// Flows begun.
    pub flows: u64,
}

/// Packets, bits and flows a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Packets a second, both directions.
    pub packets_per_second: u64,
    /// Bits a second, both directions.
    pub bits_per_second: u64,
    /// New flows a second.
    pub flows_per_second: u64,
}

/// `GET /v1/stats`: the data plane's counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// By interface and reason, zeroes included.
    pub reasons: Vec<ReasonRow>,
    /// The tables of flows.
    pub tables: Vec<TableRow>,
    /// By service.
    pub services: Vec<ServiceTotals>,
}

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonRow {
    /// The interface that the packets came in by.
    pub interface: String,
    /// The reason's name.
    pub reason: String,
    /// `forward`, `pass` or `drop`.
    pub verdict: String,
    /// Packets.
    pub packets: u64,
}

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRow {
    /// `steered` or `translated`.
    pub table: String,
    /// Slots in all.
    pub slots: u64,
    /// Slots that hold a live flow.
    pub used: u64,
}

/// One service's totals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTotals {
    /// The service.
    pub service: ServiceName,
    /// Its totals.
    #[serde(flatten)]
    pub totals: FlowTotals,
}

/// `PATCH /v1/services/NAME`: what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceChange {
    /// The forwarding mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_prefix: Option<u8>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_open_timeout: Option<String>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing_timeout: Option<String>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_down: Option<OnDown>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuse: Option<Refuse>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_ping: Option<bool>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragments: Option<Fragments>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<String>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic_threshold: Option<u8>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic_action: Option<PanicAction>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover_below: Option<u8>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_port: Option<u16>,
    /// As in `config::entry::ServiceEntry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_dont_fragment: Option<TunnelDontFragment>,
    /// The whole health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthEntry>,
}

/// `PATCH /v1/services/NAME/backends/ADDRESS:PORT`: what is absent stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendChange {
    /// The weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// The admin state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_state: Option<AdminState>,
    /// The priority: of services made on the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Flows above which it gets no new ones, 0 for no bound: of services made on the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_flows: Option<u32>,
}

/// `PATCH /v1/services/NAME/backends`: several backends at once, all or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendsChange {
    /// What is changed, by backend; no backend twice.
    pub backends: Vec<NamedBackendChange>,
}

/// One backend's part of a [`BackendsChange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedBackendChange {
    /// The backend.
    pub backend: SocketAddr,
    /// Its change.
    pub change: BackendChange,
}

/// The answer to a change: what was done, in words, one line each; empty where all was so already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// For example "service web added".
    pub changes: Vec<String>,
}

/// `POST /v1/config/diff`: a file that is not in force yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigText {
    /// What to call it in messages.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// What a file would change, if it were the agent's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigDiff {
    /// In words, one line each; empty where nothing would change.
    pub changes: Vec<String>,
    /// Each service that would change.
    pub services: Vec<ServiceShift>,
    /// Flows of this moment that would lose their backend.
    pub flows_moved: u64,
}

/// One service in a [`ConfigDiff`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceShift {
    /// The service.
    pub service: ServiceName,
    /// Every backend that it has or would have.
    pub backends: Vec<BackendShift>,
    /// Its flows that would lose their backend.
    pub flows_moved: u64,
}

/// One backend in a [`ServiceShift`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendShift {
    /// The backend.
    pub backend: SocketAddr,
    /// Its part of new flows, 0 to 1; none where it is not there.
    pub share_before: Option<f64>,
    /// What that would be, at the health of this moment; one that has not been probed yet is taken for up.
    pub share_after: Option<f64>,
    /// Its flows at this moment.
    pub flows: u64,
    /// Those of them that would lose it.
    pub flows_moved: u64,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong and the way out.
    pub error: String,
}
