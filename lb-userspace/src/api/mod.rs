//! The API: HTTP and JSON over a Unix socket. `schema` is what both ends speak.
//!
//! The agent's end is `server` (the socket) and `routes` (HTTP to commands and back); the command line's is
//! `client`. Whoever may open the socket may do everything: its mode and group are the access control.

pub mod client;
mod extract;
#[cfg(test)]
pub(crate) mod fake;
mod refused;
mod routes;
pub mod schema;
pub mod server;
#[cfg(test)]
mod tests;

/// The agent's socket where none is named.
pub const DEFAULT_SOCKET: &str = crate::model::AgentSettings::DEFAULT_SOCKET;

/// The largest body of a request.
const MAX_BODY_BYTES: usize = 1 << 20;
