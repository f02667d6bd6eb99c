//! Packets in parts: where the first part went, for the others, which have no ports (RFC 791, 3.2; RFC 8200, 4.5).
//!
//! A table of its own, each entry one cache line. A part has two places by its hash; it takes the one whose entry is worth
//! least, so an attacker who sends first parts alone pushes out other first parts, the oldest first, and no flow.

use crate::{hash::sip13, life::SKEW_TICKS};

/// How long a first part is remembered, in ticks: what RFC 791, 3.2 would have receivers wait for the rest. Identifications
/// come again, and a longer memory would mix up more of them.
pub const LIFETIME_TICKS: u16 = 15;

/// The lower bound of `[limits] fragments`, where it is not 0.
pub const LEAST_SLOTS: u32 = 64;

/// Where the parts of one packet go.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentEntry {
    /// A [`fragment_key`]; [`FragmentEntry::EMPTY`] or [`FragmentEntry::CLAIMED`]. Whoever reads the rest reads it again.
    pub key: u64,
    /// A [`FragmentFate`].
    pub fate: u64,
    /// The neighbour that answers go to (16 bits), and from bit 32 on the identification that the parts get.
    pub hop_and_identification: u64,
    /// The flow's hash, for tunnels.
    pub hash: u64,
    /// The addresses that the parts get, as [`crate::Addr::words`] has them.
    pub source: [u64; 2],
    /// See `source`.
    pub destination: [u64; 2],
}

const _: () = assert!(size_of::<FragmentEntry>() == 64 && align_of::<FragmentEntry>() == 64);

impl FragmentEntry {
    /// No packet.
    pub const EMPTY: u64 = 0;
    /// A place that another CPU is filling at this moment.
    pub const CLAIMED: u64 = 1;
}

/// What becomes of the parts of a packet, and since when that is known, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentFate(pub u64);

impl FragmentFate {
    /// They go to a client; else to a backend.
    pub const ANSWER: u16 = 1;
    /// Their addresses change.
    pub const TRANSLATED: u16 = 2;
    /// They are encapsulated.
    pub const TUNNEL: u16 = 4;

    /// The fate of parts from `now` on.
    #[inline(always)]
    #[must_use]
    pub const fn new(now: u16, service: u16, backend: u16, flags: u16) -> Self {
        Self(now as u64 | (service as u64) << 16 | (backend as u64) << 32 | (flags as u64) << 48)
    }

    /// The tick at which the first part came.
    #[inline(always)]
    #[must_use]
    pub const fn tick(self) -> u16 {
        self.0 as u16
    }

    /// Index of the service that the backend is of.
    #[inline(always)]
    #[must_use]
    pub const fn service(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Index of the backend.
    #[inline(always)]
    #[must_use]
    pub const fn backend(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Whether `flag` is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, flag: u16) -> bool {
        (self.0 >> 48) as u16 & flag != 0
    }

    /// Whether it is over at `now`.
    #[inline(always)]
    #[must_use]
    pub const fn is_over(self, now: u16) -> bool {
        age(self.tick(), now) > LIFETIME_TICKS
    }
}

/// The time since a tick. One that lies ahead is another CPU's, which has read the clock a moment later.
#[inline(always)]
const fn age(tick: u16, now: u16) -> u16 {
    let age = now.wrapping_sub(tick);
    if age > SKEW_TICKS { 0 } else { age }
}

/// What the parts of a packet have in common and others have not: addresses as [`crate::Addr::words`] has them,
/// identification, and for IPv4 the protocol (RFC 791, 3.2; RFC 8200, 4.5).
#[inline(always)]
#[must_use]
pub fn fragment_key(
    secret: [u64; 2],
    source: [u64; 2],
    destination: [u64; 2],
    identification: u32,
    protocol: u8,
) -> u64 {
    let rest = u64::from(identification) << 8 | u64::from(protocol);
    let key = sip13(secret, [source[0], source[1], destination[0], destination[1], rest]);
    // Two values have a meaning of their own.
    if key <= FragmentEntry::CLAIMED { key + 2 } else { key }
}

/// The two places of a key in a table of `mask + 1` entries.
#[inline(always)]
#[must_use]
pub const fn places(key: u64, mask: u32) -> (u32, u32) {
    (key as u32 & mask, (key >> 32) as u32 & mask)
}

/// How little is lost where the entry with this key and fate is overwritten by `wanted`: the larger, the better. A place
/// that is being filled is never taken.
#[inline(always)]
#[must_use]
pub const fn vacancy(key: u64, fate: FragmentFate, wanted: u64, now: u16) -> u32 {
    if key == FragmentEntry::CLAIMED {
        return 0;
    }
    // The sender uses the identification again, or has sent the first part again.
    if key == wanted {
        return u32::MAX;
    }
    if key == FragmentEntry::EMPTY || fate.is_over(now) {
        return u32::MAX - 1;
    }
    age(fate.tick(), now) as u32 + 1
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_fate_is_what_was_put_in(now: u16, service: u16, backend: u16, flags in 0..8u16) {
            let fate = FragmentFate::new(now, service, backend, flags);
            prop_assert_eq!((fate.tick(), fate.service(), fate.backend()), (now, service, backend));
            for flag in [FragmentFate::ANSWER, FragmentFate::TRANSLATED, FragmentFate::TUNNEL] {
                prop_assert_eq!(fate.has(flag), flags & flag != 0);
            }
        }

        #[test]
        fn packets_that_differ_in_anything_have_keys_of_their_own(
            a: ([u64; 2], [u64; 2], u32, u8), b: ([u64; 2], [u64; 2], u32, u8), secret: [u64; 2],
        ) {
            let key = |(source, destination, identification, protocol)| {
                fragment_key(secret, source, destination, identification, protocol)
            };
            prop_assert_eq!(a == b, key(a) == key(b));
            prop_assert!(key(a) > FragmentEntry::CLAIMED);
        }

        #[test]
        fn places_are_in_the_table(key: u64, bits in 6..28u32) {
            let mask = (1 << bits) - 1;
            let (first, second) = places(key, mask);
            prop_assert!(first <= mask && second <= mask);
        }

        #[test]
        fn a_fate_lasts_its_time_whenever_it_begins(tick: u16, later: u16) {
            let fate = FragmentFate::new(tick, 1, 1, 0);
            let lasts = later <= LIFETIME_TICKS || later > 0xff00;
            prop_assert_eq!(fate.is_over(tick.wrapping_add(later)), !lasts);
        }
    }

    #[test]
    fn what_is_worth_least_is_taken() {
        let now = 1000;
        let of = |key, ago: u16| vacancy(key, FragmentFate::new(now - ago, 1, 1, 0), 77, now);
        let (claimed, fresh, old) = (of(FragmentEntry::CLAIMED, 0), of(5, 0), of(5, LIFETIME_TICKS));
        let (over, empty, own) = (of(5, LIFETIME_TICKS + 1), of(FragmentEntry::EMPTY, 0), of(77, 0));
        assert_eq!(claimed, 0);
        assert!(claimed < fresh && fresh < old && old < over);
        assert!(over == empty && empty < own);
    }
}
