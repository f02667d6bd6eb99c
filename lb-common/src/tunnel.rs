//! Packets in packets: what an outer header says (modes `ipip` and `gue`), and what is left when it is taken off.
//!
//! `ipip` is IP in IP (RFC 2003, RFC 2473, RFC 4213). `gue` is variant 1 of Generic UDP Encapsulation
//! (draft-ietf-intarea-gue, 4): the packet right behind a UDP header, its IP version telling which it is.

/// IPv4 in IP.
pub const PROTOCOL_IPIP: u8 = 4;
/// IPv6 in IP.
pub const PROTOCOL_IPV6: u8 = 41;

/// The UDP port of `gue` where none is given.
pub const GUE_PORT: u16 = 6080;

/// The TTL or hop limit of outer headers: a tunnel is one hop to the packet in it, however long it is (RFC 2003, 3.1).
pub const OUTER_HOP_LIMIT: u8 = 64;

/// An IPv4 header without options.
const IPV4_BYTES: u16 = 20;
/// An IPv6 header.
const IPV6_BYTES: u16 = 40;
/// A UDP header.
const UDP_BYTES: u16 = 8;

/// How many bytes a tunnel puts in front of a packet.
#[inline(always)]
#[must_use]
pub const fn overhead(outer_is_v4: bool, has_udp: bool) -> u16 {
    (if outer_is_v4 { IPV4_BYTES } else { IPV6_BYTES }) + (if has_udp { UDP_BYTES } else { 0 })
}

/// Whether an outer IPv4 header says "don't fragment".
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DontFragment {
    /// As the packet in it; IPv6 packets are never fragmented on the way, so it is set around them.
    #[default]
    Copy = 0,
    /// Always.
    Set = 1,
    /// Never: routers behind this one may take the outer packet apart, and the backend puts it together again.
    Clear = 2,
}

/// What a service asks of its tunnel, in one word: [`crate::Service::tunnel`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelOptions(pub u64);

impl TunnelOptions {
    /// `gue`'s destination port, and what IPv4 says of fragments.
    #[inline(always)]
    #[must_use]
    pub const fn new(port: u16, dont_fragment: DontFragment) -> Self {
        let [high, low] = port.to_be_bytes();
        Self(u64::from_le_bytes([high, low, dont_fragment as u8, 0, 0, 0, 0, 0]))
    }

    /// The port, in wire order.
    #[inline(always)]
    #[must_use]
    pub const fn port(self) -> [u8; 2] {
        [self.0 as u8, (self.0 >> 8) as u8]
    }

    /// Whether the outer header of a packet says "don't fragment"; `inner` is what the packet's own says.
    #[inline(always)]
    #[must_use]
    pub const fn dont_fragment(self, inner: bool) -> bool {
        match (self.0 >> 16) as u8 {
            1 => true,
            2 => false,
            _ => inner,
        }
    }
}

/// The source port of a flow's outer UDP header: of the dynamic ports, so that receivers and routers that look at ports
/// spread flows (RFC 7510, 3).
#[inline(always)]
#[must_use]
pub const fn source_port(flow_hash: u64) -> [u8; 2] {
    (0xc000 | (flow_hash >> 50) as u16).to_be_bytes()
}

/// The flow label of a flow's outer IPv6 header, 20 bits (RFC 6438).
#[inline(always)]
#[must_use]
pub const fn flow_label(flow_hash: u64) -> u32 {
    (flow_hash >> 44) as u32
}

/// The outer source address of a flow: `base`, of which the last `host_bits` (64 at most) are the flow's. Addresses are
/// words as [`crate::Addr`] has them in memory.
#[inline(always)]
#[must_use]
pub const fn source_address(base: [u64; 2], host_bits: u8, flow_hash: u64) -> [u64; 2] {
    let all = u64::MAX;
    let mask = if host_bits >= 64 { all } else { !(all << host_bits) };
    [base[0], base[1] | (flow_hash & mask).to_be()]
}

