//! A client's packet between parsing and steering.
//!
//! What begins a flow is a function of its own for the verifier, too: it walks it once, for any argument, and not
//! once for each way in which a packet can come to it. What it takes is therefore plain memory, and what it gives
//! back one word.

use lb_common::{
    FlowState, Life, Reason,
    hash::{FlowKey, flow_hash, ring_hash},
    life::{TCP_ACK, TCP_SYN},
    service::PROTOCOL_TCP,
};

use crate::{backend::BackendRef, clock, globals, packet::Packet, select::maglev, service::ServiceRef};

/// A client's packet, as the tables of flows are asked about it: plain memory, handed to functions of their own.
#[repr(C)]
pub struct Arrival {
    pub packet: Packet,
    /// The flow's hash under the secret key.
    pub hash: u64,
    /// Where the flow was found, if it was and is over: its bucket times eight, plus slot. Else
    /// [`Arrival::NOWHERE`].
    pub slot: u32,
    /// Index of the service.
    pub service: u16,
    /// The tick of this moment.
    pub now: u16,
}

const _: () = assert!(size_of::<Arrival>() == 72);

impl Arrival {
    /// The flow is in no slot.
    pub const NOWHERE: u32 = u32::MAX;

    /// Nothing is known yet.
    pub const UNKNOWN: Self =
        Self { packet: Packet::UNKNOWN, hash: 0, slot: Self::NOWHERE, service: 0, now: 0 };

    /// Completes what there is to know of a client's packet for a service.
    #[inline(always)]
    pub fn complete(&mut self, service: &ServiceRef) {
        let packet = &self.packet;
        let key = FlowKey { client: packet.source, client_port: packet.source_port, service: service.index };
        self.hash = flow_hash(globals::hash_key(), &key);
        self.service = service.index;
        self.now = clock::now();
    }

    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.packet.destination.protocol
    }

    /// Whether this is the first packet of a TCP connection.
    #[inline(always)]
    pub fn is_syn(&self) -> bool {
        self.packet.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    }

    /// Whether the packet belongs to something that another backend cannot go on with.
    #[inline(always)]
    pub fn has_begun(&self) -> bool {
        self.protocol() == PROTOCOL_TCP && !self.is_syn()
    }

    /// Whether a flow in this state of life is over, or is begun anew by this packet.
    #[inline(always)]
    pub fn ends(&self, life: Life, service: &ServiceRef) -> bool {
        let reused = self.is_syn() && matches!(life.state(), FlowState::Closing);
        reused || life.expired_for(self.now, service.idle_ticks())
    }

    /// The life of a flow that this packet goes on with.
    #[inline(always)]
    pub fn used(&self, life: Life) -> Life {
        life.after(self.protocol(), self.packet.tcp_flags, self.now)
    }

    /// The life of a flow that begins with this packet.
    #[inline(always)]
    pub fn begun(&self, service: &ServiceRef) -> Life {
        let state = FlowState::first(self.protocol(), self.packet.tcp_flags);
        Life::new(state, service.idle_class(), self.now)
    }

    /// The scheduler's choice.
    #[inline(always)]
    pub fn choose_backend(&self, service: &ServiceRef) -> Result<BackendRef, Reason> {
        maglev::choose(service, ring_hash(&self.packet.source, self.packet.source_port))
    }
}

/// What a flow was given: backend (16 bits), port (16) and source address (8), the latter two for full-nat alone.
///
/// One word wherever it goes: parts of it on the stack would be stores that the verifier finds misaligned.
#[derive(Clone, Copy)]
pub struct Begun(u64);

impl Begun {
    #[inline(always)]
    pub const fn new(backend: u16, port: u16, source: u8) -> Self {
        Self(backend as u64 | (port as u64) << 16 | (source as u64) << 32)
    }

    /// Index of the backend.
    #[inline(always)]
    pub const fn backend(self) -> u16 {
        self.0 as u16
    }

    /// The port in place of the client's.
    #[inline(always)]
    pub const fn port(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Index of the source address.
    #[inline(always)]
    pub const fn source(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// As a function of its own returns it: negative for a refusal.
    #[inline(always)]
    pub fn pack(result: Result<Self, Reason>) -> i64 {
        match result {
            Ok(begun) => begun.0 as i64,
            Err(reason) => -1 - i64::from(reason as u32),
        }
    }

    /// From [`Begun::pack`].
    #[inline(always)]
    pub fn unpack(word: i64) -> Result<Self, Reason> {
        if word < 0 { Err(Reason::from_index((-1 - word) as u32)) } else { Ok(Self(word as u64)) }
    }
}
