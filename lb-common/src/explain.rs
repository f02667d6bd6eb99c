//! What the data plane says of a packet that it is only asked about.

/// The answer of the instance that explains and changes nothing. Words that do not apply are 0.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// A [`crate::Reason`].
    pub reason: u32,
    /// Index of the service, where the packet is for one or answers a flow of one.
    pub service: u32,
    /// Index of the backend.
    pub backend: u32,
    /// Index in `NEXT_HOPS` of a request's next hop.
    pub next_hop: u32,
    /// One of [`Explanation::GOES_ON`], [`Explanation::IS_OVER`], [`Explanation::LEAVES`],
    /// [`Explanation::IS_ANSWER`]; 0 where no flow is remembered.
    pub flow: u32,
    /// Where the flow is remembered: bucket times eight, plus slot, or the index of a reply.
    pub slot: u32,
    /// The flow's [`crate::Life`], as it was remembered.
    pub life: u32,
    /// The place on the ring that a new flow's backend is from, plus one.
    pub ring_slot: u32,
    /// full-nat: the port towards the backend of a flow that goes on.
    pub nat_port: u32,
    /// full-nat: index of the source address towards the backend.
    pub source: u32,
}

const _: () = assert!(size_of::<Explanation>() == 40 && align_of::<Explanation>() == 8);

impl Explanation {
    /// The packet goes on with a flow that is remembered.
    pub const GOES_ON: u32 = 1;
    /// A flow is remembered and over; a new one begins.
    pub const IS_OVER: u32 = 2;
    /// A flow is remembered, but its backend is gone, disabled or down; a new one begins.
    pub const LEAVES: u32 = 3;
    /// The packet answers a flow that is remembered.
    pub const IS_ANSWER: u32 = 4;
}
