//! Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4) with weights.
//!
//! Every backend prefers the slots in an order of its own, drawn from its identity. Backends take turns, and
//! on its turn a backend takes the slot that it prefers most among the free ones.
//!
//! The paper leaves weights open: here they decide whose turn it is, see [`super::turns`]. When a turn is due depends
//! on nothing but the backend's own weight: if another backend goes, the remaining turns keep their order, and so
//! most slots.

use std::net::SocketAddr;

use super::{
    Member, hash,
    turns::{First, turns},
};

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
    for turn in turns(&members, size, First::AtOnce) {
        let slot = preferences[turn].next_free(&ring);
        ring[slot] = Some(members[turn].index);
    }
    ring.into_iter().flatten().collect()
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
