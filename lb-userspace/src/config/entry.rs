//! The shape of the configuration file and of the API's JSON: the same names in both.
//!
//! Values are as they were written; what they may be is decided in `config::validate`.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::model::{
    AttachMode, Fragments, Mode, OnDown, PanicAction, Protocol, Refuse, Scheduler, TunnelDontFragment,
};

/// A `[[service]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceEntry {
    /// Unique name.
    pub name: String,
    /// The address that clients connect to.
    pub address: String,
    /// The port that clients connect to.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: Protocol,
    /// The forwarding mode; `full-nat` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The scheduler; `maglev` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// `source-hash` only: leading bits of a client's address that count; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_prefix: Option<u8>,
    /// A duration such as "5m"; `5m` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// TCP only: a duration; `1m` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_open_timeout: Option<String>,
    /// TCP only: a duration; `1m` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing_timeout: Option<String>,
    /// What becomes of a backend's flows when it goes down; `keep` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_down: Option<OnDown>,
    /// How new flows are refused that no backend can take; `drop` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuse: Option<Refuse>,
    /// Whether pings to the address are answered where they come in; false where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_ping: Option<bool>,
    /// How packets in parts are steered; `follow-first` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragments: Option<Fragments>,
    /// A duration; "0s", which is off, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<String>,
    /// Percent of backends that must be up; 0, which is off, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic_threshold: Option<u8>,
    /// What is done below it; `all` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic_action: Option<PanicAction>,
    /// Percent of the priorities in use that must be up; 50 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover_below: Option<u8>,
    /// `gue` only: the UDP port that backends take packets at; 6080 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_port: Option<u16>,
    /// `ipip` and `gue` only: what outer IPv4 headers say of fragments; `copy` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_dont_fragment: Option<TunnelDontFragment>,
    /// How backends are probed; `tcp` for TCP services and `none` for UDP services where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthEntry>,
    /// The backends.
    #[serde(default, rename = "backend", skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendEntry>,
}

/// A `[[service.backend]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendEntry {
    /// The backend's address.
    pub address: String,
    /// Its port; the service's where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its weight; 10 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// 0 is used first, 1 where too few of 0 are up; 0 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Flows above which it gets no new ones; no bound where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_flows: Option<u32>,
}

/// A `[service.health]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthEntry {
    /// What is asked.
    #[serde(rename = "type")]
    pub kind: HealthKind,
    /// `http` only: path and query; `/` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `http` only: the `Host` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `http` only: "200" or "200-399"; `200-399` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_status: Option<String>,
    /// A duration; `2s` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// A duration; `1s`, or the interval where that is shorter, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// 2 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rise: Option<u32>,
    /// 3 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fall: Option<u32>,
    /// The port to probe; the backend's where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// The `type` of a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum HealthKind {
    /// No probes: up at once.
    None,
    /// A TCP connection.
    Tcp,
    /// An HTTP/1.1 request.
    Http,
}

impl HealthKind {
    /// The word for it in files, commands and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tcp => "tcp",
            Self::Http => "http",
        }
    }
}

/// The `[agent]` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentEntry {
    /// Names, or tables of a name and a mode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceEntry>,
    /// `/run/flowgate/flowgate.sock` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// `/var/lib/flowgate` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<String>,
    /// `/sys/fs/bpf/flowgate` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_dir: Option<String>,
    /// Addresses for full-nat to translate to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_addresses: Vec<String>,
    /// A network of each IP version at most: mode `ipip` sends from its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipip_sources: Vec<String>,
    /// Whether every packet's fate is written to the agent's log: for debugging only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug_packets: Option<bool>,
}

/// One of `agent.interfaces`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum InterfaceEntry {
    /// Just the name: mode `auto`.
    Name(String),
    /// Name and mode.
    Table(InterfaceTable),
}

/// One of `agent.interfaces` as a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceTable {
    /// The interface's name.
    pub name: String,
    /// How to attach.
    #[serde(default)]
    pub mode: AttachMode,
}

/// By hand, since a derived `untagged` forgets which field was wrong, and where.
impl<'de> Deserialize<'de> for InterfaceEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrTable;

        impl<'de> Visitor<'de> for NameOrTable {
            type Value = InterfaceEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name such as \"eth0\" or a table { name = \"eth0\", mode = \"auto\" }")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<InterfaceEntry, E> {
                Ok(InterfaceEntry::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<InterfaceEntry, A::Error> {
                let table = InterfaceTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(InterfaceEntry::Table(table))
            }
        }

        deserializer.deserialize_any(NameOrTable)
    }
}

/// The `[limits]` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsEntry {
    /// Flows in each table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<u32>,
    /// Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<u32>,
    /// Backends of all services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<u32>,
    /// Ring slots of all services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_slots: Option<u32>,
    /// First parts of packets; 0: other parts follow none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragments: Option<u32>,
}

/// A whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// `[agent]`.
    #[serde(default)]
    pub agent: AgentEntry,
    /// `[limits]`.
    #[serde(default)]
    pub limits: LimitsEntry,
    /// Every `[[service]]`, with its place in the text.
    #[serde(default, rename = "service", skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<toml::Spanned<ServiceEntry>>,
}
