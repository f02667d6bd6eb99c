//! Where a packet goes: a hit in a flow table, or the scheduler's choice, which is then remembered.

use lb_common::{Addr, Mode, Reason, abi::CLIENT_ITSELF};

use crate::{
    arrival::{Arrival, Begun},
    atomic,
    backend::{self, BackendRef},
    egress, explain, flow, globals, nat, servers,
    service::ServiceRef,
};

/// What is to be done with a packet that is ours: what steering finds out, and all that forwarding needs to know.
///
/// One for both directions: the code that writes packets is there once. Words, since single bytes take a place of eight
/// each on the program's stack.
pub struct Way {
    /// What the packet's addresses become, where `rewrites` says so, as [`atomic::read_words`] has them.
    pub source: [u64; 2],
    pub destination: [u64; 2],
    /// See [`lb_common::NextHop::of_words`].
    pub next_hop: [u64; 2],
    /// What its ports become, in wire order.
    pub source_port: [u8; 2],
    pub destination_port: [u8; 2],
    /// Index of the backend that it goes to or comes from.
    pub backend: u16,
    /// An answer: index of the neighbour that the client's packets come from.
    pub client_hop: u16,
    /// Whether addresses and ports change.
    pub rewrites: bool,
    /// Whether it is encapsulated: what its outer header says is found out where that is written.
    pub encapsulates: bool,
    /// Whether a flow begins with it.
    pub is_new: bool,
}

impl Way {
    /// Nothing is known yet.
    pub const UNKNOWN: Self = Self {
        source: [0; 2],
        destination: [0; 2],
        next_hop: [0; 2],
        source_port: [0; 2],
        destination_port: [0; 2],
        backend: 0,
        client_hop: 0,
        rewrites: false,
        encapsulates: false,
        is_new: false,
    };

    /// Back to a client, from what it has spoken to.
    #[inline(always)]
    pub fn answers(&mut self, service: &ServiceRef, client: [u64; 2], client_port: [u8; 2]) {
        self.rewrites = true;
        self.source = words_of(service.addr());
        self.source_port = service.port();
        self.destination = client;
        self.destination_port = client_port;
    }

    /// On to a backend, from `source`.
    #[inline(always)]
    fn asks(&mut self, backend: &BackendRef, source: &Addr, source_port: [u8; 2]) {
        self.rewrites = true;
        self.source = words_of(source);
        self.source_port = source_port;
        self.destination = words_of(backend.addr());
        self.destination_port = backend.port();
    }
}

/// An address as two words.
#[inline(always)]
pub fn words_of(address: &Addr) -> [u64; 2] {
    // SAFETY: a value of a map that does not change while it is used, or the program's own memory.
    unsafe { atomic::read_words(address) }
}

/// Finds out where a client's packet goes.
#[inline(always)]
pub fn request(arrival: &mut Arrival, service: &ServiceRef, way: &mut Way) -> Result<(), Reason> {
    arrival.complete(service);
    let (flow, is_new) = flow_of(arrival, service)?;
    let backend = BackendRef::at(flow.backend()).ok_or(Reason::BadState)?;
    way.backend = backend.index;
    way.is_new = is_new;
    let packet = &arrival.packet;
    if flow.port() != 0 {
        let is_clients = globals::shares_servers() && flow.source() == CLIENT_ITSELF;
        let source = if is_clients { Some(&packet.source) } else { backend::source(flow.source()) };
        way.asks(&backend, source.ok_or(Reason::BadState)?, flow.port().to_be_bytes());
    } else if globals::has_mode(Mode::Nat) && service.mode() == Mode::Nat as u8 {
        way.asks(&backend, &packet.source, packet.source_port);
    } else if globals::has_tunnels() && service.is_tunnel() {
        way.encapsulates = true;
    }
    explain::next_hop(backend.next_hop());
    way.next_hop = egress::next_hop(backend.next_hop())?;
    Ok(())
}

/// Finds out where a backend's packet goes, `way.client_hop` being known.
#[inline(always)]
pub fn answer(way: &mut Way) -> Result<(), Reason> {
    way.next_hop = egress::client_hop(way.client_hop)?;
    Ok(())
}

/// The flow of a client's packet, and whether it begins with it. Its port is 0 where the client's stays.
///
/// Of a service whose servers are other services' as well (`nat`), a flow that its server could not tell from another
/// is translated, too: it is given another port.
#[inline(always)]
fn flow_of(arrival: &mut Arrival, service: &ServiceRef) -> Result<(Begun, bool), Reason> {
    let is_full_nat = globals::has_mode(Mode::FullNat) && service.mode() == Mode::FullNat as u8;
    if (is_full_nat || service.shares_servers())
        && let Some(flow) = nat::known(arrival, service)?
    {
        return Ok((flow, false));
    }
    if is_full_nat {
        arrival.choose_backend()?;
        return Ok((nat::begin(arrival)?, true));
    }
    // Each table has its own slots.
    let translated_slot = core::mem::replace(&mut arrival.slot, Arrival::NOWHERE);
    let (flow, is_new) = flow::steer(arrival, service)?;
    if is_new && service.shares_servers() && servers::collides(arrival) != servers::ALONE {
        arrival.slot = translated_slot;
        return Ok((servers::begin_apart(arrival)?, true));
    }
    Ok((flow, is_new))
}
