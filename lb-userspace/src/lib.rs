//! Flowgate's agent and command line.
//!
//! The rooms and who may import whom are in ARCHITECTURE.md.

pub mod agent;
pub mod api;
pub mod cli;
pub mod config;
pub mod datapath;
pub mod health;
pub mod model;
pub mod neigh;
pub mod placement;
pub mod ring;
