//! What the agent sets at load: read-only, so the verifier takes them for constants and removes what they rule out.
//!
//! Their names are those of `lb_common::abi::globals`.

use aya_ebpf::{Global, btf_maps::Array, macros::btf_map};
use lb_common::{Features, Mode, abi::Identity};

use crate::service::IN_MEMORY;

/// What this data plane was made with, for the next agent; no packet asks.
#[btf_map]
static IDENTITY: Array<Identity, 1, IN_MEMORY> = Array::new();

#[unsafe(no_mangle)]
static FLOW_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static NAT_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static REPLY_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static FRAGMENT_SLOTS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static HASH_KEY_0: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static HASH_KEY_1: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static NAT_PORT_FIRST: Global<u16> = Global::new(0);
#[unsafe(no_mangle)]
static NAT_PORT_COUNT: Global<u16> = Global::new(0);
#[unsafe(no_mangle)]
static INTERFACE_SLOT: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static FEATURES: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static EXPLAINS: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
static DEBUG_PACKETS: Global<u8> = Global::new(0);

/// Buckets of the table of steered flows, less one.
#[inline(always)]
pub fn flow_mask() -> u32 {
    FLOW_MASK.load()
}

/// Buckets of the table of translated flows, less one.
#[inline(always)]
pub fn nat_mask() -> u32 {
    NAT_MASK.load()
}

/// Entries of the table of replies, less one.
#[inline(always)]
pub fn reply_mask() -> u32 {
    REPLY_MASK.load()
}

/// Entries of the table of first parts, less one, where there is one.
#[inline(always)]
pub fn fragment_mask() -> u32 {
    FRAGMENT_SLOTS.load().wrapping_sub(1)
}

/// Whether later parts of packets follow the first.
#[inline(always)]
pub fn follows_fragments() -> bool {
    has_services() && FRAGMENT_SLOTS.load() != 0
}

/// Whether there are services whose parts of packets go by their addresses.
#[inline(always)]
pub fn has_fragments_by_address() -> bool {
    Features(FEATURES.load()).has(Features::FRAGMENTS_BY_ADDRESS)
}

/// Whether parts of packets are anything but the kernel's affair.
#[inline(always)]
pub fn takes_fragments() -> bool {
    follows_fragments() || has_fragments_by_address()
}

/// The key of the flows' hash.
#[inline(always)]
pub fn hash_key() -> [u64; 2] {
    [HASH_KEY_0.load(), HASH_KEY_1.load()]
}

/// The ports that full-nat allocates: the first, and how many.
#[inline(always)]
pub fn nat_ports() -> (u16, u16) {
    (NAT_PORT_FIRST.load(), NAT_PORT_COUNT.load())
}

/// The slot of the interface that this instance of the program is attached to.
#[inline(always)]
pub fn interface_slot() -> u32 {
    INTERFACE_SLOT.load()
}

/// Whether the configuration has services of a mode.
#[inline(always)]
pub fn has_mode(mode: Mode) -> bool {
    Features(FEATURES.load()).has(Features::mode(mode))
}

/// Whether the configuration has services.
#[inline(always)]
pub fn has_services() -> bool {
    FEATURES.load() != Features::NONE.0
}

/// Whether the configuration has services whose packets are encapsulated.
#[inline(always)]
pub fn has_tunnels() -> bool {
    Features(FEATURES.load()).has_tunnels()
}

/// Whether there are servers that are backends of several services of mode `nat`.
#[inline(always)]
pub fn shares_servers() -> bool {
    Features(FEATURES.load()).has(Features::SHARED_SERVERS)
}

/// Whether there are addresses whose pings are answered.
#[inline(always)]
pub fn answers_pings() -> bool {
    Features(FEATURES.load()).has(Features::ANSWERED_PINGS)
}

/// Whether this instance explains what it would do, and does nothing.
#[inline(always)]
pub fn explains() -> bool {
    EXPLAINS.load() != 0
}

/// Whether every packet's fate is logged.
#[inline(always)]
pub fn debug_packets() -> bool {
    DEBUG_PACKETS.load() != 0
}
