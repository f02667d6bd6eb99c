//! The tables of translated flows (full-nat), one for each direction.
//!
//! **Forward**: buckets of two adjacent cache lines, eight keys and then eight values, two candidate buckets a
//! flow. The key is the whole of [`crate::hash::flow_hash`]; the value has everything that the packet needs.
//!
//! **Replies**: the data plane picks the port, so it picks one for which the place of the reply's hash is free. A
//! reply is therefore found by *one* load, with no bucket to search: port and place are the same choice, and a
//! port is free exactly when its place is. No allocator, no second table.
//!
//! Writers: a place is claimed by compare-and-exchange, written, then published; a reader reads the word that
//! publishes it again at the end.

use crate::{Addr, flow_table::BUCKET_SLOTS, hash::mix, life::Life};

/// Places that are tried for a reply before one is taken from another flow, or the flow is refused.
///
/// Of a table that is half full, which is what it is made for, a little more than half of a backend's ports are taken
/// (several ports share a place, and the busier place is the likelier one to be met): 0.55 to the 32nd is five in a
/// billion. Sixteen tries were seen to refuse flows.
pub const PORT_TRIES: u32 = 32;

/// A key that is none: no flow.
pub const KEY_EMPTY: u64 = 0;
/// A key that is none: another CPU, or the agent, is writing this place.
pub const KEY_CLAIMED: u64 = 1;

/// The key of a flow: its hash, moved away from the two that are none.
#[inline(always)]
#[must_use]
pub const fn key_of(hash: u64) -> u64 {
    if hash <= KEY_CLAIMED { hash | 1 << 63 } else { hash }
}

/// The two buckets of a key in a table of `mask + 1` buckets.
#[inline(always)]
#[must_use]
pub const fn buckets_of(key: u64, mask: u32) -> (u32, u32) {
    (key as u32 & mask, (key >> 32) as u32 & mask)
}

/// Eight translated flows, client to backend.
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatBucket {
    /// Keys, see [`key_of`].
    pub keys: [u64; BUCKET_SLOTS],
    /// [`NatValue`]s.
    pub values: [u64; BUCKET_SLOTS],
}

const _: () = assert!(size_of::<NatBucket>() == 128 && align_of::<NatBucket>() == 128);

/// A word: port (16 bits), backend (16), source address (8), [`Life`] (24).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatValue(pub u64);

impl NatValue {
    /// A flow's word.
    #[inline(always)]
    #[must_use]
    pub const fn new(port: u16, backend: u16, source: u8, life: Life) -> Self {
        Self(life.put((port as u64) << 48 | (backend as u64) << 32 | (source as u64) << Life::BITS))
    }

    /// The port that the client's was replaced by.
    #[inline(always)]
    #[must_use]
    pub const fn port(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// The backend's index.
    #[inline(always)]
    #[must_use]
    pub const fn backend(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The index in `SOURCES` of the address that the client's was replaced by.
    #[inline(always)]
    #[must_use]
    pub const fn source(self) -> u8 {
        (self.0 >> Life::BITS) as u8
    }

    /// State and age.
    #[inline(always)]
    #[must_use]
    pub const fn life(self) -> Life {
        Life::of(self.0)
    }
}

/// One translated flow, backend to client: half a cache line, exact.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatReply {
    /// A [`ReplyWord`]: publishes the entry.
    pub word: u64,
    /// A [`ReplyPeer`].
    pub peer: u64,
    /// The client's address.
    pub client: Addr,
}

const _: () = assert!(size_of::<NatReply>() == 32 && align_of::<NatReply>() == 32);

/// A word: index of the forward slot (32 bits), source address (8), [`Life`] (24).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyWord(pub u64);

impl ReplyWord {
    /// An entry's word.
    #[inline(always)]
    #[must_use]
    pub const fn new(forward_slot: u32, source: u8, life: Life) -> Self {
        Self(life.put((forward_slot as u64) << 32 | (source as u64) << Life::BITS))
    }

    /// Where the flow's forward half is: bucket times eight, plus slot.
    #[inline(always)]
    #[must_use]
    pub const fn forward_slot(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The index in `SOURCES` of the address that the backend answers to.
    #[inline(always)]
    #[must_use]
    pub const fn source(self) -> u8 {
        (self.0 >> Life::BITS) as u8
    }

    /// State and age.
    #[inline(always)]
    #[must_use]
    pub const fn life(self) -> Life {
        Life::of(self.0)
    }
}

/// A word: client's port in wire order (16 bits), allocated port (16), backend (16), client hop (16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyPeer(pub u64);

impl ReplyPeer {
    /// An entry's word.
    #[inline(always)]
    #[must_use]
    pub const fn new(client_port: [u8; 2], nat_port: u16, backend: u16, client_hop: u16) -> Self {
        Self(
            (u16::from_le_bytes(client_port) as u64) << 48
                | (nat_port as u64) << 32
                | (backend as u64) << 16
                | client_hop as u64,
        )
    }

    /// The client's port, in wire order.
    #[inline(always)]
    #[must_use]
    pub const fn client_port(self) -> [u8; 2] {
        ((self.0 >> 48) as u16).to_le_bytes()
    }

