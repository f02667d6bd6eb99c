//! Refusals: what a RST says, and how often an ICMP error may be sent.

use crate::{
    Addr,
    life::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
};

/// What tells a TCP segment's sender that there is no such connection (RFC 9293, 3.10.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpReset {
    /// The RST's sequence number.
    pub sequence: u32,
    /// Its acknowledgment number; 0 where it has none.
    pub acknowledgment: u32,
    /// Its flags.
    pub flags: u8,
}

/// The RST that answers a segment of `payload_bytes` with these flags and numbers; none for a RST, which is never
/// answered.
#[inline(always)]
#[must_use]
pub const fn reset_for(
    flags: u8,
    sequence: u32,
    acknowledgment: u32,
    payload_bytes: u32,
) -> Option<TcpReset> {
    if flags & TCP_RST != 0 {
        return None;
    }
    if flags & TCP_ACK != 0 {
        return Some(TcpReset { sequence: acknowledgment, acknowledgment: 0, flags: TCP_RST });
    }
    let syn = (flags & TCP_SYN != 0) as u32;
    let fin = (flags & TCP_FIN != 0) as u32;
    let end = sequence.wrapping_add(payload_bytes).wrapping_add(syn).wrapping_add(fin);
    Some(TcpReset { sequence: 0, acknowledgment: end, flags: TCP_RST | TCP_ACK })
}

/// An ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Nobody listens at the datagram's port.
    PortUnreachable,
    /// The packet's TTL or hop limit was at its end on the way.
    TimeExceeded,
    /// The packet is larger than what can be sent on: so many bytes.
    TooBig(u16),
}

impl IcmpError {
    /// Type and code for IPv4 (RFC 792).
    #[inline(always)]
    #[must_use]
    pub const fn v4(self) -> [u8; 2] {
        match self {
            Self::PortUnreachable => [3, 3],
            Self::TimeExceeded => [11, 0],
            Self::TooBig(_) => [3, 4],
        }
    }

    /// Type and code for IPv6 (RFC 4443, 3.1 to 3.3).
    #[inline(always)]
    #[must_use]
    pub const fn v6(self) -> [u8; 2] {
        match self {
            Self::PortUnreachable => [1, 4],
            Self::TimeExceeded => [3, 0],
            Self::TooBig(_) => [2, 0],
        }
    }

    /// The four bytes behind the checksum: the MTU, where there is one, as RFC 1191, 4, has it and, with two more bytes
    /// in front of the same two, RFC 4443, 3.2.
    #[inline(always)]
    #[must_use]
    pub const fn rest(self) -> [u8; 4] {
        let bytes = match self {
            Self::TooBig(bytes) => bytes,
            Self::PortUnreachable | Self::TimeExceeded => 0,
        };
        let [high, low] = bytes.to_be_bytes();
        [0, 0, high, low]
    }
}

/// Whether a packet's sender may be answered at all: not where its address is no single host's (RFC 1122, 3.2.1.3 and
/// 3.2.2; RFC 4443, 2.4 e).
#[inline(always)]
#[must_use]
pub const fn is_single_host(source: &Addr) -> bool {
    if source.is_v4() {
        let [first, ..] = source.v4_octets();
        return first != 0 && first != 127 && first < 224;
    }
    let [high, low] = source.words();
    source.0[0] != 0xff && (high | low) != 0
}

/// ICMP errors that one CPU may send in a tick. Errors are to be limited (RFC 1812, 4.3.2.8; RFC 4443, 2.4 f), and
/// those of a refusal are larger than the datagrams that they answer may be.
pub const REFUSALS_PER_TICK: u64 = 1000;

/// How many ICMP errors have been sent in the present tick: the tick (16 bits), then the count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance(pub u64);

impl Allowance {
    /// The allowance after one more error at `tick`; none where it is used up.
    #[inline(always)]
    #[must_use]
    pub const fn take(self, tick: u16) -> Option<Self> {
        let count = if self.0 >> 48 == tick as u64 { self.0 & 0xffff_ffff } else { 0 };
        if count >= REFUSALS_PER_TICK {
            return None;
        }
        Some(Self((tick as u64) << 48 | (count + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_believed_by_the_segments_sender() {
        let reset = |sequence, acknowledgment, flags| Some(TcpReset { sequence, acknowledgment, flags });
        assert_eq!(reset_for(TCP_SYN, 7, 0, 0), reset(0, 8, TCP_RST | TCP_ACK));
        assert_eq!(reset_for(TCP_SYN, u32::MAX, 0, 10), reset(0, 10, TCP_RST | TCP_ACK));
        assert_eq!(reset_for(TCP_FIN, 7, 0, 3), reset(0, 11, TCP_RST | TCP_ACK));
        assert_eq!(reset_for(0, 7, 9, 3), reset(0, 10, TCP_RST | TCP_ACK));
        assert_eq!(reset_for(TCP_ACK, 7, 9, 100), reset(9, 0, TCP_RST));
        assert_eq!(reset_for(TCP_ACK | TCP_FIN, 7, 9, 0), reset(9, 0, TCP_RST));
        assert_eq!(reset_for(TCP_RST, 7, 9, 0), None);
        assert_eq!(reset_for(TCP_RST | TCP_ACK, 7, 9, 0), None);
    }

    #[test]
    fn nobody_but_a_single_host_is_answered() {
        for octets in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
            assert!(!is_single_host(&Addr::from_v4(octets)), "{octets:?}");
        }
        let v6 = |first, last| {
            let mut bytes = [0; 16];
            (bytes[0], bytes[15]) = (first, last);
            Addr(bytes)
        };
        assert!(!is_single_host(&v6(0, 0)) && !is_single_host(&v6(0xff, 1)));
        assert!(is_single_host(&v6(0x20, 0)) && is_single_host(&Addr::from_v4([10, 0, 0, 1])));
    }

    #[test]
    fn an_allowance_is_for_a_tick() {
        let mut allowance = Allowance::default();
        for _ in 0..REFUSALS_PER_TICK {
            allowance = allowance.take(5).expect("some left");
        }
        assert_eq!(allowance.take(5), None);
        assert_eq!(allowance.take(6), Allowance(0).take(6));
        assert!(allowance.take(6).is_some());
    }
}
