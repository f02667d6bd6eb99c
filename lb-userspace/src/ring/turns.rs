//! Whose turn it is, by weights.
//!
//! The turns of a backend of weight *w* are due at the times 1/w, 3/w, 5/w …, and the earliest fill the ring. That is
//! the divisor method of Sainte-Laguë (which hands out seats in parliaments): shares are the exact ones, rounded, and
//! none is favoured for being small or large. It is also the smoothest order: a backend's turns lie as far apart as
//! its weight allows.

use super::Member;

/// When a backend's first turn is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// At time 0: a backend with any weight has a turn, where there are as many turns as backends.
    AtOnce,
    /// At 1/w, as the method has it.
    InTurn,
}

/// The position in `members` of the one whose turn it is, `size` times.
pub(super) fn turns(members: &[Member], size: u32, first: First) -> impl Iterator<Item = usize> {
    // Weights are at most 1000, so two times that are not equal differ by at least 10^-6: in this unit, by
    // more than 1, and rounding down keeps their order.
    const UNIT: u64 = 1 << 20;
    // A turn is one number, to be sorted fast: when it is due, then whose it is.
    const POSITION_BITS: u32 = 16;
    let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    // By the time `end` a member has had at least end * weight / 2 - 1/2 turns, all members together at least
    // `size`.
    let end = (2 * u64::from(size) + members.len() as u64) * UNIT / total + UNIT;
    let mut turns: Vec<u64> = Vec::with_capacity(size as usize + 3 * members.len());
    for (member, position) in members.iter().zip(0_u64..) {
        let later = (1..).map(|turn: u64| (2 * turn + 1) * UNIT / u64::from(member.weight));
        let first = match first {
            First::AtOnce => 0,
            First::InTurn => UNIT / u64::from(member.weight),
        };
        let times = std::iter::once(first).chain(later).take_while(|time| *time <= end);
        turns.extend(times.map(|time| (time << POSITION_BITS) | position));
    }
    turns.sort_unstable();
    turns.into_iter().map(|turn| turn as u16 as usize).take(size as usize)
}
