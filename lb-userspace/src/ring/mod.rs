//! The Maglev ring of one service: pure functions of its backends' identities and weights.
//!
//! A ring is an array of backend indices, and the hash of a flow names a slot. Every node that builds it from
//! the same backends gets the same ring, and a backend that comes or goes moves few slots that were not its
//! own.

mod hash;
mod maglev;
mod size;

pub use maglev::{Member, build};
pub use size::{SIZES, size};
