//! What Flowgate's data plane and its agent share: one definition for each key, layout, hash and counter.
//!
//! Pure and `no_std`: no clock, no I/O, no map. Every structure that both sides read has its size and
//! alignment asserted at compile time; a change of any of them is a change of [`abi::VERSION`].

#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod abi;
pub mod addr;
pub mod backend;
#[cfg_attr(
    target_arch = "bpf",
    expect(unsafe_code, reason = "one instruction that LLVM must not see through")
)]
pub mod branchless;
pub mod checksum;
pub mod counters;
pub mod decap;
pub mod explain;
pub mod features;
pub mod flow_table;
pub mod fragment;
pub mod hash;
pub mod life;
pub mod nat_table;
pub mod reason;
pub mod reject;
pub mod ring;
pub mod server;
pub mod service;
pub mod tunnel;

pub use addr::Addr;
pub use backend::{Backend, Interface, Load, NextHop, SourceRange};
pub use counters::{BACKEND_COUNTERS, BackendCounter};
pub use explain::Explanation;
pub use features::Features;
pub use life::{FlowState, Life, Timeouts};
pub use reason::{Reason, Verdict};
pub use server::Server;
pub use service::{AddressUse, Mode, Scheduler, Service, ServiceKey};
pub use tunnel::TunnelOptions;
