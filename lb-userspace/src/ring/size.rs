//! How many slots a ring has.

/// The sizes a ring may have: primes, so that any step through the ring visits every slot. Few and far apart, since
/// a ring of another size is another ring altogether, which only the flow table carries flows over.
pub const SIZES: [u32; 4] = [4099, 65_537, 262_147, 1_048_583];

/// So many slots a backend let shares follow weights to within a percent.
const SLOTS_PER_BACKEND: usize = 100;

/// The size of the ring of a service with so many backends.
///
/// Count the *configured* backends, not those that are up: health must not change a ring's size.
#[must_use]
pub fn size(backends: usize) -> u32 {
    let wanted = backends.saturating_mul(SLOTS_PER_BACKEND);
    let enough = |size: &u32| *size as usize >= wanted;
    SIZES.into_iter().find(enough).unwrap_or(SIZES[SIZES.len() - 1])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{SIZES, size};

    #[test]
    fn sizes_are_primes_in_order() {
        for prime in SIZES {
            let divisor = (2..prime).take_while(|n| n * n <= prime).find(|n| prime.is_multiple_of(*n));
            assert_eq!(divisor, None, "{prime}");
        }
        assert!(SIZES.is_sorted());
    }

    #[test]
    fn sizes_grow_with_the_backends() {
        assert_eq!(
            [0, 1, 40, 41, 655, 656, 2621, 2622].map(size),
            [4099, 4099, 4099, 65_537, 65_537, 262_147, 262_147, 1_048_583]
        );
        assert_eq!(size(65_535), 1_048_583);
        assert_eq!(size(usize::MAX), 1_048_583);
    }

    proptest! {
        #[test]
        fn every_backend_has_a_hundred_slots_where_possible(backends in 0_usize..=10_485) {
            prop_assert!(size(backends) as usize >= 100 * backends);
            prop_assert!(size(backends) <= size(backends + 1));
        }
    }
}
