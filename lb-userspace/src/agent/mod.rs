//! The daemon: one controller owns the desired state and the maps, everything else sends it messages.
//!
//! ```text
//!   API ──Command──┐
//!   health ─event──┤              desired ┐
//!   neigh ──event──┼─► controller         ├─ facts ─► plan ─► datapath::Reconciler
//!   links ──event──┤                      ┘
//!   signals, tick ─┘
//! ```
//!
//! `facts` says what is true of each backend at this moment, `placements` who gets new flows, and `plan` what the data plane is to do about it, both
//! without I/O; `views` and `findings` put the same into the words of the API.

pub mod command;
mod compare;
mod controller;
mod edit;
mod facts;
mod findings;
mod flows;
mod interfaces;
mod lookup;
mod meter;
mod placements;
mod plan;
mod reload;
mod run;
pub mod state;
mod views;

pub use run::{AgentOptions, LogFormat, run};
