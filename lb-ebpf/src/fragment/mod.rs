//! Parts of packets. The first has ports and goes the way of every packet; the others follow it (`follow-first`), or
//! all go by their addresses (`by-address`, UDP in modes whose answers do not come back here).
//!
//! Functions of their own for the verifier, see [`crate::arrival`]; whole packets meet none of them.

mod table;
mod write;

use aya_ebpf::programs::XdpContext;
use lb_common::{Reason, fragment::FragmentFate, service::PROTOCOL_UDP};

use crate::{
    address, arrival::Arrival, backend::BackendRef, clock, forward::bytes_of, found::Found, globals,
    packet::Packet, service::ServiceRef, stats, steer::Way,
};

/// Remembers where the first part of a packet goes, and gives it an identification of our own where it is translated, so
/// that no two clients' parts look alike (RFC 6864, 5.2 says so of whoever puts packets of several sources together).
///
/// [`Packet`]'s addresses are those that it leaves with from here on.
#[inline(always)]
pub fn remember(ctx: &XdpContext, arrival: &mut Arrival, way: &Way, is_answer: bool) -> Result<(), Reason> {
    if globals::explains() {
        return Ok(());
    }
    let key = write::read_key(ctx, arrival)?;
    let mut how = if is_answer { Found::ANSWER } else { 0 };
    let mut identification = 0;
    if way.rewrites {
        how |= Found::TRANSLATED;
        identification = table::identification(key);
        write::identify(ctx, arrival, identification)?;
        arrival.packet.source.0 = bytes_of(way.source);
        arrival.packet.destination.addr.0 = bytes_of(way.destination);
    }
    if way.encapsulates {
        how |= Found::TUNNEL;
    }
    // Not remembered, if another CPU is filling the place at this moment: the others pass, then.
    let found = Found::word(way.backend, u32::from(way.client_hop), how);
    table::put_fragment(arrival, key, found, identification);
    Ok(())
}

/// Forgets where the first part of a packet has gone: this one, which looks the same, goes nowhere.
#[inline(always)]
pub fn forget(ctx: &XdpContext, arrival: &Arrival) {
    if globals::follows_fragments()
        && !globals::explains()
        && arrival.packet.is_first_part()
        && let Ok(key) = write::read_key(ctx, arrival)
    {
        table::forget_fragment(key);
    }
}

/// Sends a part on that parsing has ended on with `reason`, if it follows one that is remembered; else the reason.
#[inline(always)]
pub fn follow(ctx: &XdpContext, arrival: &mut Arrival, reason: Reason) -> Result<(Reason, u32), Reason> {
    if !globals::follows_fragments() || !matches!(reason, Reason::Fragment) {
        return Err(reason);
    }
    let key = write::read_key(ctx, arrival)?;
    let word = find_fragment(arrival, key);
    if word == LOST {
        return Err(Reason::FragmentLost);
    }
    let found = Found::of(word).ok_or(reason)?;
    let action = found.send(ctx, arrival, || write::translate(ctx, arrival))?;
    let reason = if found.is_answer() { Reason::Replied } else { Reason::Forwarded };
    stats::count_backend(reason, found.backend(), false, arrival.packet.bytes);
    Ok((reason, action))
}

/// What [`find_fragment`] returns of a part whose backend has gone since.
const LOST: i64 = -2;

/// A [`Found`]. The addresses that the part gets are [`Packet`]'s then, its identification is in [`Arrival::slot`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_fragment(arrival: *mut Arrival, key: u64) -> i64 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    let Some(arrival) = (unsafe { arrival.as_mut() }) else { return Found::NONE };
    find(arrival, key).unwrap_or(Found::NONE)
}

#[inline(always)]
fn find(arrival: &mut Arrival, key: u64) -> Option<i64> {
    let entry = table::get(key, clock::now())?;
    let fate = FragmentFate(entry.fate);
    arrival.hash = entry.hash;
    arrival.service = fate.service();
    arrival.slot = (entry.hop_and_identification >> 32) as u32;
    arrival.packet.source.0 = bytes_of(entry.source);
    arrival.packet.destination.addr.0 = bytes_of(entry.destination);
    let backend = BackendRef::at(fate.backend())?;
    // A backend that gets nothing any more may still answer.
    let stays = if fate.has(FragmentFate::ANSWER) {
        backend.service() == fate.service()
    } else {
        ServiceRef::at(fate.service())
            .is_some_and(|service| matches!(backend.keeps_flow_of(&service, true), Ok(true)))
    };
    if !stays {
        return Some(LOST);
    }
    let mut how = 0;
    if fate.has(FragmentFate::TRANSLATED) {
        how |= Found::TRANSLATED;
    }
    if fate.has(FragmentFate::TUNNEL) {
        how |= Found::TUNNEL;
    }
    if fate.has(FragmentFate::ANSWER) {
        let hop = entry.hop_and_identification as u16;
        return Some(Found::word(backend.index, u32::from(hop), how | Found::ANSWER));
    }
    Some(Found::word(backend.index, backend.next_hop(), how))
}

/// Whether a later part that parsing has ended on with `reason`, and that follows none, goes to a service by its
/// addresses. It is then a packet from port 0.
#[inline(always)]
pub fn goes_by_address(arrival: &Arrival, reason: Reason) -> bool {
    if !globals::has_fragments_by_address() || !matches!(reason, Reason::Fragment) {
        return false;
    }
    arrival.packet.destination.protocol == PROTOCOL_UDP && service_of(&arrival.packet).is_some()
}

/// The service that parts for this address go to. It says so itself as well, in the word that has its mode: what is led here
/// a moment too early or too late is not taken.
#[inline(always)]
pub fn service_of(packet: &Packet) -> Option<ServiceRef> {
    let service = ServiceRef::at(address::of(&packet.destination.addr)?.fragments_to()?)?;
    service.steers_parts_by_address().then_some(service)
}
