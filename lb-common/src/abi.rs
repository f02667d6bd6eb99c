//! The contract between a loaded data plane and any agent that adopts it: map names, program names, globals.

/// The version of every layout in this crate. Pins live in a directory named after it, so that an agent never
/// opens maps of another layout.
pub const VERSION: u32 = 7;

/// Interfaces that one data plane serves. An interface's *slot* is its index in [`maps::INTERFACES`].
pub const MAX_INTERFACES: u32 = 64;

/// Source addresses of full-nat and of tunnels, IPv4 and IPv6 together: an entry's source index is one byte, and one value of it is
/// [`CLIENT_ITSELF`].
pub const MAX_SOURCES: u32 = 255;

/// In place of an index of a source address: the client's own address (mode `nat`).
pub const CLIENT_ITSELF: u8 = 255;

/// Next hops at once. Index 0 is none.
pub const MAX_NEXT_HOPS: u32 = 1 << 14;

/// Neighbours that clients' packets came from: an entry's client hop is two bytes. Index 0 is none.
pub const MAX_CLIENT_HOPS: u32 = 1 << 16;

/// The names of the maps, which are those of the statics in `lb-ebpf`.
pub mod maps {
    /// Hash: [`crate::ServiceKey`] to the service's index, a `u32`.
    pub const SERVICE_KEYS: &str = "SERVICE_KEYS";
    /// Array of [`crate::Service`], in memory.
    pub const SERVICES: &str = "SERVICES";
    /// Array of [`crate::Backend`], in memory.
    pub const BACKENDS: &str = "BACKENDS";
    /// Array of [`crate::ring::RingLine`], in memory.
    pub const RINGS: &str = "RINGS";
    /// Array of [`crate::NextHop`], in memory.
    pub const NEXT_HOPS: &str = "NEXT_HOPS";
    /// Array of [`crate::Interface`], in memory.
    pub const INTERFACES: &str = "INTERFACES";
    /// Array of [`crate::Addr`]: source addresses of full-nat and of tunnels, in memory.
    pub const SOURCES: &str = "SOURCES";
    /// Array of `u64`: [`crate::nat_table::ClientHop`], filled by the data plane.
    pub const CLIENT_HOPS: &str = "CLIENT_HOPS";
    /// Array of [`crate::flow_table::Bucket`], in memory.
    pub const FLOWS: &str = "FLOWS";
    /// Array of [`crate::flow_table::BucketHops`], in memory: beside `FLOWS`, for mode `nat`.
    pub const FLOW_HOPS: &str = "FLOW_HOPS";
    /// Hash: a server's address, port and protocol, as a [`crate::ServiceKey`], to the [`crate::Server`].
    pub const SERVERS: &str = "SERVERS";
    /// Array of [`crate::nat_table::NatBucket`], in memory.
    pub const NAT_FLOWS: &str = "NAT_FLOWS";
    /// Array of [`crate::nat_table::NatReply`], in memory.
    pub const NAT_REPLIES: &str = "NAT_REPLIES";
    /// Device map: interface slot to interface index.
    pub const EGRESS: &str = "EGRESS";
    /// Per-CPU array of `u64`: packets by interface slot and reason, see [`crate::reason::counter_index`].
    pub const PACKETS: &str = "PACKETS";
    /// Per-CPU array of [`crate::counters::BackendCounters`].
    pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTERS";
    /// Array of [`crate::Load`], in memory: by the backend's index.
    pub const LOADS: &str = "LOADS";
    /// Per-CPU array of `u64`: how many flows of each service round-robin has placed.
    pub const TURNS: &str = "TURNS";
    /// Per-CPU array of one `u64`: [`crate::reject::Allowance`] of ICMP errors.
    pub const ICMP_ERRORS: &str = "ICMP_ERRORS";
    /// Hash: addresses of services, as [`crate::Addr`], to a [`crate::AddressUse`].
    pub const ADDRESSES: &str = "ADDRESSES";
    /// Array of [`crate::fragment::FragmentEntry`], in memory.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Array of one `u64`, in memory: how many packets in parts have been translated.
    pub const IDENTIFICATIONS: &str = "IDENTIFICATIONS";
    /// Array of one [`crate::Explanation`], in memory.
    pub const EXPLANATION: &str = "EXPLANATION";
    /// Array of one [`super::Identity`], in memory.
    pub const IDENTITY: &str = "IDENTITY";

