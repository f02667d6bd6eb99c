//! The daemon: one controller owns the desired state and the maps, everything else sends it messages.

pub mod command;
mod run;
pub mod state;

pub use run::{AgentOptions, LogFormat, run};