    /// The port that the client's was replaced by.
    #[inline(always)]
    #[must_use]
    pub const fn nat_port(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The backend's index.
    #[inline(always)]
    #[must_use]
    pub const fn backend(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The index in `CLIENT_HOPS` of the neighbour that the client's packets come from.
    #[inline(always)]
    #[must_use]
    pub const fn client_hop(self) -> u16 {
        self.0 as u16
    }
}

/// The port of the `attempt`-th try for a flow, of `count` ports from `first` on.
///
/// Tries are independent. In steps of one length, the same for all flows, they would be linear probing: ports that are
/// taken gather on the way that flows go, and 16 tries in vain are three times as frequent, 24 eight times.
#[inline(always)]
#[must_use]
pub const fn port_of(key: u64, attempt: u32, first: u16, count: u16) -> u16 {
    let spread = (mix(key ^ (attempt as u64) << 40) >> 32) as u32;
    first.wrapping_add(((spread as u64 * count as u64) >> 32) as u16)
}

/// The neighbour that a client's packets come from, which is where its replies go: MAC address (48 bits), slot of
/// the interface (8), and a bit that says that it is one.
///
/// No route lookup and no configuration: what came in by a router goes back by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientHop(pub u64);

impl ClientHop {
    const VALID: u64 = 1 << 63;

    /// A neighbour on an interface.
    #[inline(always)]
    #[must_use]
    pub const fn new(mac: [u8; 6], interface_slot: u32) -> Self {
        let [a, b, c, d, e, f] = mac;
        Self(
            u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) | (interface_slot as u64 & 0xff) << 48 | Self::VALID,
        )
    }

    /// Whether it is one.
    #[inline(always)]
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// The neighbour's MAC address.
    #[inline(always)]
    #[must_use]
    pub const fn mac(self) -> [u8; 6] {
        let [a, b, c, d, e, f, _, _] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// The interface's slot.
    #[inline(always)]
    #[must_use]
    pub const fn interface_slot(self) -> u32 {
        (self.0 >> 48) as u32 & 0xff
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::life::{Classes, FlowState};
    use proptest::prelude::*;
    use std::{collections::HashSet, vec};

    proptest! {
        #[test]
        fn words_keep_their_parts(a: u16, b: u16, c: u16, d: u16, e: u8, f: u32, tick: u16, mac: [u8; 6]) {
            let life = Life::new(FlowState::Datagrams, Classes(3 * 0x1111), tick);
            let value = NatValue::new(a, b, e, life);
            prop_assert_eq!((value.port(), value.backend(), value.source(), value.life()), (a, b, e, life));
            let word = ReplyWord::new(f, e, life);
            prop_assert_eq!((word.forward_slot(), word.source(), word.life()), (f, e, life));
            let port = a.to_be_bytes();
            let peer = ReplyPeer::new(port, b, c, d);
            prop_assert_eq!(
                (peer.client_port(), peer.nat_port(), peer.backend(), peer.client_hop()), (port, b, c, d));
            let hop = ClientHop::new(mac, u32::from(e));
            prop_assert!(hop.is_valid());
            prop_assert_eq!((hop.mac(), hop.interface_slot()), (mac, u32::from(e)));
        }

        #[test]
        fn ports_stay_in_their_range(key: u64, attempt in 0..PORT_TRIES, first in 1u16..40_000, count in 1u16..25_000) {
            let port = port_of(key, attempt, first, count);
            prop_assert!(port >= first && port - first < count);
        }

        #[test]
        fn no_key_is_one_that_means_none(hash: u64) {
            prop_assert!(key_of(hash) > KEY_CLAIMED);
        }
    }

    #[test]
    fn the_tries_of_a_flow_are_different_ports() {
        for key in [0, 1 << 40, u64::MAX, 0x0123_4567_89ab_cdef] {
            let ports: HashSet<u16> =
                (0..PORT_TRIES).map(|attempt| port_of(key, attempt, 1024, 31_744)).collect();
            // Two of them are the same by chance in one flow of 64.
            assert!(ports.len() >= PORT_TRIES as usize - 1, "{key}: {}", ports.len());
        }
    }

    /// How many of the flows that fill a table to its half, towards two backends, need 16 tries or more.
    fn flows_of_many_tries(runs: u64, port_of: impl Fn(u64, u32) -> u16) -> usize {
        let mut many = 0;
        for run in 0..runs {
            let mut taken = vec![false; 16_384];
            for flow in 0..8000 {
                let key = mix(run << 32 | flow);
                let place = |attempt| {
                    let port = u64::from(port_of(key, attempt));
                    mix(mix(1 + (key & 1)) ^ port << 32) as usize % taken.len()
                };
                let free = (0..PORT_TRIES).find(|attempt| !taken[place(*attempt)]);
                many += usize::from(free.is_none_or(|attempt| attempt >= 16));
                if let Some(place) = free.map(place) {
                    taken[place] = true;
                }
            }
        }
        many
    }

    #[test]
    fn taken_ports_do_not_gather_where_flows_look_for_free_ones() {
        let independent = flows_of_many_tries(200, |key, attempt| port_of(key, attempt, 1024, 31_744));
        let in_steps = flows_of_many_tries(200, |key, attempt| {
            let spread = ((key >> 20) as u32).wrapping_add(attempt.wrapping_mul(0x9e37_79b1));
            1024 + ((u64::from(spread) * 31_744) >> 32) as u16
        });
        // Of 1,600,000 flows.
        assert!(independent < 28 && in_steps > 28, "{independent}, in steps {in_steps}");
    }

    #[test]
    fn no_neighbour_is_not_a_neighbour_with_a_zero_address() {
        assert!(!ClientHop::default().is_valid());
        assert!(ClientHop::new([0; 6], 0).is_valid());
    }
}