/// The traffic class of a packet that comes out of a tunnel, its DSCP its own; none where it must be dropped, since it
/// met congestion and its sender would not understand that (RFC 6040, 4.2).
#[inline(always)]
#[must_use]
pub const fn decapsulated_traffic_class(inner: u8, outer: u8) -> Option<u8> {
    const NOT_ECT: u8 = 0b00;
    const ECT_1: u8 = 0b01;
    const ECT_0: u8 = 0b10;
    const CE: u8 = 0b11;
    match (inner & CE, outer & CE) {
        (NOT_ECT, CE) => None,
        (ECT_0 | ECT_1, CE) => Some(inner | CE),
        (ECT_0, ECT_1) => Some(inner & !CE | ECT_1),
        _ => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::Addr;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn options_survive_the_way_through_a_word() {
        for (how, inner_set, inner_clear) in [
            (DontFragment::Copy, true, false),
            (DontFragment::Set, true, true),
            (DontFragment::Clear, false, false),
        ] {
            let options = TunnelOptions::new(6080, how);
            assert_eq!(options.port(), 6080u16.to_be_bytes());
            assert_eq!((options.dont_fragment(true), options.dont_fragment(false)), (inner_set, inner_clear));
        }
    }

    /// The table of RFC 6040, figure 4: rows are the packet's own field, columns the outer one's.
    #[test]
    fn congestion_survives_the_tunnel() {
        let (not, one, zero, ce) = (0b00, 0b01, 0b10, 0b11);
        let columns = [not, zero, one, ce];
        for (inner, expected) in [
            (not, [Some(not), Some(not), Some(not), None]),
            (zero, [Some(zero), Some(zero), Some(one), Some(ce)]),
            (one, [Some(one), Some(one), Some(one), Some(ce)]),
            (ce, [Some(ce); 4]),
        ] {
            assert_eq!(
                columns.map(|outer| decapsulated_traffic_class(inner, outer)),
                expected,
                "{inner:02b}"
            );
        }
        assert_eq!(
            decapsulated_traffic_class(0b1011_1010, 0b0000_0011),
            Some(0b1011_1011),
            "DSCP is its own"
        );
    }

    fn words(addr: Addr) -> [u64; 2] {
        // As they lie in memory, which is what the data plane reads.
        let [high, low] = addr.words();
        [u64::from_ne_bytes(high.to_le_bytes()), u64::from_ne_bytes(low.to_le_bytes())]
    }

    proptest! {
        #[test]
        fn an_address_stays_in_its_prefix(base: u32, bits in 0u8..=32, hash: u64) {
            let base = if bits == 32 { 0 } else { base >> bits << bits };
            let [high, low] = source_address(words(Addr::from_v4(base.to_be_bytes())), bits, hash);
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&high.to_ne_bytes());
            bytes[8..].copy_from_slice(&low.to_ne_bytes());
            let source = Addr(bytes);
            prop_assert!(source.is_v4());
            let source = u32::from_be_bytes(source.v4_octets());
            let host = if bits == 32 { u32::MAX } else { !(u32::MAX << bits) };
            prop_assert_eq!(source & !host, base);
            prop_assert_eq!(source & host, hash as u32 & host);
        }

        #[test]
        fn ports_are_dynamic_and_labels_have_twenty_bits(hash: u64) {
            prop_assert!(u16::from_be_bytes(source_port(hash)) >= 49_152);
            prop_assert!(flow_label(hash) < 1 << 20);
        }
    }

    #[test]
    fn flows_spread_over_ports() {
        let ports: HashSet<_> = (0..1000u64).map(|n| source_port(crate::hash::mix(n))).collect();
        assert!(ports.len() > 900, "{}", ports.len());
    }

    #[test]
    fn an_ipv6_prefix_varies_in_its_last_word() {
        let base = words(Addr([0x20; 16]));
        let [high, low] = source_address([base[0], 0], 64, 0x0102_0304_0506_0708);
        assert_eq!((high, low.to_ne_bytes()), (base[0], [1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(source_address(base, 0, u64::MAX), base);
    }

    #[test]
    fn headers_have_the_sizes_of_their_rfcs() {
        assert_eq!(
            [(true, false), (true, true), (false, false), (false, true)].map(|(v4, udp)| overhead(v4, udp)),
            [20, 28, 40, 48]
        );
    }
}
