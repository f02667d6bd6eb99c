//! The data plane as the agent sees it: the only room that knows aya, maps and pins.
//!
//! `load` brings programs and maps into the kernel or adopts what runs there, `pin` knows where they are kept,
//! `tables` gives the maps types, `apply` makes them what the controller wants, `flows`, `stats` and `view` read them.

pub mod apply;
pub mod decap;
pub mod explain;
pub mod flows;
mod live;
pub mod load;
mod loads;
pub mod log;
mod memory;
mod names;
pub mod pin;
mod space;
pub mod stats;
pub mod tables;
pub mod view;

/// The eBPF object that `cargo xtask build` has made.
#[must_use]
pub fn object() -> &'static [u8] {
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flowgate-ebpf"))
}

/// Why the data plane could not be brought up or changed.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// Something that the operator can mend.
    #[error("{0}")]
    Refused(String),
    /// The kernel refused.
    #[error("{action}: {cause}")]
    Kernel {
        /// What was being done.
        action: String,
        /// What the kernel said, with all causes.
        cause: String,
    },
}

impl DatapathError {
    fn kernel(action: impl Into<String>, error: &dyn std::error::Error) -> Self {
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            cause.push_str(": ");
            cause.push_str(&inner.to_string());
            source = inner.source();
        }
        Self::Kernel { action: action.into(), cause }
    }
}
