//! How rings lie in memory.
//!
//! One array holds the slots of all rings, 32 of them a cache line. A service names its ring by offset and length
//! in one word, so a new ring is put in place by one aligned store and no packet ever sees half of one.

/// Slots in one [`RingLine`].
pub const LINE_SLOTS: u32 = 32;

/// One value of `RINGS`: slots are indices of backends, 0 is none.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLine(pub [u16; LINE_SLOTS as usize]);

const _: () = assert!(size_of::<RingLine>() == 64 && align_of::<RingLine>() == 64);

/// A ring's place: its first line and its length in slots. Length 0 is the empty ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingRef {
    /// The first line.
    pub first_line: u32,
    /// Slots, beginning at the first of that line.
    pub slots: u32,
}

impl RingRef {
    /// As [`crate::Service::ring`] holds it.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.first_line as u64) << 32 | self.slots as u64
    }

    /// From [`crate::Service::ring`].
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self { first_line: (word >> 32) as u32, slots: word as u32 }
    }

    /// Lines that a ring of `slots` takes.
    #[must_use]
    pub const fn lines(slots: u32) -> u32 {
        slots.div_ceil(LINE_SLOTS)
    }

    /// The slot for a hash: its line in `RINGS`, and its index in that line. Only for a ring that is not empty.
    ///
    /// Scales the hash to the length by a multiplication (Lemire, 2019) in place of a division.
    #[inline(always)]
    #[must_use]
    pub const fn locate(self, hash: u32) -> (u32, u32) {
        self.place(self.slot(hash))
    }

    /// The slot for a hash.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self, hash: u32) -> u32 {
        ((hash as u64 * self.slots as u64) >> 32) as u32
    }

    /// Where a slot is: its line in `RINGS`, and its index in that line.
    #[inline(always)]
    #[must_use]
    pub const fn place(self, slot: u32) -> (u32, u32) {
        (self.first_line + slot / LINE_SLOTS, slot % LINE_SLOTS)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_keeps_both_halves(first_line: u32, slots: u32) {
            let ring = RingRef { first_line, slots };
            prop_assert_eq!(RingRef::unpack(ring.pack()), ring);
        }

        #[test]
        fn a_slot_is_always_inside_the_ring(hash: u32, slots in 1u32..70_000, first_line in 0u32..1_000_000) {
            let (line, index) = RingRef { first_line, slots }.locate(hash);
            prop_assert!((line - first_line) * LINE_SLOTS + index < slots);
            prop_assert!(line - first_line < RingRef::lines(slots));
        }
    }
}
