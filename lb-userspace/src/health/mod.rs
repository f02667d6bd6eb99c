//! What probes say of a backend.
//!
//! The [`fsm`] turns outcomes into a health, the [`scheduler`] says when to probe, both without a clock of
//! their own; [`probe`] asks a backend; the [`monitor`] ties them together and tells what changed.

pub mod fsm;
pub mod monitor;
mod outcome;
pub mod probe;
pub mod scheduler;

pub use monitor::{HealthEvent, Monitor, Target};
pub use outcome::Outcome;
