//! Services and backends.

use std::{fmt, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{HealthCheck, ServiceName};

/// A virtual address, a port and a protocol that clients connect to, and the backends behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique among all services.
    pub name: ServiceName,
    /// Address and port; with `protocol`, unique among all services. The port is not 0.
    pub address: SocketAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// How packets reach the backends.
    pub mode: Mode,
    /// How a backend is chosen for a new flow.
    pub scheduler: Scheduler,
    /// `source-hash` alone: how many leading bits of a client's address count; all of them where absent.
    pub affinity_prefix: Option<u8>,
    /// How long an established or UDP flow without packets is remembered.
    pub idle_timeout: Duration,
    /// TCP: how long a connection is remembered of which no more than the SYN was seen.
    pub half_open_timeout: Duration,
    /// TCP: how long a connection that is over is remembered, for packets that are late; full-nat gives its port to
    /// another only then, while it has others.
    pub closing_timeout: Duration,
    /// What becomes of a backend's flows when it goes down.
    pub on_down: OnDown,
    /// How new flows are refused that no backend can take.
    pub refuse: Refuse,
    /// Whether Flowgate answers pings to the address. Else the kernel does, where it has the address.
    pub answer_ping: bool,
    /// How packets in parts are steered.
    pub fragments: Fragments,
    /// How long a backend that has come up takes until it has its whole share; zero: it has it at once.
    pub slow_start: Duration,
    /// Percent of backends, by weight, below which panic sets in; 0: never.
    pub panic_threshold: u8,
    /// What panic does.
    pub panic_action: PanicAction,
    /// Percent of the backends of the priorities in use, by weight, that must be up; below, the next is used as well.
    pub failover_below: u8,
    /// `gue` alone: the UDP port that backends take packets at. Else [`Service::DEFAULT_TUNNEL_PORT`].
    pub tunnel_port: u16,
    /// `ipip`, `gue`: what outer IPv4 headers say of fragments. Else the default.
    pub tunnel_dont_fragment: TunnelDontFragment,
    /// How backends are probed.
    pub health: HealthCheck,
    /// No address and port twice; all of the service's IP version, but for `ipip` and `gue`.
    pub backends: Vec<Backend>,
}

impl Service {
    /// [`Service::idle_timeout`] where none is given.
    pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
    /// [`Service::half_open_timeout`] where none is given: time for a client's retransmissions.
    pub const DEFAULT_HALF_OPEN_TIMEOUT: Duration = Duration::from_secs(60);
    /// [`Service::closing_timeout`] where none is given: as long as Linux is in TIME-WAIT (`TCP_TIMEWAIT_LEN`). A backend
    /// that is answers a SYN from the same port only if its timestamp is newer (RFC 7323, 5.2), and those of two
    /// clients, or of two ports of one, have nothing in common.
    pub const DEFAULT_CLOSING_TIMEOUT: Duration = Duration::from_secs(60);
    /// [`Service::tunnel_port`] where none is given.
    pub const DEFAULT_TUNNEL_PORT: u16 = lb_common::tunnel::GUE_PORT;
    /// [`Service::failover_below`] where none is given.
    pub const DEFAULT_FAILOVER_BELOW: u8 = 50;

    /// The backend at `address`.
    #[must_use]
    pub fn backend(&self, address: SocketAddr) -> Option<&Backend> {
        self.backends.iter().find(|backend| backend.address == address)
    }
}

/// One server of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Address and port: the backend's identity within its service.
    pub address: SocketAddr,
    /// Share of new flows relative to the other backends: 0 (none) to [`Backend::MAX_WEIGHT`].
    pub weight: u16,
    /// 0 is used first, 1 where too few of 0 are up, and so on to [`Backend::MAX_PRIORITY`].
    pub priority: u8,
    /// Flows above which it gets no new ones; 0: no bound.
    pub max_flows: u32,
}

impl Backend {
    /// The last priority.
    pub const MAX_PRIORITY: u8 = 15;
    /// The largest weight.
    pub const MAX_WEIGHT: u16 = 1000;
    /// The weight of a backend for which none is given.
    pub const DEFAULT_WEIGHT: u16 = 10;
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[derive(clap::ValueEnum)]
        pub enum $name {
            $(
                $(#[$variant_doc])*
                #[serde(rename = $word)]
                #[value(name = $word)]
                $variant,
            )+
        }