    /// Every map that is pinned.
    pub const ALL: [&str; 24] = [
        SERVICE_KEYS,
        SERVICES,
        BACKENDS,
        RINGS,
        NEXT_HOPS,
        INTERFACES,
        SOURCES,
        CLIENT_HOPS,
        FLOWS,
        FLOW_HOPS,
        SERVERS,
        NAT_FLOWS,
        NAT_REPLIES,
        EGRESS,
        PACKETS,
        BACKEND_COUNTERS,
        LOADS,
        TURNS,
        ICMP_ERRORS,
        ADDRESSES,
        FRAGMENTS,
        IDENTIFICATIONS,
        EXPLANATION,
        IDENTITY,
    ];
}

/// The names of the programs in the object.
pub mod programs {
    /// The balancer.
    pub const BALANCE: &str = "balance";
    /// Passes everything: what a veth pair's other end needs so that it takes frames from XDP.
    pub const PASS: &str = "pass";
    /// The decapsulator, for backends.
    pub const DECAP: &str = "decap";
}

/// The names of the read-only globals that the agent sets at load. The verifier sees them as constants.
pub mod globals {
    /// `u32`: buckets of [`super::maps::FLOWS`], less one.
    pub const FLOW_MASK: &str = "FLOW_MASK";
    /// `u32`: buckets of [`super::maps::NAT_FLOWS`], less one.
    pub const NAT_MASK: &str = "NAT_MASK";
    /// `u32`: entries of [`super::maps::NAT_REPLIES`], less one.
    pub const REPLY_MASK: &str = "REPLY_MASK";
    /// `u32`: entries of [`super::maps::FRAGMENTS`], a power of two; 0: parts of packets follow none.
    pub const FRAGMENT_SLOTS: &str = "FRAGMENT_SLOTS";
    /// `u64`: first half of the key of [`crate::hash::flow_hash`].
    pub const HASH_KEY_0: &str = "HASH_KEY_0";
    /// `u64`: second half of it.
    pub const HASH_KEY_1: &str = "HASH_KEY_1";
    /// `u16`: the first port that full-nat allocates.
    pub const NAT_PORT_FIRST: &str = "NAT_PORT_FIRST";
    /// `u16`: how many it may allocate.
    pub const NAT_PORT_COUNT: &str = "NAT_PORT_COUNT";
    /// `u32`: the slot of the interface that this instance of the program is attached to.
    pub const INTERFACE_SLOT: &str = "INTERFACE_SLOT";
    /// `u32`: [`crate::Features`] that packets may ask for.
    pub const FEATURES: &str = "FEATURES";
    /// `u8`: 1 in the instance that explains and changes nothing ([`crate::explain`]).
    pub const EXPLAINS: &str = "EXPLAINS";
    /// `u8`: 1 where every packet's fate is logged.
    pub const DEBUG_PACKETS: &str = "DEBUG_PACKETS";
}

/// What a loaded data plane was made with: a new agent takes it from here, since none of it can change while
/// flows are remembered.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// [`VERSION`]; 0 until the rest is written.
    pub abi: u32,
    /// Buckets of the table of steered flows, a power of two.
    pub flow_buckets: u32,
    /// Buckets of the table of translated flows, a power of two.
    pub nat_buckets: u32,
    /// Entries of the table of replies, a power of two.
    pub nat_replies: u32,
    /// Key of [`crate::hash::flow_hash`], chosen at random.
    pub hash_key: [u64; 2],
    /// Sizes of [`maps::SERVICES`], [`maps::BACKENDS`] and of all rings in slots.
    pub services: u32,
    /// See `services`.
    pub backends: u32,
    /// See `services`.
    pub ring_slots: u32,
    /// The first port that full-nat allocates.
    pub nat_port_first: u16,
    /// How many it may allocate.
    pub nat_port_count: u16,
    /// Entries of the table of first parts of packets, a power of two, or 0.
    pub fragments: u32,
    /// Zero.
    pub reserved: [u32; 3],
}

const _: () = assert!(size_of::<Identity>() == 64 && align_of::<Identity>() == 64);
