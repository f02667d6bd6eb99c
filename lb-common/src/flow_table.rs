//! The table of steered flows: which backend a flow goes to.
//!
//! Buckets of one cache line, eight words a bucket, two candidate buckets a flow. A word holds a tag of the flow's
//! hash, its backend and its [`Life`]. There is no lock: a lookup is two loads of a line, a refresh one aligned
//! store, and an insert overwrites the word whose flow is worth least. A tag that meets another flow's steers a
//! flow to a backend of its own service that another flow goes to as well, which harms neither.

use crate::{
    branchless::{is_set, is_zero, less, select},
    life::{FlowState, Life},
};

/// Words in a bucket.
pub const BUCKET_SLOTS: usize = 8;

/// Eight flows, one cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket(pub [u64; BUCKET_SLOTS]);

const _: () = assert!(size_of::<Bucket>() == 64 && align_of::<Bucket>() == 64);

/// Beside a [`Bucket`], for mode `nat`: where the client's packets of each flow come from, an index in
/// [`CLIENT_HOPS`](crate::abi::maps::CLIENT_HOPS).
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketHops(pub [u16; BUCKET_SLOTS]);

const _: () = assert!(size_of::<BucketHops>() == 16 && align_of::<BucketHops>() == 16);

/// The two buckets where a flow may be, and its tag there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The first candidate.
    pub first: u32,
    /// The second candidate.
    pub second: u32,
    /// What tells the flow from others in these buckets, 24 bits.
    pub tag: u32,
}

impl Place {
    /// The place of a flow in a table of `mask + 1` buckets, a power of two.
    ///
    /// The second bucket follows from the first and the tag alone, so that bucket and tag together are what a
    /// word says of its flow.
    #[inline(always)]
    #[must_use]
    pub const fn of(hash: u64, mask: u32) -> Self {
        let tag = (hash >> 40) as u32;
        let first = hash as u32 & mask;
        let second = (first ^ (tag.wrapping_mul(0x9e37_79b1) >> 3 | 1)) & mask;
        Self { first, second, tag }
    }
}

/// A word: tag (24 bits), backend (16), [`Life`] (24). 0 is no flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot(pub u64);

impl Slot {
    const TAG_SHIFT: u32 = 40;

    /// A flow's word.
    #[inline(always)]
    #[must_use]
    pub const fn new(tag: u32, backend: u16, life: Life) -> Self {
        Self(life.put((tag as u64) << Self::TAG_SHIFT | (backend as u64) << Life::BITS))
    }

    /// The word of a place that is being filled.
    pub const CLAIMED: Self = Self(FlowState::Claimed as u64);

    /// The flow's tag.
    #[inline(always)]
    #[must_use]
    pub const fn tag(self) -> u32 {
        (self.0 >> Self::TAG_SHIFT) as u32
    }

    /// The backend's index.
    #[inline(always)]
    #[must_use]
    pub const fn backend(self) -> u16 {
        (self.0 >> Life::BITS) as u16
    }

    /// State and age.
    #[inline(always)]
    #[must_use]
    pub const fn life(self) -> Life {
        Life::of(self.0)
    }
}

/// The word in which a flow with `tag` is, if it is in this bucket; without branches.
#[inline(always)]
#[must_use]
pub fn find(words: &[u64; BUCKET_SLOTS], tag: u32) -> Option<usize> {
    let mut found = BUCKET_SLOTS as u64;
    let mut index = 0;
    while index < BUCKET_SLOTS {
        let word = words[index];
        let other_tag = word >> Slot::TAG_SHIFT ^ u64::from(tag);
        let ours = is_zero(other_tag) & is_set(word & 0xf);
        found = select(ours, index as u64, found);
        index += 1;
    }
    let found = (found & 0xf) as usize;
    (found < BUCKET_SLOTS).then_some(found)
}

/// The word that is `key`, if there is one; without branches.
#[inline(always)]
#[must_use]
pub fn find_key(keys: &[u64; BUCKET_SLOTS], key: u64) -> Option<usize> {
    let mut found = BUCKET_SLOTS as u64;
    let mut index = 0;
    while index < BUCKET_SLOTS {
        found = select(is_zero(keys[index] ^ key), index as u64, found);
        index += 1;
    }
    let found = (found & 0xf) as usize;
    (found < BUCKET_SLOTS).then_some(found)
}

