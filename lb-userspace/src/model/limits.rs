//! Sizes of the data plane's tables.

/// The `[limits]` section: memory is allocated once, when the data plane is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Flows to be remembered at once in each of the two tables (steered flows, translated flows).
    /// The tables have at least twice as many slots, since they work best half full.
    pub flows: u32,
    /// Services at once.
    pub services: u32,
    /// Backends of all services at once; at most 65,535, which is what a flow's slot can name.
    pub backends: u32,
    /// Slots of all rings together, old and new ones during a change included.
    pub ring_slots: u32,
    /// Packets in parts whose first part is remembered at once, so that the others follow it; 0: they pass to the kernel.
    pub fragments: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { flows: 1 << 20, services: 1 << 10, backends: 1 << 12, ring_slots: 1 << 22, fragments: 1 << 14 }
    }
}
