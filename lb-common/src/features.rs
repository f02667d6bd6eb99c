//! What a configuration uses of the data plane: the rest is left out of the program when it is loaded.

use crate::Mode;

/// A set of features. Each is a branch on a read-only global, which the verifier takes for a constant: what is not in
/// the set is no part of the program that runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u32);

impl Features {
    /// Nothing: every packet passes.
    pub const NONE: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self(u32::MAX);

    /// Mode `nat`: a server that is a backend of several services.
    pub const SHARED_SERVERS: Self = Self(1 << 16);

    /// Services that have pings answered.
    pub const ANSWERED_PINGS: Self = Self(1 << 17);

    /// Services whose packets in parts go by their addresses.
    pub const FRAGMENTS_BY_ADDRESS: Self = Self(1 << 18);

    /// Services of a mode.
    #[inline(always)]
    #[must_use]
    pub const fn mode(mode: Mode) -> Self {
        Self(1 << mode as u32)
    }

    /// Services whose packets are encapsulated, in either way.
    #[inline(always)]
    #[must_use]
    pub const fn has_tunnels(self) -> bool {
        self.has(Self::mode(Mode::Ipip)) || self.has(Self::mode(Mode::Gue))
    }

    /// Both.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `wanted` is in the set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in() {
        let (nat, dsr) = (Features::mode(Mode::Nat), Features::mode(Mode::Dsr));
        assert!(nat.and(dsr).has(nat) && nat.and(dsr).has(dsr) && nat.has(Features::NONE));
        assert!(!nat.has(dsr) && !Features::NONE.has(nat) && Features::ALL.has(nat.and(dsr)));
    }
}
