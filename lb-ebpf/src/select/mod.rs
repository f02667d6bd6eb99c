//! Choosing a backend for a new flow. Knows the service and what of the client counts, never the packet.
//!
//! Every scheduler takes backends from the service's ring, which the agent has made for it: by hash, in turns, or the
//! better of two. So weights, slow start and who is on the ring at all are decided once, when the ring is made.

mod least_conn;
mod ring;
mod turns;

use lb_common::{
    Addr, Reason, Scheduler,
    hash::{ring_hash, ring_hash_again},
    ring::RingRef,
};

use crate::{backend::BackendRef, explain, service::ServiceRef};

/// Places on the ring that are tried until one is found whose backend takes another flow.
///
/// The first does, unless it has as many flows as it may. The agent takes full backends off the ring within half a
/// second, so this is for what comes until then.
const TRIES: u32 = 16;

/// The backend for a new flow of `client`.
#[inline(always)]
pub fn choose(service: &ServiceRef, client: &Addr, client_port: [u8; 2]) -> Result<BackendRef, Reason> {
    let ring = RingRef::unpack(service.ring());
    if ring.slots == 0 {
        return Err(Reason::NoBackend);
    }
    let scheduler = service.scheduler();
    let in_turns = scheduler == Scheduler::RoundRobin as u8;
    let by_load = scheduler == Scheduler::LeastConn as u8;
    let port = if scheduler == Scheduler::SourceHash as u8 { [0; 2] } else { client_port };
    let hash = ring_hash(service.client_words(client), port);
    let turn = if in_turns { turns::next(service) } else { 0 };
    let mut refusal = Reason::NoBackend;
    for attempt in 0..TRIES {
        let chosen = if in_turns {
            ring::at(service, ring, (turn.wrapping_add(attempt)) % ring.slots)
        } else if by_load {
            least_conn::better(service, ring, hash, attempt)
        } else {
            ring::at(service, ring, ring.slot(ring_hash_again(hash, attempt)))
        };
        match chosen {
            Ok(chosen) => {
                explain::ring_slot(chosen.slot);
                return Ok(chosen.backend);
            }
            Err(Reason::BackendsFull) => refusal = Reason::BackendsFull,
            Err(Reason::NoBackend) => {}
            Err(reason) => return Err(reason),
        }
    }
    Err(refusal)
}

/// A backend that takes a new flow, and its place on the ring.
pub struct Chosen {
    pub backend: BackendRef,
    pub slot: u32,
    /// Its flows, where the service counts them.
    pub flows: u64,
}
