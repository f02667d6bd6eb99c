//! A client's packet between parsing and steering.
//!
//! What begins a flow is a function of its own for the verifier, too: it walks it once, for any argument, and not
//! once for each way in which a packet can come to it. What it takes is therefore plain memory, and what it gives
//! back one word.

use lb_common::{
    FlowState, Life, Reason,
    hash::{FlowKey, flow_hash},
    life::{Course, TCP_ACK, TCP_SYN},
    service::PROTOCOL_TCP,
};

use crate::{
    backend::BackendRef, clock, explain, globals, packet::Packet, select, service::ServiceRef,
    steer::words_of,
};

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
    /// Index of the backend that a new flow gets.
    chosen: u32,
    /// How many ports are passed over when one is looked for: those that have turned out not to be free.
    pub first_try: u32,
}

const _: () = assert!(size_of::<Arrival>() == 80);

impl Arrival {
    /// The flow is in no slot.
    pub const NOWHERE: u32 = u32::MAX;

    /// Nothing is known yet.
    pub const UNKNOWN: Self = Self {
        packet: Packet::UNKNOWN,
        hash: 0,
        slot: Self::NOWHERE,
        service: 0,
        now: 0,
        chosen: 0,
        first_try: 0,
    };

    /// Completes what there is to know of a client's packet for a service.
    #[inline(always)]
    pub fn complete(&mut self, service: &ServiceRef) {
        if service.steers_parts_by_address() && self.packet.is_first_part() {
            // As the other parts, which have no port.
            self.packet.source_port = [0; 2];
        }
        let packet = &self.packet;
        let key = FlowKey {
            client: words_of(&packet.source),
            client_port: packet.source_port,
            service: service.index,
        };
        self.hash = flow_hash(globals::hash_key(), &key);
        self.service = service.index;
        explain::service(service.index);
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
        reused || life.expired_for(self.now, service.timeouts())
    }

    /// The life of a flow that this packet goes on with; `on_fin` as in [`Course`].
    #[inline(always)]
    pub fn used(&self, life: Life, service: &ServiceRef, on_fin: FlowState) -> Life {
        let course = Course { classes: service.classes(), on_fin };
        life.after(self.protocol(), self.packet.tcp_flags, self.now, course)
    }

    /// The life of a flow that begins with this packet.
    #[inline(always)]
    pub fn begun(&self, service: &ServiceRef, on_fin: FlowState) -> Life {
        let state = FlowState::first(self.protocol(), self.packet.tcp_flags, on_fin);
        Life::new(state, service.classes(), self.now)
    }

    /// Has the scheduler choose a backend for a new flow. Not while a flow is begun, whose own function has no stack
    /// to spare for it.
    #[inline(always)]
    pub fn choose_backend(&mut self) -> Result<(), Reason> {
        self.chosen = u32::from(Begun::unpack(choose_backend(self))?.backend());
        Ok(())
    }

    /// The backend that was chosen.
    #[inline(always)]
    pub fn chosen(&self) -> Result<BackendRef, Reason> {
        explain::backend(self.chosen as u16);
        BackendRef::at(self.chosen as u16).ok_or(Reason::BadState)
    }
}

/// The backend of a new flow: a [`Begun`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn choose_backend(arrival: *const Arrival) -> i64 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    Begun::pack(unsafe { arrival.as_ref() }.ok_or(Reason::BadState).and_then(|arrival| {
        let service = ServiceRef::at(arrival.service).ok_or(Reason::BadState)?;
        let backend = select::choose(&service, &arrival.packet.source, arrival.packet.source_port)?;
        Ok(Begun::new(backend.index, 0, 0))
    }))
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
