//! Where a packet goes that does not walk through the stages: an ICMP error, a later part of a packet.

use aya_ebpf::programs::XdpContext;
use lb_common::{NextHop, Reason};

use crate::{arrival::Arrival, egress, globals, tunnel};

/// Where it goes, in one word: the backend's index (16 bits), the hop's (32), and how it is written.
///
/// What finds it leaves in [`Arrival`] what it is to be written with.
#[derive(Clone, Copy)]
pub struct Found(u64);

impl Found {
    /// Nowhere.
    pub const NONE: i64 = -1;
    /// It goes to a client.
    pub const ANSWER: u64 = 1 << 48;
    /// Addresses change.
    pub const TRANSLATED: u64 = 1 << 49;
    /// It is encapsulated.
    pub const TUNNEL: u64 = 1 << 50;

    /// As a function returns it.
    #[inline(always)]
    pub fn word(backend: u16, hop: u32, how: u64) -> i64 {
        (u64::from(backend) | u64::from(hop) << 16 | how) as i64
    }

    /// From [`Found::word`].
    #[inline(always)]
    pub fn of(word: i64) -> Option<Self> {
        if word < 0 { None } else { Some(Self(word as u64)) }
    }

    /// Whether it goes to a client.
    #[inline(always)]
    pub fn is_answer(self) -> bool {
        self.0 & Self::ANSWER != 0
    }

    /// Whether addresses change.
    #[inline(always)]
    pub fn is_translated(self) -> bool {
        self.0 & Self::TRANSLATED != 0
    }

    /// Whether it is encapsulated.
    #[inline(always)]
    pub fn is_tunnel(self) -> bool {
        globals::has_tunnels() && self.0 & Self::TUNNEL != 0
    }

    /// Whether this machine is a router to it; as a switch, which it is to others, it takes no hop from them.
    #[inline(always)]
    pub fn is_routed(self) -> bool {
        self.is_tunnel() || self.is_translated()
    }

    /// Index of the backend.
    #[inline(always)]
    pub fn backend(self) -> u16 {
        self.0 as u16
    }

    /// Index of the neighbour of the client, where it goes to one.
    #[inline(always)]
    pub fn client_hop(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// See [`NextHop::of_words`].
    #[inline(always)]
    pub fn next_hop(self) -> Result<[u64; 2], Reason> {
        let hop = (self.0 >> 16) as u32;
        if self.is_answer() { egress::client_hop(hop as u16) } else { egress::next_hop(hop) }
    }

    /// Sends it out by `next_hop`, written by `translate` where addresses change; the action.
    #[inline(always)]
    pub fn send(
        self,
        ctx: &XdpContext,
        arrival: &Arrival,
        translate: impl FnOnce() -> Result<(), Reason>,
    ) -> Result<u32, Reason> {
        let next_hop = self.next_hop()?;
        // Before the first byte is written: what cannot leave is dropped as it came.
        let action = egress::action(NextHop::slot_of_words(next_hop))?;
        // Nobody is told: neither an error nor a later part is answered by an error (RFC 1122, 3.2.2).
        if self.is_routed() && arrival.packet.hop_limit <= 1 {
            return Err(Reason::TtlExpired);
        }
        if self.is_tunnel() {
            tunnel::encapsulate_for(ctx, arrival, self.backend(), next_hop)
                .map_err(|fault| fault.reason())?;
            return Ok(action);
        }
        if self.is_translated() {
            translate()?;
        }
        crate::forward::readdress(crate::packet::Frame::new(ctx).header(0)?, &next_hop);
        Ok(action)
    }
}
