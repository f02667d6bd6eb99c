//! Hashes: one for the tables, keyed, and one for the ring, the same on every node of a fleet.

use crate::Addr;

/// Spreads every bit of `x` over all of the result; a bijection (the finalizer of MurmurHash3).
#[inline(always)]
#[must_use]
pub const fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// What tells one flow from another once its service is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// The client's address, as [`Addr::words`] has it.
    pub client: [u64; 2],
    /// The client's port, in wire order.
    pub client_port: [u8; 2],
    /// The service's index.
    pub service: u16,
}

/// The flow's key in the tables: 64 bits under a secret key, so that nobody outside can aim flows at a bucket.
///
/// For IPv4 the three parts fill one word exactly and the hash is a bijection of it: two IPv4 flows *never* have
/// the same key. For IPv6 it is SipHash-1-3, whose authors' own analysis leaves no better collision than chance.
#[inline(always)]
#[must_use]
pub fn flow_hash(secret: [u64; 2], key: &FlowKey) -> u64 {
    let ports = u64::from(u16::from_le_bytes(key.client_port)) << 16 | u64::from(key.service);
    let [high, low] = key.client;
    if Addr::words_are_v4(key.client) {
        let word = low >> 32 << 32 | ports;
        mix(mix(word ^ secret[0]) ^ secret[1])
    } else {
        sip13(secret, [high, low, ports])
    }
}

/// Where the `attempt`-th try for a flow falls on the ring; the first is the hash itself.
#[inline(always)]
#[must_use]
pub const fn ring_hash_again(hash: u32, attempt: u32) -> u32 {
    if attempt == 0 {
        return hash;
    }
    (mix(hash as u64 | (attempt as u64) << 32) >> 32) as u32
}

/// Where a client's flow falls on the ring, of `client` the words of the address that count. Not keyed: every node that has the same backends must agree.
#[inline(always)]
#[must_use]
pub fn ring_hash(client: [u64; 2], client_port: [u8; 2]) -> u32 {
    let [high, low] = client;
    let port = u64::from(u16::from_le_bytes(client_port));
    (mix(mix(high ^ 0x9e37_79b9_7f4a_7c15) ^ low ^ (port << 40)) >> 32) as u32
}

/// Where the reply of a translated flow is looked up. Not keyed: a client's influence on it ends at the port,
/// which the data plane picks from the flow's secret hash.
#[inline(always)]
#[must_use]
pub fn reply_hash(backend: &Addr, source: &Addr, backend_port: [u8; 2], nat_port: u16, protocol: u8) -> u64 {
    let ports =
        u64::from(nat_port) << 32 | u64::from(u16::from_le_bytes(backend_port)) << 8 | u64::from(protocol);
    let [backend_high, backend_low] = backend.words();
    let [source_high, source_low] = source.words();
    let addresses = backend_low.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ source_low;
    let prefixes = (backend_high ^ 0x2545_f491_4f6c_dd1d).wrapping_mul(0xd6e8_feb8_6659_fd93) ^ source_high;
    mix(mix(addresses).wrapping_add(prefixes.wrapping_mul(0xa076_1d64_78bd_642f)) ^ ports)
}

/// SipHash-1-3 of whole words (Aumasson and Bernstein, 2012; one round a word and three at the end).
#[inline(always)]
#[must_use]
pub fn sip13<const N: usize>(key: [u64; 2], words: [u64; N]) -> u64 {
    let mut state = SipState {
        v0: key[0] ^ 0x736f_6d65_7073_6575,
        v1: key[1] ^ 0x646f_7261_6e64_6f6d,
        v2: key[0] ^ 0x6c79_6765_6e65_7261,
        v3: key[1] ^ 0x7465_6462_7974_6573,
    };
    for word in words {
        state.absorb(word);
    }
    state.absorb(((N * 8) as u64) << 56);
    state.v2 ^= 0xff;
    state.round();
    state.round();
    state.round();
    state.v0 ^ state.v1 ^ state.v2 ^ state.v3
}

struct SipState {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl SipState {
    #[inline(always)]
    fn absorb(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::{collections::HashSet, vec, vec::Vec};

    /// The standard library's SipHasher is SipHash-2-4; `DefaultHasher` is SipHash-1-3 with a zero key.
    #[test]
    fn sip13_agrees_with_the_standard_library() {
        use std::hash::{DefaultHasher, Hasher};
        for words in [[0, 0, 0], [1, 2, 3], [u64::MAX, 0x0123_4567_89ab_cdef, 42]] {
            let mut hasher = DefaultHasher::new();
            for word in words {
                hasher.write(&word.to_le_bytes());
            }
            assert_eq!(sip13([0, 0], words), hasher.finish());
        }
    }

    #[test]
    fn ring_hash_is_the_same_in_every_version() {
        let client = Addr::from_v4([192, 0, 2, 1]);
        assert_eq!(ring_hash(client.words(), 40_000u16.to_be_bytes()), 3_694_074_237);
    }

    proptest! {
        #[test]
        fn two_ipv4_flows_never_share_a_key(
            a: ([u8; 4], [u8; 2], u16), b: ([u8; 4], [u8; 2], u16), secret: [u64; 2],
        ) {
            let key = |(client, client_port, service)| {
                flow_hash(secret, &FlowKey { client: Addr::from_v4(client).words(), client_port, service })
            };
            prop_assert_eq!(a == b, key(a) == key(b));
        }
    }

    /// Largest share of `buckets` for consecutive ports of few clients: what real traffic looks like.
    fn largest_bucket(hash: impl Fn(Addr, u16) -> u64, buckets: usize) -> usize {
        let mut counts = vec![0; buckets];
        for client in 0..16u8 {
            for port in 32_768..36_864u16 {
                counts[hash(Addr::from_v4([10, 0, 0, client]), port) as usize % buckets] += 1;
            }
        }
        counts.into_iter().max().unwrap_or(0)
    }

    #[test]
    fn neighbouring_ports_spread_evenly() {
        let secret = [7, 11];
        let flows = |client: Addr, port: u16| {
            flow_hash(
                secret,
                &FlowKey { client: client.words(), client_port: port.to_be_bytes(), service: 1 },
            )
        };
        let ring = |client: Addr, port: u16| u64::from(ring_hash(client.words(), port.to_be_bytes()));
        let backend = Addr::from_v4([10, 2, 0, 11]);
        let replies = |source: Addr, port| reply_hash(&backend, &source, [0x1f, 0x90], port, 6);
        // 65,536 keys in 256 buckets: 256 each, standard deviation 16.
        for largest in [largest_bucket(flows, 256), largest_bucket(ring, 256), largest_bucket(replies, 256)] {
            assert!(largest < 256 + 6 * 16, "{largest}");
        }
    }

    #[test]
    fn replies_of_many_backends_differ() {
        let keys: Vec<u64> = (0..=255u8)
            .flat_map(|backend| (0..=255u8).map(move |port| (backend, port)))
            .map(|(backend, port)| {
                let backend = Addr::from_v4([10, 2, 0, backend]);
                reply_hash(&backend, &Addr::from_v4([10, 2, 0, 1]), [0, 80], u16::from(port), 17)
            })
            .collect();
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    }
}
