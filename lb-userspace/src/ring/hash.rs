//! The hash that a backend's order of preference comes from.
//!
//! Nodes of different versions must agree on it, so it is written out here and never changes: FNV-1a over the
//! bytes of address and port, then the finalizer of MurmurHash3, which spreads what FNV leaves in the low
//! bits.

use std::net::{IpAddr, SocketAddr};

const FNV_OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash of a backend's identity: its address and port, nothing else. `seed` picks one of many such
/// hashes.
pub(super) fn identity(backend: SocketAddr, seed: u64) -> u64 {
    let hash = mix(FNV_OFFSET_BASIS ^ seed);
    let hash = match backend.ip() {
        IpAddr::V4(address) => fnv(hash, &address.octets()),
        IpAddr::V6(address) => fnv(hash, &address.octets()),
    };
    mix(fnv(hash, &backend.port().to_be_bytes()))
}

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// Spreads every bit over all of the result (the finalizer of MurmurHash3).
pub(super) fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::{FNV_OFFSET_BASIS, fnv, identity, mix};

    #[test]
    fn the_parts_are_the_published_functions() {
        // FNV-1a, from the reference test vectors.
        assert_eq!(fnv(FNV_OFFSET_BASIS, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv(FNV_OFFSET_BASIS, b"foobar"), 0x8594_4171_f739_67e8);
        // MurmurHash3's fmix64.
        assert_eq!(mix(0), 0);
        assert_eq!(mix(1), 0xb456_bcfc_34c2_cb2c);
    }

    #[test]
    fn address_port_and_seed_all_count() {
        let of = |text: &str, seed| identity(text.parse().unwrap(), seed);
        let hashes = [
            of("10.2.0.11:80", 0),
            of("10.2.0.11:80", 1),
            of("10.2.0.11:81", 0),
            of("10.2.0.12:80", 0),
            of("[2001:db8::11]:80", 0),
        ];
        for (at, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..at].contains(hash));
        }
    }
}
