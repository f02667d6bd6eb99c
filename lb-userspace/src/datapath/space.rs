//! Which parts of an array are in use. What is given back is not used again while a packet may still be reading it.

use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

/// How long a part rests after it is given back: far longer than a packet is under way in the data plane.
///
/// And longer than the agent takes to sweep the flows of a backend that has gone: a tick, and a sweep.
const REST: Duration = Duration::from_secs(3);

/// The free and the resting parts of an array.
#[derive(Debug)]
pub(super) struct Space {
    /// Start and length of each free part; no two of them touch.
    free: BTreeMap<u32, u32>,
    resting: Vec<(Instant, u32, u32)>,
}

impl Space {
    /// The indices in `range`, all free.
    pub(super) fn new(range: Range<u32>) -> Self {
        Self { free: BTreeMap::from([(range.start, range.end - range.start)]), resting: Vec::new() }
    }

    /// Takes `len` indices in a row; none where there is no room.
    pub(super) fn take(&mut self, len: u32, now: Instant) -> Option<u32> {
        self.wake(now);
        let (&start, &free) = self.free.iter().find(|(_, free)| **free >= len)?;
        self.free.remove(&start);
        if free > len {
            self.free.insert(start + len, free - len);
        }
        Some(start)
    }

    /// Takes the indices from `start` on, which something that ran before this agent uses.
    pub(super) fn reserve(&mut self, start: u32, len: u32) {
        let Some((&free_start, &free)) = self.free.range(..=start).next_back() else { return };
        if free_start + free < start + len {
            return;
        }
        self.free.remove(&free_start);
        if start > free_start {
            self.free.insert(free_start, start - free_start);
        }
        if free_start + free > start + len {
            self.free.insert(start + len, free_start + free - start - len);
        }
    }

    /// Gives indices back.
    pub(super) fn give_back(&mut self, start: u32, len: u32, now: Instant) {
        if len > 0 {
            self.resting.push((now + REST, start, len));
        }
    }

    fn wake(&mut self, now: Instant) {
        let (rested, resting) =
            std::mem::take(&mut self.resting).into_iter().partition(|(until, ..)| *until <= now);
        self.resting = resting;
        let rested: Vec<_> = rested;
        for (_, start, len) in rested {
            self.join(start, len);
        }
    }

    fn join(&mut self, mut start: u32, mut len: u32) {
        if let Some((&before, &before_len)) = self.free.range(..start).next_back()
            && before + before_len == start
        {
            self.free.remove(&before);
            start = before;
            len += before_len;
        }
        if let Some(after_len) = self.free.remove(&(start + len)) {
            len += after_len;
        }
        self.free.insert(start, len);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_given_back_rests_before_it_is_used_again() {
        let start = Instant::now();
        let mut space = Space::new(1..3);
        assert_eq!(space.take(1, start), Some(1));
        assert_eq!(space.take(1, start), Some(2));
        space.give_back(1, 1, start);
        assert_eq!(space.take(1, start), None);
        assert_eq!(space.take(1, start + REST), Some(1));
    }

    #[test]
    fn neighbours_join() {
        let start = Instant::now();
        let mut space = Space::new(0..30);
        for _ in 0..3 {
            space.take(10, start);
        }
        for part in [0, 20, 10] {
            space.give_back(part, 10, start);
        }
        assert_eq!(space.take(30, start + REST), Some(0));
    }

    #[test]
    fn what_runs_already_is_left_alone() {
        let start = Instant::now();
        let mut space = Space::new(1..10);
        space.reserve(3, 2);
        assert_eq!(space.take(5, start), Some(5));
        assert_eq!(space.take(2, start), Some(1));
        assert_eq!(space.take(1, start), None);
    }

    proptest! {
        #[test]
        fn no_two_users_ever_share_an_index(steps in proptest::collection::vec((any::<bool>(), 1u32..20), 1..200)) {
            let mut now = Instant::now();
            let mut space = Space::new(0..256);
            let mut used: Vec<(u32, u32)> = Vec::new();
            for (take, size) in steps {
                now += REST / 3;
                if take {
                    if let Some(start) = space.take(size, now) {
                        prop_assert!(start + size <= 256);
                        prop_assert!(used.iter().all(|(other, len)| start + size <= *other || other + len <= start));
                        used.push((start, size));
                    }
                } else if let Some((start, len)) = used.pop() {
                    space.give_back(start, len, now);
                }
            }
        }
    }
}
