//! Whether a packet is ours: for a service, or an answer to a flow of ours.

use lb_common::{Mode, Reason};

use crate::{
    nat,
    packet::Packet,
    service::{self, ServiceRef},
};

/// A packet that is ours.
pub enum Admitted {
    /// From a client.
    Request(ServiceRef),
    /// From a backend (full-nat).
    Reply(nat::Reply),
}

/// Finds out whose a packet is.
#[inline(always)]
pub fn admit(packet: &Packet) -> Result<Admitted, Reason> {
    let admitted = match service::lookup(&packet.destination) {
        Some(service) => Admitted::Request(service),
        None => Admitted::Reply(nat::reply(packet).ok_or(Reason::NotService)?),
    };
    // dsr leaves the hop limit alone, as a switch would; full-nat is a router (RFC 1812, 5.3.1).
    let routed = match &admitted {
        Admitted::Request(service) => service.mode() == Mode::FullNat as u8,
        Admitted::Reply(_) => true,
    };
    if routed && packet.hop_limit <= 1 {
        return Err(Reason::TtlExpired);
    }
    Ok(admitted)
}
