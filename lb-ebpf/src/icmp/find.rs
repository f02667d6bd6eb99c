//! Whose the packet is that an ICMP error is about, and where the error goes.
//!
//! [`Arrival::packet`] is then the quoted packet, the other way round, as the one who sent it knows it.

use lb_common::{Addr, Mode, Scheduler, abi::CLIENT_ITSELF};

use crate::{
    arrival::{Arrival, Begun},
    backend::{self, BackendRef},
    flow,
    forward::bytes_of,
    found::Found,
    globals, nat,
    packet::Packet,
    servers,
    service::{self, ServiceRef},
    steer::Way,
};

/// How [`find_request`] is to know the flow's backend.
pub const AS_REMEMBERED: u32 = 0;
/// See [`AS_REMEMBERED`]: it was chosen since.
pub const AS_CHOSEN: u32 = 1;

/// What [`find_request`] returns of a flow that is not remembered, and whose backend is to be chosen. One that is only
/// steered may be another balancer's, too: whoever has the same ring knows where it goes.
pub const CHOOSE: i64 = -2;

/// A [`Found`] for an error about what a service has sent to a client: it goes to the backend.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_request(arrival: *mut Arrival, how: u32) -> i64 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    let found = unsafe { arrival.as_mut() }.and_then(|arrival| request(arrival, how));
    found.unwrap_or(Found::NONE)
}

#[inline(always)]
fn request(arrival: &mut Arrival, how: u32) -> Option<i64> {
    let service = service::lookup(&arrival.packet.destination)?;
    arrival.complete(&service);
    let flow = if how == AS_CHOSEN {
        Some(Begun::new(arrival.chosen().ok()?.index, 0, 0))
    } else {
        remembered(arrival, &service)
    };
    let Some(flow) = flow else {
        let is_hashed = service.scheduler() <= Scheduler::SourceHash as u8;
        return if is_hashed && !is_full_nat(&service) { Some(CHOOSE) } else { None };
    };
    // Of a backend that is disabled, or whose connections are reset, nobody is told.
    let backend = BackendRef::at(flow.backend())?;
    if !matches!(backend.keeps_flow_of(&service, true), Ok(true)) {
        return None;
    }
    let to = |how| Found::word(backend.index, backend.next_hop(), how);
    let packet = &mut arrival.packet;
    if flow.port() != 0 {
        let is_clients = globals::shares_servers() && flow.source() == CLIENT_ITSELF;
        if !is_clients {
            packet.source = *backend::source(flow.source())?;
        }
        packet.source_port = flow.port().to_be_bytes();
    } else if globals::has_tunnels() && service.is_tunnel() {
        return Some(to(Found::TUNNEL));
    } else if !(globals::has_mode(Mode::Nat) && service.mode() == Mode::Nat as u8) {
        return Some(to(0));
    }
    packet.destination.addr = *backend.addr();
    packet.destination.port = backend.port();
    Some(to(Found::TRANSLATED))
}

#[inline(always)]
fn is_full_nat(service: &ServiceRef) -> bool {
    globals::has_mode(Mode::FullNat) && service.mode() == Mode::FullNat as u8
}

/// The flow as it is remembered.
#[inline(always)]
fn remembered(arrival: &Arrival, service: &ServiceRef) -> Option<Begun> {
    if is_full_nat(service) || service.shares_servers() {
        let known = nat::seen(arrival, service);
        if known.is_some() || is_full_nat(service) {
            return known;
        }
    }
    flow::seen(arrival, service)
}

/// A [`Found`] for an error about what was sent to a backend of a translated flow: it goes to the client.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_translated(arrival: *mut Arrival) -> i64 {
    // SAFETY: as above.
    let Some(arrival) = (unsafe { arrival.as_mut() }) else { return Found::NONE };
    let mut way = Way::UNKNOWN;
    match nat::answers::<true>(&arrival.packet, &mut way) {
        Some(()) => to_client(&mut arrival.packet, &way),
        None => Found::NONE,
    }
}

/// The same for the `flow` of mode `nat` that [`servers::answered_flow`] has found.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_steered(arrival: *mut Arrival, flow: i64) -> i64 {
    // SAFETY: as above.
    let Some(arrival) = (unsafe { arrival.as_mut() }) else { return Found::NONE };
    let mut way = Way::UNKNOWN;
    match servers::answers_flow(flow, &arrival.packet, &mut way) {
        Some(()) => to_client(&mut arrival.packet, &way),
        None => Found::NONE,
    }
}

#[inline(always)]
fn to_client(packet: &mut Packet, way: &Way) -> i64 {
    packet.source = Addr(bytes_of(way.source));
    packet.source_port = way.source_port;
    packet.destination.addr = Addr(bytes_of(way.destination));
    packet.destination.port = way.destination_port;
    Found::word(way.backend, u32::from(way.client_hop), Found::ANSWER | Found::TRANSLATED)
}
