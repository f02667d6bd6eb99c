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
    /// How long a flow without packets is remembered.
    pub idle_timeout: Duration,
    /// How backends are probed.
    pub health: HealthCheck,
    /// No address and port twice; all of the service's IP version.
    pub backends: Vec<Backend>,
}

impl Service {
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
}

impl Backend {
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
        /// Only the MAC addresses are rewritten; replies go straight to the client.
        Dsr => "dsr",
    }
}

words! {
    /// How a backend is chosen for a new flow.
    Scheduler {
        /// Consistent hashing of the client's address and port (Maglev).
        Maglev => "maglev",
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
