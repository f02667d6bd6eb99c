//! Ways out: next hops, interfaces, and the neighbours that clients' packets came from.

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, DevMap},
    macros::btf_map,
};
use lb_common::{
    Interface, NextHop, Reason,
    abi::{MAX_CLIENT_HOPS, MAX_INTERFACES, MAX_NEXT_HOPS},
    hash::mix,
    nat_table::ClientHop,
};

use crate::{atomic, globals, service::IN_MEMORY};

#[btf_map]
static NEXT_HOPS: Array<NextHop, { MAX_NEXT_HOPS as usize }, IN_MEMORY> = Array::new();
#[btf_map]
static INTERFACES: Array<Interface, { MAX_INTERFACES as usize }, IN_MEMORY> = Array::new();
#[btf_map]
static EGRESS: DevMap<{ MAX_INTERFACES as usize }> = DevMap::new();
#[btf_map]
static CLIENT_HOPS: Array<u64, { MAX_CLIENT_HOPS as usize }, IN_MEMORY> = Array::new();

/// How many places are tried for a neighbour.
const CLIENT_HOP_TRIES: u64 = 8;

/// The next hop at `index`, which is not 0; see [`NextHop::of_words`].
#[inline(always)]
pub fn next_hop(index: u32) -> Result<[u64; 2], Reason> {
    if index == 0 {
        return Err(Reason::NoNextHop);
    }
    let next_hop = NEXT_HOPS.get(index).ok_or(Reason::BadState)?;
    // SAFETY: a map's value, which is written before a backend names it and not changed after.
    Ok(unsafe { atomic::read_words(next_hop) })
}

/// The way back to the neighbour at `index` of the clients' hops.
#[inline(always)]
pub fn client_hop(index: u16) -> Result<[u64; 2], Reason> {
    let hop = CLIENT_HOPS.get(u32::from(index)).ok_or(Reason::BadState)?;
    // SAFETY: a word of a map.
    let hop = ClientHop(unsafe { atomic::read(hop) });
    if !hop.is_valid() {
        return Err(Reason::BadState);
    }
    let interface = INTERFACES.get(hop.interface_slot()).ok_or(Reason::BadState)?;
    // The agent has let go of it since.
    if interface.attached == 0 {
        return Err(Reason::NoEgress);
    }
    // SAFETY: the first word of a map's value.
    let own_mac = unsafe { atomic::read((&raw const *interface).cast::<u64>()) };
    Ok(NextHop::words_towards(hop, own_mac))
}

/// Remembers the neighbour that a frame came from, and says where.
#[inline(always)]
pub fn remember_client_hop(source_mac: [u8; 6]) -> Result<u16, Reason> {
    let hop = ClientHop::new(source_mac, globals::interface_slot());
    let start = mix(hop.0);
    for attempt in 0..CLIENT_HOP_TRIES {
        let index = start.wrapping_add(attempt) as u16;
        if index == 0 {
            continue;
        }
        let word = CLIENT_HOPS.get_ptr_mut(u32::from(index)).ok_or(Reason::BadState)?;
        // SAFETY: a word of a map.
        let found = unsafe { atomic::read(word) };
        // SAFETY: as above.
        if found == hop.0 || found == 0 && unsafe { atomic::exchange(word, 0, hop.0) } {
            return Ok(index);
        }
    }
    Err(Reason::NoReturnPath)
}

/// The action that sends a frame out of an interface; the same whether it is asked for before or after the frame is
/// written.
#[inline(always)]
pub fn action(interface_slot: u32) -> Result<u32, Reason> {
    if interface_slot == globals::interface_slot() {
        return Ok(xdp_action::XDP_TX);
    }
    EGRESS.redirect(interface_slot, 0).map_err(|_| Reason::NoEgress)
}
