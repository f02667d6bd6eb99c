//! Choosing a backend for a new flow. Knows the flow's hash and the service, never the packet.

pub mod maglev;
