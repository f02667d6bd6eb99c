//! How a service's backends are probed.

use std::time::Duration;

/// The `[service.health]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked of a backend.
    pub probe: Probe,
    /// From the start of one probe to the start of the next.
    pub interval: Duration,
    /// A probe without an answer for so long has failed; not above `interval`.
    pub timeout: Duration,
    /// So many passed probes in a row make a backend `up`; at least 1.
    pub rise: u32,
    /// So many failed probes in a row make a backend `down`; at least 1.
    pub fall: u32,
    /// The port to probe; none: the backend's own.
    pub port: Option<u16>,
}

impl HealthCheck {
    /// [`HealthCheck::interval`] where none is given.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
    /// [`HealthCheck::timeout`] where none is given.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
    /// [`HealthCheck::rise`] where none is given.
    pub const DEFAULT_RISE: u32 = 2;
    /// [`HealthCheck::fall`] where none is given.
    pub const DEFAULT_FALL: u32 = 3;
}

/// What is asked of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Nothing: the backend is up at once.
    None,
    /// A TCP connection is accepted.
    Tcp,
    /// An HTTP/1.1 request is answered with an expected status.
    Http(HttpCheck),
}

/// What an `http` probe sends and expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// Path and query, beginning with `/`.
    pub path: String,
    /// The `Host` header; none: the backend's address and port.
    pub host: Option<String>,
    /// The lowest and the highest status that pass.
    pub expect_status: (u16, u16),
}
