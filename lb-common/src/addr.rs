//! Addresses of both IP versions in one form.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv6 address, or an IPv4 address in its IPv4-mapped form (RFC 4291, 2.5.5.2), in wire order.
///
/// Aligned to eight bytes: the verifier refuses unaligned words on the stack.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr(pub [u8; 16]);

const _: () = assert!(size_of::<Addr>() == 16 && align_of::<Addr>() == 8);

impl Addr {
    /// The IPv4-mapped form of `octets`.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// Whether it is an IPv4 address, in `::ffff:0:0/96`.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        Self::words_are_v4(self.words())
    }

    /// Whether the address of which these are the words is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn words_are_v4([high, low]: [u64; 2]) -> bool {
        high == 0 && low as u32 == 0xffff_0000
    }

    /// The last four bytes: the IPv4 address, where it is one.
    #[inline(always)]
    #[must_use]
    pub const fn v4_octets(&self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// The address as two little-endian words, for hashing.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0;
        [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p])]
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(address: Addr) -> Self {
        if address.is_v4() {
            Self::V4(Ipv4Addr::from(address.v4_octets()))
        } else {
            Self::V6(Ipv6Addr::from(address.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_survive_the_way_there_and_back() {
        for text in ["10.1.0.10", "255.255.255.255", "2001:db8::1", "::", "fe80::1"] {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(IpAddr::from(Addr::from(address)), address);
        }
    }

    #[test]
    fn words_are_in_wire_order() {
        let address = Addr::from_v4([1, 2, 3, 4]);
        assert_eq!(address.words(), [0, 0x0403_0201_ffff_0000]);
        assert!(address.is_v4());
        assert_eq!(address.v4_octets(), [1, 2, 3, 4]);
    }
}
