//! Services as the data plane sees them.

use crate::Addr;

/// The transport protocol's number for TCP (RFC 9293).
pub const PROTOCOL_TCP: u8 = 6;
/// The transport protocol's number for UDP (RFC 768).
pub const PROTOCOL_UDP: u8 = 17;

/// What names a service in a packet. Padding is zero, since the kernel compares keys byte by byte.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// The address that clients send to.
    pub addr: Addr,
    /// The port that clients send to, in wire order.
    pub port: [u8; 2],
    /// [`PROTOCOL_TCP`] or [`PROTOCOL_UDP`].
    pub protocol: u8,
    padding: [u8; 5],
}

const _: () = assert!(size_of::<ServiceKey>() == 24 && align_of::<ServiceKey>() == 8);

impl ServiceKey {
    /// The key of a service.
    #[inline(always)]
    #[must_use]
    pub const fn new(addr: Addr, port: [u8; 2], protocol: u8) -> Self {
        Self { addr, port, protocol, padding: [0; 5] }
    }

    /// The bytes that the kernel compares.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.addr.0);
        bytes[16..18].copy_from_slice(&self.port);
        bytes[18] = self.protocol;
        bytes
    }

    /// The key in `bytes`, as [`ServiceKey::to_bytes`] made them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 24]) -> Self {
        let mut addr = Addr::default();
        addr.0.copy_from_slice(&bytes[..16]);
        Self::new(addr, [bytes[16], bytes[17]], bytes[18])
    }
}

/// What an address is used for besides its services' ports: a value of the map `ADDRESSES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressUse(pub u32);

impl AddressUse {
    const ANSWERS_PINGS: u32 = 1 << 16;

    /// Whether pings are answered, and which service the parts of UDP packets go to; 0: none.
    #[must_use]
    pub const fn new(answers_pings: bool, fragments_to: u16) -> Self {
        Self(fragments_to as u32 | if answers_pings { Self::ANSWERS_PINGS } else { 0 })
    }

    /// Whether pings are answered.
    #[inline(always)]
    #[must_use]
    pub const fn answers_pings(self) -> bool {
        self.0 & Self::ANSWERS_PINGS != 0
    }

    /// Index of the service that the parts of UDP packets go to.
    #[inline(always)]
    #[must_use]
    pub const fn fragments_to(self) -> Option<u16> {
        match self.0 as u16 {
            0 => None,
            index => Some(index),
        }
    }
}

/// How a service's packets are forwarded: the value of [`Service::mode`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Source and destination rewritten.
    FullNat = 1,
    /// Only the MAC addresses rewritten.
    Dsr = 2,
    /// The destination rewritten; the backend answers to the client by way of Flowgate.
    Nat = 3,
    /// Encapsulated in IP; the backend answers to the client by itself.
    Ipip = 4,
    /// The same in UDP ([`crate::tunnel`]).
    Gue = 5,
}

impl Mode {
    /// Whether packets are encapsulated.
    #[inline(always)]
    #[must_use]
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }
}

/// How a backend is chosen for a new flow: the value of [`Service::scheduler`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheduler {
    /// By the client's address and port, on the ring.
    Maglev = 1,
    /// By the client's address, on the ring.
    SourceHash = 2,
    /// One after the other, along the ring.
    RoundRobin = 3,
    /// Of two on the ring the one that has fewer flows for its weight.
    LeastConn = 4,
}

/// The mask of [`Service::client_mask`] that keeps the leading `bits` of a client's address.
#[must_use]
pub fn client_mask(is_v4: bool, bits: u8) -> [u64; 2] {
    let bits = if is_v4 { 96 + u32::from(bits.min(32)) } else { u32::from(bits.min(128)) };
    Addr((!u128::MAX.checked_shr(bits).unwrap_or(0)).to_be_bytes()).words()
}

