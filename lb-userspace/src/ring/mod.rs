//! The Maglev ring of one service: pure functions of its backends' identities and weights.
//!
//! A ring is an array of backend indices, and the hash of a flow names a slot. Every node that builds it from
//! the same backends gets the same ring, and a backend that comes or goes moves few slots that were not its
//! own.

mod hash;
mod maglev;
mod ramp;
mod sequence;
mod size;
mod turns;

pub use maglev::build;
pub use ramp::ramped;
pub use sequence::sequence;
pub use size::{SIZES, size};

use std::net::SocketAddr;

/// A backend that is to be on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// What its place on the ring comes from; no identity twice.
    pub identity: SocketAddr,
    /// Its share relative to the others, at most 1000; 0: not on the ring.
    pub weight: u16,
    /// What the ring's slots hold: the backend's index in the data plane.
    pub index: u16,
}
