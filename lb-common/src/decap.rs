//! The decapsulator: what it is set up with, and what it counts.

use crate::Addr;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident $label:literal,)+) => {
        /// What became of a frame at the decapsulator: the index of its counter.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DecapOutcome {
            $($(#[$doc])* $name,)+
        }

        impl DecapOutcome {
            /// Every outcome, in the order of the counters.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name in tables and JSON.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

outcomes! {
    /// The outer header was taken off, and the packet handed to the kernel.
    Decapsulated "decapsulated",
    /// No packet of this tunnel: to the kernel, untouched.
    NotTunnel "not_tunnel",
    /// Of this tunnel, but its sender is not allowed: to the kernel, untouched.
    SourceNotAllowed "source_not_allowed",
    /// A fragment of a tunnel's packet, or one with IP options: to the kernel, untouched.
    NotWhole "not_whole",
    /// From a sender that is allowed, but what is in it is no IP packet, or is cut short: dropped.
    Malformed "malformed",
    /// It met congestion on the way, and its sender would not understand that (RFC 6040, 4.2): dropped.
    Congested "congested",
}

/// How many outcomes there are.
pub const DECAP_OUTCOMES: u32 = DecapOutcome::ALL.len() as u32;

/// Networks that a decapsulator takes packets from, at most.
pub const DECAP_SOURCES_MAX: u32 = 1024;

/// Which tunnel is taken off: the value of [`globals::DECAP_MODE`].
pub const DECAP_IPIP: u8 = 1;
/// See [`DECAP_IPIP`].
pub const DECAP_GUE: u8 = 2;

/// Bits in front of an address in [`maps::DECAP_SOURCES`]: its IP version, so that no network is of both.
pub const DECAP_VERSION_BITS: u32 = 32;

/// How an outer source address is looked up. IPv4 addresses in IPv6 form are none to tunnels over IPv6.
#[inline(always)]
#[must_use]
pub const fn source_key(addr: &Addr, is_v4: bool) -> [u8; 20] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = addr.0;
    [if is_v4 { 4 } else { 6 }, 0, 0, 0, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// The names of the maps.
pub mod maps {
    /// LPM trie: networks that packets are taken from, as [`super::source_key`] has addresses, to nothing of interest.
    pub const DECAP_SOURCES: &str = "DECAP_SOURCES";
    /// Per-CPU array of `u64`, by [`super::DecapOutcome`].
    pub const DECAP_COUNTERS: &str = "DECAP_COUNTERS";
}

/// The names of the read-only globals.
pub mod globals {
    /// `u8`: [`super::DECAP_IPIP`] or [`super::DECAP_GUE`].
    pub const DECAP_MODE: &str = "DECAP_MODE";
    /// `u16`: `gue`'s port.
    pub const DECAP_PORT: &str = "DECAP_PORT";
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_outcome_has_a_counter_and_a_label_of_its_own() {
        let labels: HashSet<_> = DecapOutcome::ALL.iter().map(|outcome| outcome.label()).collect();
        assert_eq!(labels.len(), DecapOutcome::ALL.len());
        for (index, outcome) in DecapOutcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
        }
    }
}