/// One service. The first cache line is what a packet needs, the second is the agent's.
///
/// The agent writes it through mapped memory while packets read it: every word is one aligned store, and so are the
/// eight bytes from `port` to `classes`; the address is written before the service's key is put into the hash.
#[repr(C, align(128))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// A [`crate::ring::RingRef`]; 0 is the empty ring.
    pub ring: u64,
    /// The address that clients send to: the source of replies.
    pub addr: Addr,
    /// The port that clients send to, in wire order.
    pub port: [u8; 2],
    /// [`PROTOCOL_TCP`] or [`PROTOCOL_UDP`]; 0 where no service is here.
    pub protocol: u8,
    /// A [`Mode`].
    pub mode: u8,
    /// A [`Scheduler`].
    pub scheduler: u8,
    /// [`Service::REJECTS`], [`Service::COUNTS_FLOWS`], [`Service::SHARES_SERVERS`], [`Service::ANSWERS_PINGS`],
    /// [`Service::FRAGMENTS_BY_ADDRESS`].
    pub flags: u8,
    /// [`crate::life::Classes`] of `timeouts`.
    pub classes: u16,
    /// [`crate::Timeouts`]: when a flow without packets is forgotten.
    pub timeouts: u64,
    /// What of a client's address counts on the ring, as [`Addr::words`] has it.
    pub client_mask: [u64; 2],
    /// `ipip`, `gue`: [`crate::TunnelOptions`].
    pub tunnel: u64,
    /// Counters of backends that are gone: the agent adds them here before it reuses their place, so that a
    /// service's totals never go down.
    pub retired: [u64; crate::counters::BACKEND_COUNTERS],
    /// Zero.
    pub reserved_agent: [u64; 3],
}

const _: () = assert!(size_of::<Service>() == 128 && align_of::<Service>() == 128);
const _: () = assert!(core::mem::offset_of!(Service, ring) == 0);
const _: () = assert!(core::mem::offset_of!(Service, port) == 24);
const _: () = assert!(core::mem::offset_of!(Service, retired) == 64);

impl Service {
    /// New flows that no backend can take are answered by a refusal, not dropped.
    pub const REJECTS: u8 = 1;
    /// New flows are counted in `LOADS`: the scheduler compares them, or a backend has a bound.
    pub const COUNTS_FLOWS: u8 = 2;
    /// Mode `nat`: a backend is, or has been, another service's as well. So flows may be in both tables.
    pub const SHARES_SERVERS: u8 = 4;
    /// Pings to its address are answered. No packet asks: it is for the agent that takes over.
    pub const ANSWERS_PINGS: u8 = 8;
    /// Parts of its packets go by their addresses: to where a packet from the client's port 0 would.
    pub const FRAGMENTS_BY_ADDRESS: u8 = 16;

    /// No service.
    pub const NONE: Self = Self {
        ring: 0,
        addr: Addr([0; 16]),
        port: [0; 2],
        protocol: 0,
        mode: 0,
        scheduler: 0,
        flags: 0,
        classes: 0,
        timeouts: 0,
        client_mask: [0; 2],
        tunnel: 0,
        retired: [0; crate::counters::BACKEND_COUNTERS],
        reserved_agent: [0; 3],
    };
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn a_mask_keeps_the_leading_bits() {
        let masked = |addr: Addr, bits| {
            let mask = client_mask(addr.is_v4(), bits);
            addr.words().into_iter().zip(mask).map(|(word, mask)| word & mask).collect::<std::vec::Vec<_>>()
        };
        let v4 = |octets| Addr::from_v4(octets);
        assert_eq!(masked(v4([10, 1, 2, 3]), 24), v4([10, 1, 2, 0]).words());
        assert_eq!(masked(v4([10, 1, 2, 3]), 32), v4([10, 1, 2, 3]).words());
        assert_eq!(masked(v4([10, 1, 2, 3]), 1), v4([0, 0, 0, 0]).words());
        let v6 = Addr([0x20; 16]);
        assert_eq!(masked(v6, 128), v6.words());
        assert_eq!(masked(v6, 64), [v6.words()[0], 0]);
        assert_eq!(masked(v6, 0), [0, 0]);
    }

    #[test]
    fn an_address_is_used_for_what_was_put_in() {
        for (pings, service) in [(false, 0), (true, 0), (false, 7), (true, u16::MAX)] {
            let used = AddressUse::new(pings, service);
            assert_eq!(
                (used.answers_pings(), used.fragments_to()),
                (pings, (service != 0).then_some(service))
            );
        }
    }

    #[test]
    fn a_key_survives_the_way_through_bytes() {
        let key = ServiceKey::new(Addr::from_v4([10, 1, 0, 10]), 80u16.to_be_bytes(), PROTOCOL_TCP);
        assert_eq!(ServiceKey::from_bytes(&key.to_bytes()), key);
        assert_eq!(key.to_bytes()[19..], [0; 5]);
    }
}
