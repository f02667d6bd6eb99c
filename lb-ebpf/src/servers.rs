//! Mode `nat`: whose backend a packet comes from, and which flow it answers.
//!
//! The client's address is kept, so an answer is told by the server that it comes from. A server may be a backend of
//! several services; the flow tells which one it answers.

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
use lb_common::{Reason, Server, ServiceKey, abi::CLIENT_ITSELF, hash::FlowKey, server::SERVER_SERVICES};

use crate::{
    arrival::{Arrival, Begun},
    atomic, explain, flow, globals, nat,
    packet::Packet,
    service::ServiceRef,
    steer::{Way, words_of},
};

/// The agent sets the size at load.
#[btf_map]
static SERVERS: HashMap<ServiceKey, Server, 1> = HashMap::new();

/// Whether a server's packet answers a flow; where it goes, if it does.
#[inline(always)]
pub fn answers(packet: &Packet, way: &mut Way) -> Option<()> {
    answers_flow(answered_flow(packet, USES), packet, way)
}

/// Where the packet goes that answers the flow that [`answered_flow`] has found.
#[inline(always)]
pub fn answers_flow(found: i64, packet: &Packet, way: &mut Way) -> Option<()> {
    if found < 0 {
        return None;
    }
    let service = ServiceRef::at((found >> 32) as u16)?;
    explain::service(service.index);
    way.answers(&service, words_of(&packet.destination.addr), packet.destination.port);
    way.backend = found as u16;
    way.client_hop = (found >> 16) as u16;
    Some(())
}

/// The flow that a packet answers: its backend, from bit 16 on where its client is, and from bit 32 on its service;
/// [`NOT_ANSWERED`] where there is none. With [`PEEKS`] it is left as it is. A function of its own for the verifier, see [`crate::arrival`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn answered_flow(packet: *const Packet, peeks: u32) -> i64 {
    // SAFETY: a `Packet` on the caller's stack, or null, which the verifier supposes.
    let Some(packet) = (unsafe { packet.as_ref() }) else { return NOT_ANSWERED };
    let key = ServiceKey::new(packet.source, packet.source_port, packet.destination.protocol);
    // SAFETY: a slot that is reused meanwhile holds another server's services, and the flow is compared with the packet.
    let Some(server) = (unsafe { SERVERS.get(&key) }) else { return NOT_ANSWERED };
    for place in 0..SERVER_SERVICES {
        // SAFETY: an aligned half-word of a map's value.
        let service = unsafe { atomic::read(&raw const server.services[place]) };
        if service == 0 {
            return NOT_ANSWERED;
        }
        let found = answered_flow_of(packet, service, peeks);
        if found >= 0 {
            return found | i64::from(service) << 32;
        }
    }
    NOT_ANSWERED
}

/// What [`answered_flow`] returns of a packet that answers none.
pub const NOT_ANSWERED: i64 = -1;

/// The packet goes on with the flow that it answers.
const USES: u32 = 0;
/// The flow is asked about and left as it is.
pub const PEEKS: u32 = 1;

/// The same of one service; a function of its own for the verifier as well.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn answered_flow_of(packet: *const Packet, service: u16, peeks: u32) -> i64 {
    // SAFETY: as above.
    let found = unsafe { packet.as_ref() }
        .and_then(|packet| flow::answered(packet, &ServiceRef::at(service)?, peeks == PEEKS));
    match found {
        Some((backend, client_hop)) => i64::from(backend) | i64::from(client_hop) << 16,
        None => NOT_ANSWERED,
    }
}

/// What [`collides`] returns of a flow that its server can tell from all others.
pub const ALONE: i32 = 0;
const COLLIDES: i32 = 1;

/// Looks for another flow that looks the same to the server of a flow that has just begun: one of the same client to
/// another service. Where there is one, the new flow is forgotten.
///
/// After the flow has begun and not before: of two that begin at once on two CPUs, at least one sees the other.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn collides(arrival: *const Arrival) -> i32 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    let Some(arrival) = (unsafe { arrival.as_ref() }) else { return ALONE };
    let Ok(backend) = arrival.chosen() else { return ALONE };
    let port = arrival.packet.source_port;
    if globals::explains() {
        return ALONE;
    }
    if !is_known(arrival, port, arrival.service) && !nat::is_taken(arrival, &backend, port) {
        return ALONE;
    }
    flow::forget(&key_of(arrival, port, arrival.service));
    COLLIDES
}

/// How often another port is looked for.
const TRIES: u32 = 4;

/// Begins a flow that is given another port than its client's, which no flow of that client has.
#[inline(always)]
pub fn begin_apart(arrival: &mut Arrival) -> Result<Begun, Reason> {
    for _ in 0..TRIES {
        let flow = nat::begin(arrival)?;
        if is_clients_port(arrival, flow.port()) == 0 || globals::explains() {
            return Ok(flow);
        }
        forget_apart(arrival, flow.backend(), flow.port());
        arrival.first_try += 1;
    }
    Err(Reason::PortsExhausted)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn forget_apart(arrival: *const Arrival, backend: u16, port: u16) -> i32 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    if let Some(arrival) = unsafe { arrival.as_ref() } {
        nat::forget(arrival, Begun::new(backend, port, CLIENT_ITSELF));
    }
    0
}

/// Whether the client has spoken to the server that was chosen from that port itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_clients_port(arrival: *const Arrival, port: u16) -> i32 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    unsafe { arrival.as_ref() }.map_or(0, |arrival| i32::from(is_known(arrival, port.to_be_bytes(), 0)))
}

/// Whether the client's `port` is that of a steered flow, of another service than `except`, to the server that was
/// chosen.
#[inline(always)]
pub fn is_known(arrival: &Arrival, port: [u8; 2], except: u16) -> bool {
    let Ok(backend) = arrival.chosen() else { return false };
    let key = ServiceKey::new(*backend.addr(), backend.port(), arrival.protocol());
    // SAFETY: as in `answers`.
    let Some(server) = (unsafe { SERVERS.get(&key) }) else { return false };
    for place in 0..SERVER_SERVICES {
        // SAFETY: an aligned half-word of a map's value.
        let service = unsafe { atomic::read(&raw const server.services[place]) };
        if service == 0 {
            return false;
        }
        if service != except && flow::is_known(&key_of(arrival, port, service), &backend) {
            return true;
        }
    }
    false
}

#[inline(always)]
fn key_of(arrival: &Arrival, client_port: [u8; 2], service: u16) -> FlowKey {
    FlowKey { client: words_of(&arrival.packet.source), client_port, service }
}
