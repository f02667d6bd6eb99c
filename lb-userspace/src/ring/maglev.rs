//! Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4) with weights.
//!
//! Every backend prefers the slots in an order of its own, drawn from its identity. Backends take turns, and
//! on its turn a backend takes the slot that it prefers most among the free ones.
//!
//! The paper leaves weights open. Here the turns of a backend of weight *w* are due at the times 0, 3/w, 5/w,
//! 7/w …, and the earliest turns fill the ring. Without the first that is the divisor method of Sainte-Laguë
//! (which hands out seats in parliaments): shares are the exact ones, rounded, and none is favoured for being
//! small or large. The first turn is due at once, so that a backend with any weight has a slot. When a turn
//! is due depends on nothing but the backend's own weight: if another backend goes, the remaining turns keep
//! their order, and so most slots.

use std::net::SocketAddr;

use super::hash;

/// A backend that is to be on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// What its place on the ring comes from; no identity twice.
    pub identity: SocketAddr,
    /// Its share relative to the others, at most 1000; 0: not on the ring.
    pub weight: u16,
    /// What the ring's slots hold: the backend's index in the data plane.
    pub index: u16,
}

/// Builds a ring of `size` slots, each with the index of a member; empty where no member has a weight.
///
/// `size` is a prime, see [`super::size`], and not below the number of members: of more members than slots,
/// some get none. The order of `members` does not matter.
#[must_use]
pub fn build(members: &[Member], size: u32) -> Vec<u16> {
    let mut members: Vec<Member> = members.iter().copied().filter(|member| member.weight > 0).collect();
    members.sort_unstable();
    if members.is_empty() || size == 0 {
        return Vec::new();
    }
    let mut preferences: Vec<Preference> =
        members.iter().map(|member| Preference::new(member.identity, size)).collect();
    let mut ring = vec![None; size as usize];
    for turn in turns(&members, size) {
        let slot = preferences[turn].next_free(&ring);
        ring[slot] = Some(members[turn].index);
    }
    ring.into_iter().flatten().collect()
}

/// The position in `members` of the one whose turn it is, `size` times.
fn turns(members: &[Member], size: u32) -> impl Iterator<Item = usize> {
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
        let times = std::iter::once(0).chain(later).take_while(|time| *time <= end);
        turns.extend(times.map(|time| (time << POSITION_BITS) | position));
    }
    turns.sort_unstable();
    turns.into_iter().map(|turn| turn as u16 as usize).take(size as usize)
}

/// One backend's order of preference: every slot once, since the step and the prime size have no common
/// divisor.
struct Preference {
    next: u32,
    step: u32,
    size: u32,
}

impl Preference {
    fn new(identity: SocketAddr, size: u32) -> Self {
        let below = |hash: u64, bound: u32| (hash % u64::from(bound.max(1))) as u32;
        let next = below(hash::identity(identity, 0), size);
        let step = 1 + below(hash::identity(identity, 1), size - 1);
        Self { next, step, size }
    }

    fn next_free(&mut self, ring: &[Option<u16>]) -> usize {
        loop {
            let slot = self.next as usize;
            self.next += self.step;
            if self.next >= self.size {
                self.next -= self.size;
            }
            if ring[slot].is_none() {
                return slot;
            }
        }
    }
}

#[cfg(test)]
mod tests;
