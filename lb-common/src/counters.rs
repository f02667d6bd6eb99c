//! What is counted for each backend.

/// How many counters a backend has.
pub const BACKEND_COUNTERS: usize = 5;

/// A backend's counters: index of [`BackendCounters`].
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendCounter {
    /// Packets from clients.
    PacketsIn = 0,
    /// Bytes from clients, whole frames as received.
    BytesIn = 1,
    /// Packets back from the backend (full-nat).
    PacketsOut = 2,
    /// Bytes back from the backend (full-nat), whole frames as received.
    BytesOut = 3,
    /// Flows begun.
    Flows = 4,
}

/// A backend's counters on one CPU.
pub type BackendCounters = [u64; BACKEND_COUNTERS];

const _: () = assert!(BackendCounter::Flows as usize + 1 == BACKEND_COUNTERS);
