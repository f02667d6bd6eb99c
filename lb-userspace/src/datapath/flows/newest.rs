//! The most recently used of many, in bounded memory.

use std::collections::BinaryHeap;

/// Keeps the `limit` smallest of what it is offered, and counts the rest.
#[derive(Debug)]
pub struct Newest<T> {
    limit: usize,
    /// The largest that is kept is on top: the next to go.
    kept: BinaryHeap<T>,
    offered: u64,
}

impl<T: Ord> Newest<T> {
    /// Room for `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, kept: BinaryHeap::new(), offered: 0 }
    }

    /// Takes `item` if it belongs to the smallest so far.
    pub fn offer(&mut self, item: T) {
        self.offered += 1;
        if self.kept.len() < self.limit {
            self.kept.push(item);
        } else if let Some(mut largest) = self.kept.peek_mut()
            && item < *largest
        {
            *largest = item;
        }
    }

    /// The smallest in order, and how many more were offered.
    #[must_use]
    pub fn into_sorted(self) -> (Vec<T>, u64) {
        let kept = self.kept.into_sorted_vec();
        let more = self.offered - kept.len() as u64;
        (kept, more)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_is_the_head_of_all_in_order(items: Vec<u16>, limit in 0usize..20) {
            let mut newest = Newest::new(limit);
            for item in &items {
                newest.offer(*item);
            }
            let mut all = items;
            all.sort_unstable();
            let (kept, more) = newest.into_sorted();
            prop_assert_eq!(kept.as_slice(), &all[..limit.min(all.len())]);
            prop_assert_eq!(more, (all.len() - kept.len()) as u64);
        }
    }
}
