//! Where a request goes: a hit in a flow table, or the scheduler's choice, which is then remembered.

use lb_common::{Addr, NextHop, Reason};

use crate::{
    arrival::Arrival,
    backend::{self, BackendRef},
    egress, flow, nat,
    service::ServiceRef,
};

/// Where a request goes.
pub struct Steered {
    pub backend: BackendRef,
    /// Whether the flow begins with this packet.
    pub is_new: bool,
    pub next_hop: &'static NextHop,
}

/// What a packet's addresses and ports become.
pub struct Translation<'a> {
    pub source: &'a Addr,
    pub source_port: [u8; 2],
    pub destination: &'a Addr,
    pub destination_port: [u8; 2],
}

/// Steers a client's packet that keeps its addresses.
#[inline(always)]
pub fn steered(arrival: &mut Arrival, service: &ServiceRef) -> Result<Steered, Reason> {
    let (backend, is_new) = flow::steer(arrival, service)?;
    Ok(Steered { backend, is_new, next_hop: egress::next_hop(backend.next_hop())? })
}

/// Steers a client's packet that gets others.
#[inline(always)]
pub fn translated(
    arrival: &mut Arrival,
    service: &ServiceRef,
) -> Result<(Steered, Translation<'static>), Reason> {
    let (flow, is_new) = nat::request(arrival, service)?;
    let backend = BackendRef::at(flow.backend()).ok_or(Reason::BadState)?;
    let to = Translation {
        source: backend::source(flow.source()).ok_or(Reason::BadState)?,
        source_port: flow.port().to_be_bytes(),
        destination: backend.addr(),
        destination_port: backend.port(),
    };
    Ok((Steered { backend, is_new, next_hop: egress::next_hop(backend.next_hop())? }, to))
}
