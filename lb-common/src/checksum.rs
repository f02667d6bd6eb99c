//! Incremental updates of the Internet checksum (RFC 1071, RFC 1624).
//!
//! One's complement sums do not depend on byte order, so words are taken as they lie in memory.

/// The sum of what has changed under a checksum: old words out, new words in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// Nothing has changed.
    pub const NONE: Self = Self(0);

    /// Two bytes at an even offset have changed from `old` to `new`.
    #[inline(always)]
    #[must_use]
    pub const fn change16(self, old: [u8; 2], new: [u8; 2]) -> Self {
        Self(self.0 + !u16::from_ne_bytes(old) as u64 + u16::from_ne_bytes(new) as u64)
    }

    /// Four bytes at an even offset have changed.
    #[inline(always)]
    #[must_use]
    pub const fn change32(self, old: [u8; 4], new: [u8; 4]) -> Self {
        Self(self.0 + !u32::from_ne_bytes(old) as u64 + u32::from_ne_bytes(new) as u64)
    }

    /// Sixteen bytes at an even offset have changed.
    #[inline(always)]
    #[must_use]
    pub const fn change128(self, old: [u8; 16], new: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = old;
        let [q, r, s, t, u, v, w, x, y, z, aa, ab, ac, ad, ae, af] = new;
        self.change32([a, b, c, d], [q, r, s, t])
            .change32([e, f, g, h], [u, v, w, x])
            .change32([i, j, k, l], [y, z, aa, ab])
            .change32([m, n, o, p], [ac, ad, ae, af])
    }

    /// The checksum after the change: `HC' = ~(~HC + ~m + m')` (RFC 1624, equation 3).
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        let sum = self.0 + !u16::from_ne_bytes(checksum) as u64;
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        (!(sum as u16)).to_ne_bytes()
    }

    /// The same for UDP: zero means that there is no checksum, and stays; a computed zero is sent as all ones
    /// (RFC 768).
    #[inline(always)]
    #[must_use]
    pub const fn apply_udp(self, checksum: [u8; 2]) -> [u8; 2] {
        if matches!(checksum, [0, 0]) {
            return checksum;
        }
        match self.apply(checksum) {
            [0, 0] => [0xff, 0xff],
            updated => updated,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    /// The checksum from scratch (RFC 1071), independent of the code above.
    fn full(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    proptest! {
        #[test]
        fn an_update_gives_what_a_full_sum_would(
            mut bytes in proptest::collection::vec(any::<u8>(), 40..100),
            new16: [u8; 2], new32: [u8; 4], new128: [u8; 16],
        ) {
            // At least one word is not zero after the change, as in every real packet.
            bytes[38] = 1;
            let before = full(&bytes);
            let old16 = [bytes[2], bytes[3]];
            let old32 = [bytes[4], bytes[5], bytes[6], bytes[7]];
            let old128: [u8; 16] = bytes[10..26].try_into().expect("sixteen bytes");
            bytes[2..4].copy_from_slice(&new16);
            bytes[4..8].copy_from_slice(&new32);
            bytes[10..26].copy_from_slice(&new128);
            let delta = Delta::NONE.change16(old16, new16).change32(old32, new32).change128(old128, new128);
            prop_assert_eq!(delta.apply(before), full(&bytes));
        }
    }

    #[test]
    fn udp_without_a_checksum_stays_without() {
        assert_eq!(Delta::NONE.change16([1, 2], [3, 4]).apply_udp([0, 0]), [0, 0]);
    }

    #[test]
    fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() {
        // ~(~0x0001 + ~0x0000 + 0x0001) = ~0xffff = 0.
        let delta = Delta::NONE.change16([0, 0], 1u16.to_be_bytes());
        assert_eq!(delta.apply(1u16.to_be_bytes()), [0, 0]);
        assert_eq!(delta.apply_udp(1u16.to_be_bytes()), [0xff, 0xff]);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // Section 4: HC = 0xdd2f, a word goes from 0x5555 to 0x3285, HC' = 0x0000.
        let delta = Delta::NONE.change16(0x5555u16.to_be_bytes(), 0x3285u16.to_be_bytes());
        assert_eq!(delta.apply(0xdd2fu16.to_be_bytes()), [0, 0]);
    }
}