        impl $name {
            /// The word for it in files, commands, metrics and JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// How packets in parts (IP fragments) are steered.
    Fragments {
        /// The first part by its ports; the others, which have none, follow it if they come after it.
        FollowFirst => "follow-first",
        /// All by their addresses, in any order: UDP, in modes whose answers do not come back by Flowgate.
        ByAddress => "by-address",
    }
}

words! {
    /// A transport protocol.
    Protocol {
        /// TCP.
        Tcp => "tcp",
        /// UDP.
        Udp => "udp",
    }
}

words! {
    /// How a packet reaches the backend.
    Mode {
        /// Source and destination are rewritten; replies come back through Flowgate.
        FullNat => "full-nat",
        /// The destination is rewritten; the backend answers to the client by way of Flowgate, which is its router.
        Nat => "nat",
        /// Only the MAC addresses are rewritten; replies go straight to the client.
        Dsr => "dsr",
        /// Encapsulated in IP; the backend takes that off and answers the client by itself.
        Ipip => "ipip",
        /// The same in UDP, so that routers and receive queues spread it.
        Gue => "gue",
    }
}

impl Mode {
    /// Whether packets are encapsulated.
    #[must_use]
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }

    /// Whether a backend's port may be another than the service's.
    #[must_use]
    pub const fn rewrites_ports(self) -> bool {
        matches!(self, Self::FullNat | Self::Nat)
    }
}

words! {
    /// Whether an outer IPv4 header says "don't fragment".
    TunnelDontFragment {
        /// As the packet in it says; around IPv6 it does.
        Copy => "copy",
        /// Always.
        Set => "set",
        /// Never: routers on the way may take it apart, and the backend puts it together again.
        Clear => "clear",
    }
}

words! {
    /// How a backend is chosen for a new flow.
    Scheduler {
        /// Consistent hashing of the client's address and port (Maglev).
        Maglev => "maglev",
        /// Consistent hashing of the client's address: all its flows go one way.
        SourceHash => "source-hash",
        /// One after the other, by weight.
        RoundRobin => "round-robin",
        /// Of two that hashing picks the one with fewer flows for its weight.
        LeastConn => "least-conn",
    }
}

words! {
    /// What becomes of a backend's flows when probes say that it is down.
    OnDown {
        /// Connections stay with it; SYNs and datagrams go elsewhere.
        Keep => "keep",
        /// All go elsewhere.
        Rehash => "rehash",
        /// Connections are answered by a RST, so that clients connect again at once.
        Reset => "reset",
    }
}

words! {
    /// How a new flow is refused that no backend can take.
    Refuse {
        /// Its packets are dropped: clients try again until they give up.
        Drop => "drop",
        /// Its packets are answered by a RST, or by "port unreachable" over ICMP.
        Reject => "reject",
    }
}

words! {
    /// What is done when fewer backends are up than the panic threshold asks for.
    PanicAction {
        /// All are used, whatever probes say.
        All => "all",
        /// None gets new flows.
        None => "none",
    }
}

words! {
    /// How far a flow has come.
    FlowState {
        /// TCP: a SYN, and nothing after it.
        HalfOpen => "half-open",
        /// TCP: a segment after the SYN.
        Established => "established",
        /// TCP: one side has sent a FIN.
        HalfClosed => "half-closed",
        /// TCP: it is over, and remembered for late packets.
        Closing => "closing",
        /// UDP.
        Datagrams => "datagrams",
    }
}

words! {
    /// What the operator says of a backend.
    AdminState {
        /// Gets new flows.
        Enabled => "enabled",
        /// Gets no new flows; old ones go on.
        Draining => "draining",
        /// Gets nothing, old flows included.
        Disabled => "disabled",
    }
}

words! {
    /// What probes say of a backend.
    Health {
        /// Gets new flows.
        Up => "up",
        /// Gets no new flows.
        Down => "down",
        /// No verdict yet: gets no new flows.
        Checking => "checking",
    }
}
