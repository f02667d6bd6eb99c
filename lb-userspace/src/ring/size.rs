//! How many slots a ring has.

/// The sizes a ring may have: primes, so that any step through the ring visits every slot. Few and far apart, since
/// a ring of another size is another ring altogether, which only the flow table carries flows over.
pub const SIZES: [u32; 4] = [4099, 65_537, 262_147, 1_048_583];

/// So many slots a backend let shares follow weights to within a percent.
const SLOTS_PER_BACKEND: usize = 100;

/// So many the lightest backend has at least: its share is then right to an eighth, whatever the others weigh.
const SLOTS_OF_LIGHTEST: usize = 4;

/// The size of the ring of a service whose backends have these weights.
///
/// By *configured* backends and weights, not by those that are up or in force for a while: health and overrides must not
/// change a ring's size.
#[must_use]
pub fn size(weights: impl IntoIterator<Item = u16>) -> u32 {
    let (mut backends, mut sum, mut lightest) = (0_usize, 0_usize, usize::MAX);
    for weight in weights.into_iter().map(usize::from) {
        backends += 1;
        sum += weight;
        if weight > 0 {
            lightest = lightest.min(weight);
        }
    }
    let wanted = (backends * SLOTS_PER_BACKEND).max((sum * SLOTS_OF_LIGHTEST).div_ceil(lightest));
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
            [0, 1, 40, 41, 655, 656, 2621, 2622].map(of_equals),
            [4099, 4099, 4099, 65_537, 65_537, 262_147, 262_147, 1_048_583]
        );
        assert_eq!(of_equals(65_535), 1_048_583);
        assert_eq!(size([0, 0]), 4099);
    }

    #[test]
    fn sizes_grow_with_what_the_lightest_backend_needs() {
        let beside = |heavy: usize| size(std::iter::once(1).chain(std::iter::repeat_n(1000, heavy)));
        assert_eq!([1, 9, 99, 999].map(beside), [4099, 65_537, 1_048_583, 1_048_583]);
    }

    fn of_equals(backends: usize) -> u32 {
        size(std::iter::repeat_n(10, backends))
    }

    proptest! {
        #[test]
        fn every_backend_has_a_hundred_slots_where_possible(backends in 0_usize..=10_485) {
            prop_assert!(of_equals(backends) as usize >= 100 * backends);
            prop_assert!(of_equals(backends) <= of_equals(backends + 1));
        }
    }
}
