//! The daemon: one controller owns the desired state and the maps, everything else sends it messages.

pub mod command;
pub mod state;
mod run;

pub use run::{AgentOptions, LogFormat, run};