/// The best place in a bucket for a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vacancy {
    /// Its index.
    pub slot: u32,
    /// What is lost by taking it, see [`Life::worth`].
    pub worth: u32,
    /// How many words of the bucket hold a flow.
    pub used: u32,
}

impl Vacancy {
    /// The place in a bucket that is worth least; of equals one that `salt`, any bits of the flow's hash, picks.
    ///
    /// A flood fills a bucket within one tick, so that all are equals. Were it always the first that goes, it
    /// would be the latest that came.
    #[inline(always)]
    #[must_use]
    pub fn of(words: &[u64; BUCKET_SLOTS], now: u16, salt: u64) -> Self {
        let salt = salt & 7;
        let mut best = u64::MAX >> 1;
        let mut used = 0;
        let mut index = 0;
        while index < BUCKET_SLOTS {
            let worth = u64::from(Life::of(words[index]).worth(now));
            used += is_set(worth);
            let candidate = worth << 3 | index as u64 ^ salt;
            best = select(less(candidate, best), candidate, best);
            index += 1;
        }
        Self { slot: (best & 7 ^ salt) as u32, worth: (best >> 3) as u32, used: used as u32 }
    }

    /// Whether `self` is to be taken rather than `other`: less is lost, or nothing is by either and its bucket is
    /// the emptier one.
    #[inline(always)]
    #[must_use]
    pub const fn better_than(self, other: Self) -> bool {
        if self.worth <= 1 && other.worth <= 1 { self.used < other.used } else { self.worth < other.worth }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::{hash::mix, life::Classes};
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    proptest! {
        #[test]
        fn a_slot_keeps_its_parts(tag in 0u32..1 << 24, backend: u16, tick: u16) {
            let life = Life::new(FlowState::Established, Classes(9 * 0x1111), tick);
            let slot = Slot::new(tag, backend, life);
            prop_assert_eq!((slot.tag(), slot.backend(), slot.life()), (tag, backend, life));
        }

        #[test]
        fn both_buckets_are_in_the_table_and_differ(hash: u64, bits in 1u32..28) {
            let mask = (1 << bits) - 1;
            let place = Place::of(hash, mask);
            prop_assert!(place.first <= mask && place.second <= mask);
            prop_assert_ne!(place.first, place.second);
        }

        #[test]
        fn what_was_put_in_is_found(words: [u64; 8], tag in 0u32..1 << 24, backend: u16, at in 0usize..8) {
            let mut words = words;
            words[at] = Slot::new(tag, backend, Life::new(FlowState::HalfOpen, Classes(0), 0)).0;
            let found = find(&words, tag).expect("it is there");
            prop_assert_eq!(Slot(words[found]).tag(), tag);
        }

        #[test]
        fn of_two_buckets_the_word_that_is_worth_least_goes(buckets in [bucket(), bucket()], now: u16, salt: u64) {
            let (chosen, vacancy) = victim(&buckets, now, salt);
            let worth = |word: u64| Life::of(word).worth(now);
            let taken = buckets[chosen][vacancy.slot as usize];
            prop_assert_eq!(worth(taken), vacancy.worth);
            for word in buckets.concat() {
                prop_assert!(worth(taken) <= worth(word), "{:x} goes, {:x} stays", taken, word);
            }
        }

        #[test]
        fn an_empty_word_of_two_buckets_goes_first(
            buckets in [bucket(), bucket()], empty in 0usize..2, at in 0usize..8, now: u16, salt: u64
        ) {
            let mut buckets = buckets;
            buckets[empty][at] = 0;
            let (chosen, vacancy) = victim(&buckets, now, salt);
            prop_assert_eq!(buckets[chosen][vacancy.slot as usize] & 0xf, FlowState::Empty as u64);
        }
    }

    /// Words of every kind: none, flows of any state and age, whatever else has 64 bits.
    fn bucket() -> impl Strategy<Value = [u64; BUCKET_SLOTS]> {
        let state =
            prop::sample::select(&[FlowState::HalfOpen, FlowState::Datagrams, FlowState::Established][..]);
        let flow = (state, 0u16..16, any::<u16>(), any::<u32>()).prop_map(|(state, class, tick, tag)| {
            Slot::new(tag & 0xff_ffff, 1, Life::new(state, Classes(class * 0x1111), tick)).0
        });
        // Few are empty (one in 47), so that many buckets are full.
        let word = prop_oneof![1 => Just(0u64), 3 => any::<u64>(), 60 => flow];
        prop::array::uniform8(word)
    }

    /// Which of two buckets a new flow goes to, and where in it.
    fn victim(buckets: &[[u64; BUCKET_SLOTS]; 2], now: u16, salt: u64) -> (usize, Vacancy) {
        let [one, two] = buckets.map(|words| Vacancy::of(&words, now, salt));
        if two.better_than(one) { (1, two) } else { (0, one) }
    }

    #[test]
    fn a_key_is_found_where_it_is_and_nowhere_else() {
        let keys = [9, 8, 7, 6, 5, 4, 3, 2];
        for (index, key) in keys.into_iter().enumerate() {
            assert_eq!(find_key(&keys, key), Some(index));
        }
        assert_eq!(find_key(&keys, 1 << 63), None);
    }

    #[test]
    fn an_empty_bucket_holds_no_flow_not_even_one_with_tag_zero() {
        assert_eq!(find(&[0; 8], 0), None);
    }

    #[test]
    fn an_empty_word_is_taken_before_an_expired_one_and_that_before_a_live_one() {
        let live = Slot::new(1, 1, Life::new(FlowState::HalfOpen, Classes(10 * 0x1111), 1000)).0;
        let expired = Slot::new(2, 1, Life::new(FlowState::Established, Classes(0), 10)).0;
        let mut words = [live; 8];
        words[5] = expired;
        for salt in 0..16 {
            assert_eq!(Vacancy::of(&words, 1000, salt), Vacancy { slot: 5, worth: 1, used: 8 });
        }
        words[6] = 0;
        for salt in 0..16 {
            assert_eq!(Vacancy::of(&words, 1000, salt), Vacancy { slot: 6, worth: 0, used: 7 });
        }
    }

    #[test]
    fn of_equals_each_may_be_the_one_that_goes() {
        let live = Slot::new(1, 1, Life::new(FlowState::HalfOpen, Classes(10 * 0x1111), 1000)).0;
        let mut slots: Vec<_> = (0..8).map(|salt| Vacancy::of(&[live; 8], 1000, salt).slot).collect();
        slots.sort_unstable();
        assert_eq!(slots, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn of_two_buckets_with_room_the_emptier_is_taken() {
        let live = Slot::new(1, 1, Life::new(FlowState::Established, Classes(10 * 0x1111), 0)).0;
        let fuller = Vacancy::of(&[live, live, 0, 0, 0, 0, 0, 0], 0, 0);
        let emptier = Vacancy::of(&[live, 0, 0, 0, 0, 0, 0, 0], 0, 0);
        let full = Vacancy::of(&[live; 8], 0, 0);
        assert!(emptier.better_than(fuller) && !fuller.better_than(emptier));
        assert!(fuller.better_than(full) && !full.better_than(fuller));
    }

    /// Fills a table to half and counts live flows that were overwritten.
    #[test]
    fn a_table_that_is_half_full_pushes_nobody_out() {
        let buckets = 1usize << 12;
        let mut table = vec![[0u64; 8]; buckets];
        let mut evicted = 0;
        for flow in 0..(buckets * 8 / 2) as u64 {
            let place = Place::of(mix(flow), buckets as u32 - 1);
            let candidates = [place.first, place.second].map(|bucket| bucket as usize);
            let (chosen, vacancy) = victim(&candidates.map(|bucket| table[bucket]), 0, flow);
            evicted += u32::from(vacancy.worth > 1);
            let life = Life::new(FlowState::Established, Classes(10 * 0x1111), 0);
            table[candidates[chosen]][vacancy.slot as usize] = Slot::new(place.tag, 1, life).0;
        }
        assert_eq!(evicted, 0);
        let used: Vec<usize> =
            table.iter().map(|words| words.iter().filter(|word| **word != 0).count()).collect();
        assert_eq!(used.iter().sum::<usize>(), buckets * 4);
    }
}
