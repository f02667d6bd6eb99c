//! Whether a packet is ours: for a service, or an answer to a flow of ours.

use lb_common::{Mode, Reason};

use crate::{
    fragment, globals, nat,
    packet::Packet,
    servers,
    service::{self, ServiceRef},
    steer::Way,
};

/// A packet that is ours.
pub enum Admitted {
    /// From a client.
    Request(ServiceRef),
    /// From a backend (full-nat, nat).
    Answer,
}

/// Finds out whose a packet is; of an answer, where it goes.
#[inline(always)]
pub fn admit(packet: &Packet, way: &mut Way) -> Result<Admitted, Reason> {
    let (admitted, is_routed) = match service_of(packet) {
        // dsr leaves the hop limit alone, as a switch would; else this is a router (RFC 1812, 5.3.1).
        Some(service) => (Admitted::Request(service), service.mode() != Mode::Dsr as u8),
        None if answers(packet, way) => (Admitted::Answer, true),
        None => return Err(Reason::NotService),
    };
    if !follows_or_is_whole(packet, &admitted) {
        return Err(Reason::Fragment);
    }
    if is_routed && packet.hop_limit <= 1 {
        // Its sender is told. A backend's answer is not: in nat it is the client's address that it is sent to.
        let is_request = matches!(admitted, Admitted::Request(_));
        return Err(if is_request { Reason::TimeExceeded } else { Reason::TtlExpired });
    }
    Ok(admitted)
}

/// Where no part follows another, a first part is of use to services alone that steer all of them by their addresses.
#[inline(always)]
fn follows_or_is_whole(packet: &Packet, admitted: &Admitted) -> bool {
    if globals::follows_fragments() || !packet.is_first_part() {
        return true;
    }
    matches!(admitted, Admitted::Request(service) if service.steers_parts_by_address())
}

/// The service that a packet is for.
#[inline(always)]
fn service_of(packet: &Packet) -> Option<ServiceRef> {
    if globals::has_fragments_by_address() && packet.is_later_part() {
        return fragment::service_of(packet);
    }
    service::lookup(&packet.destination)
}

/// Whether a packet answers a flow.
#[inline(always)]
fn answers(packet: &Packet, way: &mut Way) -> bool {
    let has_translated = globals::has_mode(Mode::FullNat) || globals::shares_servers();
    has_translated && nat::answers::<false>(packet, way).is_some()
        || globals::has_mode(Mode::Nat) && servers::answers(packet, way).is_some()
}
