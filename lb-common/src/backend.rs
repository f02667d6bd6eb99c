//! Backends, next hops and interfaces as the data plane sees them.

use crate::{Addr, nat_table::ClientHop};

/// One backend of one service. Index 0 is none.
///
/// Identity (`addr`, `port`, `service`) is written before `flags` says that the entry is usable and never while
/// it is; `flags` and `next_hop` change with one aligned store each.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Its address.
    pub addr: Addr,
    /// Its port, in wire order.
    pub port: [u8; 2],
    /// The service that it belongs to.
    pub service: u16,
    /// [`Backend::USABLE`], [`Backend::DOWN`], [`Backend::RESETS`].
    pub flags: u32,
    /// Index in `NEXT_HOPS`; 0: not known.
    pub next_hop: u32,
    /// The addresses that it may be spoken to from (full-nat, ipip, gue).
    pub sources: SourceRange,
    /// Its weight in force, for comparing loads; in thousandths, so that a slow start has steps.
    pub load_weight: u32,
    /// Flows above which it gets no new ones; 0: no bound.
    pub max_flows: u32,
    /// Zero.
    pub reserved: [u64; 3],
}

/// Some of the addresses in `SOURCES`. One aligned word, so that all of it changes at once.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceRange {
    /// Index of the first.
    pub first: u8,
    /// `ipip`: how many of the last bits of an address are a flow's own ([`crate::tunnel::source_address`]).
    pub host_bits: u8,
    /// How many, from the first on; 0: none is known.
    pub count: u16,
}

const _: () = assert!(size_of::<SourceRange>() == 4 && align_of::<SourceRange>() == 4);

impl SourceRange {
    /// As one word.
    #[must_use]
    pub const fn pack(self) -> u32 {
        let [low, high] = self.count.to_ne_bytes();
        u32::from_ne_bytes([self.first, self.host_bits, low, high])
    }

    /// From [`SourceRange::pack`].
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u32) -> Self {
        let [first, host_bits, low, high] = word.to_ne_bytes();
        Self { first, host_bits, count: u16::from_ne_bytes([low, high]) }
    }
}

/// The flows of one backend, for services that count them ([`crate::Service::COUNTS_FLOWS`]): `base + placed`.
///
/// The data plane adds to `placed` and never takes away; the agent counts the tables of flows now and then, and sets
/// `base` to what it counted less what `placed` was when it began. So the sum is right at each count, and between
/// counts grows by what is placed.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Modulo 2^64.
    pub base: u64,
    /// Flows begun since the backend's place was made.
    pub placed: u64,
}

const _: () = assert!(size_of::<Load>() == 16 && align_of::<Load>() == 16);

impl Load {
    /// Its flows; a count that has overtaken what was placed meanwhile is none.
    #[inline(always)]
    #[must_use]
    pub const fn flows(self) -> u64 {
        let flows = self.base.wrapping_add(self.placed);
        if flows >> 63 == 0 { flows } else { 0 }
    }
}

const _: () = assert!(size_of::<Backend>() == 64 && align_of::<Backend>() == 64);
const _: () = assert!(core::mem::offset_of!(Backend, flags) == 20);
const _: () = assert!(core::mem::offset_of!(Backend, next_hop) == 24);
const _: () = assert!(core::mem::offset_of!(Backend, sources) == 28);
const _: () = assert!(core::mem::offset_of!(Backend, load_weight) == 32);

impl Backend {
    /// Packets of its flows may be sent to it. Without it the entry is none, or disabled: its flows move.
    pub const USABLE: u32 = 1;
    /// It is down: flows that have not got anywhere yet (a SYN, a datagram) move, established ones stay.
    pub const DOWN: u32 = 2;
    /// With `DOWN`: established connections are answered by a RST, so that clients connect again at once.
    pub const RESETS: u32 = 4;
}

/// Where a frame leaves, and between which MAC addresses. Written once, before any backend names it; a change of
/// next hop is another entry.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// The neighbour's MAC address.
    pub destination_mac: [u8; 6],
    /// The egress interface's MAC address.
    pub source_mac: [u8; 6],
    /// The slot of the egress interface.
    pub interface_slot: u16,
    /// The largest IP packet that this way takes, in bytes; 0: not known.
    pub mtu: u16,
}

const _: () = assert!(size_of::<NextHop>() == 16 && align_of::<NextHop>() == 8);

impl NextHop {
    /// As two words: what a packet's program carries it as. As bytes on its stack it would be twelve places of eight
    /// bytes each.
    #[inline(always)]
    #[must_use]
    pub const fn of_words(words: [u64; 2]) -> Self {
        let [a, b, c, d, e, f, g, h] = words[0].to_le_bytes();
        let [i, j, k, l, ..] = words[1].to_le_bytes();
        Self {
            destination_mac: [a, b, c, d, e, f],
            source_mac: [g, h, i, j, k, l],
            interface_slot: Self::slot_of_words(words) as u16,
            mtu: Self::mtu_of_words(words),
        }
    }

    /// [`NextHop::interface_slot`] of words.
    #[inline(always)]
    #[must_use]
    pub const fn slot_of_words(words: [u64; 2]) -> u32 {
        (words[1] >> 32) as u32 & 0xffff
    }

    /// [`NextHop::mtu`] of words.
    #[inline(always)]
    #[must_use]
    pub const fn mtu_of_words(words: [u64; 2]) -> u16 {
        (words[1] >> 48) as u16
    }

    /// The way back to a neighbour by its interface, of which `own_mac` is the first word of [`Interface`].
    #[inline(always)]
    #[must_use]
    pub const fn words_towards(client: ClientHop, own_mac: u64) -> [u64; 2] {
        const MAC: u64 = (1 << 48) - 1;
        let slot = client.interface_slot() as u64;
        [client.0 & MAC | own_mac << 48, (own_mac & MAC) >> 16 | slot << 32]
    }
}

const _: () = assert!(cfg!(target_endian = "little"), "words of bytes are put together in this order");

/// An interface that the data plane is attached to.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// [`Interface::NATIVE`] or [`Interface::GENERIC`]; 0 where none is attached in this slot.
    pub attached: u8,
    /// Zero.
    pub padding: [u8; 1],
    /// Its index in the kernel; 0 where none is attached in this slot.
    pub index: u32,
    /// Its MTU in bytes, Ethernet header not counted.
    pub mtu: u32,
}

impl Interface {
    /// The program runs in the driver.
    pub const NATIVE: u8 = 1;
    /// The program runs in the kernel's stack.
    pub const GENERIC: u8 = 2;
}

const _: () = assert!(size_of::<Interface>() == 16 && align_of::<Interface>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_is_a_next_hop() {
        let (mac, own) = ([2, 0x11, 0x22, 0x33, 0x44, 0x55], [6, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]);
        let client = ClientHop::new(mac, 37);
        let own_mac = u64::from_le_bytes([own[0], own[1], own[2], own[3], own[4], own[5], 1, 0]);
        let hop = NextHop::of_words(NextHop::words_towards(client, own_mac));
        assert_eq!(hop, NextHop { destination_mac: mac, source_mac: own, interface_slot: 37, mtu: 0 });
    }
}
