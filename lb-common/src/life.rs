//! How long a flow is remembered: state, idle time-out and last use, in the low 24 bits of every table's word.
//!
//! Time is counted in *ticks* of 2^30 ns, a little more than a second, so that a tick is a shift of the kernel's
//! coarse clock. Sixteen bits of them wrap after 19.5 hours; the agent sweeps expired entries long before.

use crate::{
    branchless::{is_set, is_zero, less, select},
    service::PROTOCOL_TCP,
};

/// A tick is 2 to this power nanoseconds.
pub const TICK_SHIFT_NS: u32 = 30;

/// The longest idle time-out, in ticks (9.7 hours): an age beyond it can still be told from one before a wrap.
pub const MAX_IDLE_TICKS: u16 = 0x8000;

/// A flow whose SYN alone has been seen is forgotten after so many ticks: time for six retransmissions.
pub const HALF_OPEN_TICKS: u16 = 64;

/// A flow of which a FIN or a RST has been seen is forgotten after so many ticks without packets.
pub const CLOSING_TICKS: u16 = 32;

/// A flow of datagrams that has had none for so many ticks leaves its port to a new one, where none is free.
pub const YIELDING_TICKS: u16 = 3;

/// Ages above this are a clock that another CPU read a moment later, not an age.
const SKEW_TICKS: u16 = 0xff00;

/// TCP's FIN flag (RFC 9293, 3.1).
pub const TCP_FIN: u8 = 0x01;
/// TCP's SYN flag.
pub const TCP_SYN: u8 = 0x02;
/// TCP's RST flag.
pub const TCP_RST: u8 = 0x04;
/// TCP's ACK flag.
pub const TCP_ACK: u8 = 0x10;

/// The tick of a time of the kernel's monotonic clock.
#[inline(always)]
#[must_use]
pub const fn tick_of_ns(monotonic_ns: u64) -> u16 {
    (monotonic_ns >> TICK_SHIFT_NS) as u16
}

/// The least number of ticks that lasts `milliseconds`, at most [`MAX_IDLE_TICKS`] and at least one.
#[must_use]
pub const fn ticks_of_ms(milliseconds: u64) -> u16 {
    let ticks = milliseconds.saturating_mul(1_000_000).div_ceil(1 << TICK_SHIFT_NS);
    if ticks > MAX_IDLE_TICKS as u64 {
        MAX_IDLE_TICKS
    } else if ticks == 0 {
        1
    } else {
        ticks as u16
    }
}

/// How far a flow has come. A larger number is worth more when a place is needed.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlowState {
    /// No flow.
    Empty = 0,
    /// TCP: a SYN, and nothing after it.
    HalfOpen = 1,
    /// TCP: a FIN or a RST has been seen.
    Closing = 2,
    /// UDP.
    Datagrams = 3,
    /// TCP: a segment after the SYN.
    Established = 4,
    /// A place that another CPU is filling at this moment.
    Claimed = 15,
}

impl FlowState {
    /// From the low four bits of a word; an unknown number is a flow that is being written.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        match bits & 0xf {
            0 => Self::Empty,
            1 => Self::HalfOpen,
            2 => Self::Closing,
            3 => Self::Datagrams,
            4 => Self::Established,
            _ => Self::Claimed,
        }
    }

    /// The state of a flow that begins with a packet of `protocol` and `tcp_flags`.
    ///
    /// A segment without SYN begins one where it was forgotten; it has shown no more than a SYN has.
    #[inline(always)]
    #[must_use]
    pub fn first(protocol: u8, tcp_flags: u8) -> Self {
        Self::from_bits(next_bits(Self::HalfOpen as u64, protocol, tcp_flags | TCP_SYN))
    }

    /// The state after a further packet.
    #[inline(always)]
    #[must_use]
    pub fn next(self, protocol: u8, tcp_flags: u8) -> Self {
        Self::from_bits(next_bits(self as u64, protocol, tcp_flags))
    }
}

/// The transitions, without branches: any FIN or RST closes, any segment without SYN establishes.
#[inline(always)]
fn next_bits(state: u64, protocol: u8, tcp_flags: u8) -> u64 {
    let is_tcp = is_zero(u64::from(protocol ^ PROTOCOL_TCP));
    let closes = is_set(u64::from(tcp_flags & (TCP_FIN | TCP_RST)));
    let establishes = is_zero(state ^ FlowState::HalfOpen as u64) & is_zero(u64::from(tcp_flags & TCP_SYN));
    let state = select(establishes, FlowState::Established as u64, state);
    let state = select(closes, FlowState::Closing as u64, state);
    select(is_tcp, state, FlowState::Datagrams as u64)
}

/// The low 24 bits of a word: state (4), class of the idle time-out (4), tick of the last use (16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life(u64);

impl Life {
    /// How many bits it takes.
    pub const BITS: u32 = 24;
    const MASK: u64 = (1 << Self::BITS) - 1;

    /// A flow in `state` that was used at `tick`.
    #[inline(always)]
    #[must_use]
    pub const fn new(state: FlowState, idle_class: u8, tick: u16) -> Self {
        Self(state as u64 | (idle_class as u64 & 0xf) << 4 | (tick as u64) << 8)
    }

    /// From a table's word.
    #[inline(always)]
    #[must_use]
    pub const fn of(word: u64) -> Self {
        Self(word & Self::MASK)
    }

    /// `word` with this life in place of its own.
    #[inline(always)]
    #[must_use]
    pub const fn put(self, word: u64) -> u64 {
        word & !Self::MASK | self.0
    }

    /// How far the flow has come.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> FlowState {
        FlowState::from_bits(self.0)
    }

    /// When it was last used.
    #[inline(always)]
    #[must_use]
    pub const fn tick(self) -> u16 {
        (self.0 >> 8) as u16
    }

    /// Its class of idle time-out, see [`Life::idle_class`].
    #[inline(always)]
    #[must_use]
    pub const fn class(self) -> u8 {
        (self.0 >> 4) as u8 & 0xf
    }

    /// The same flow, used at `tick` and now in `state`.
    #[inline(always)]
    #[must_use]
    pub const fn used(self, state: FlowState, tick: u16) -> Self {
        Self::new(state, self.class(), tick)
    }

    /// The class of an idle time-out: the smallest power of two of ticks that is not below it.
    ///
    /// A word has room for four bits only. So a flow whose service is not at hand is taken for live up to twice
    /// as long as it is; where the service is at hand its exact time-out counts.
    #[inline(always)]
    #[must_use]
    pub const fn idle_class(idle_ticks: u16) -> u8 {
        if idle_ticks >= MAX_IDLE_TICKS {
            return 15;
        }
        idle_ticks.next_power_of_two().trailing_zeros() as u8
    }

    /// Ticks since the last use.
    #[inline(always)]
    #[must_use]
    pub fn age(self, now: u16) -> u16 {
        self.bounded_age(now) as u16
    }

    /// The same flow after a packet of `protocol` and `tcp_flags` at `tick`.
    #[inline(always)]
    #[must_use]
    pub fn after(self, protocol: u8, tcp_flags: u8, tick: u16) -> Self {
        Self(next_bits(self.0 & 0xf, protocol, tcp_flags) | self.0 & 0xf0 | u64::from(tick) << 8)
    }

    /// Whether the flow is to be forgotten, `idle_ticks` being its service's time-out.
    #[inline(always)]
    #[must_use]
    pub fn expired_for(self, now: u16, idle_ticks: u16) -> bool {
        self.expiry(now, u64::from(idle_ticks)) != 0
    }

    /// 1 where the flow is to be forgotten, `idle_ticks` being its time-out.
    #[inline(always)]
    fn expiry(self, now: u16, idle_ticks: u64) -> u64 {
        let state = self.0 & 0xf;
        let is = |other: FlowState| is_zero(state ^ other as u64);
        let limit = select(is(FlowState::HalfOpen), u64::from(HALF_OPEN_TICKS), idle_ticks);
        let limit = select(is(FlowState::Closing), u64::from(CLOSING_TICKS), limit);
        let limit = select(is(FlowState::Claimed), u64::MAX >> 1, limit);
        less(limit, self.bounded_age(now)) | is_zero(state)
    }

    #[inline(always)]
    fn bounded_age(self, now: u16) -> u64 {
        let age = u64::from(now.wrapping_sub(self.tick()));
        age * less(age, u64::from(SKEW_TICKS))
    }

    /// Whether the flow is to be forgotten, its service not being at hand.
    #[inline(always)]
    #[must_use]
    pub fn expired(self, now: u16) -> bool {
        self.worth(now) <= 1
    }

    /// Whether a new flow that finds no free port may take this one's: it has shown no more than a SYN, or its
    /// datagrams have been answered or never will be. Closing flows keep theirs, for packets that are late.
    #[inline(always)]
    #[must_use]
    pub fn yields(self, now: u16) -> bool {
        let is = |state: FlowState| is_zero(self.0 & 0xf ^ state as u64);
        let is_quiet = less(u64::from(YIELDING_TICKS) - 1, self.bounded_age(now));
        is(FlowState::HalfOpen) | is(FlowState::Datagrams) & is_quiet != 0
    }

    /// What is lost if the place is taken: 0 for none, 1 for an expired flow, then by state, then the oldest
    /// first. Without branches, since a bucket's words are all judged.
    #[inline(always)]
    #[must_use]
    pub fn worth(self, now: u16) -> u32 {
        let state = self.0 & 0xf;
        let live = state << 16 | (0xffff - self.bounded_age(now));
        let expired = self.expiry(now, 1 << self.class());
        (select(expired, 1, live) * is_set(state)) as u32
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::service::PROTOCOL_UDP;
    use proptest::prelude::*;

    #[test]
    fn the_way_of_a_connection() {
        let after = |state: FlowState, flags| state.next(PROTOCOL_TCP, flags);
        assert_eq!(FlowState::first(PROTOCOL_TCP, TCP_SYN), FlowState::HalfOpen);
        assert_eq!(after(FlowState::HalfOpen, TCP_SYN), FlowState::HalfOpen);
        assert_eq!(after(FlowState::HalfOpen, TCP_ACK), FlowState::Established);
        assert_eq!(after(FlowState::Established, TCP_ACK), FlowState::Established);
        assert_eq!(after(FlowState::Established, TCP_ACK | TCP_FIN), FlowState::Closing);
        assert_eq!(after(FlowState::Established, TCP_RST), FlowState::Closing);
        assert_eq!(after(FlowState::Closing, TCP_ACK), FlowState::Closing);
        assert_eq!(FlowState::first(PROTOCOL_UDP, TCP_SYN), FlowState::Datagrams);
        assert_eq!(FlowState::Datagrams.next(PROTOCOL_UDP, TCP_FIN), FlowState::Datagrams);
    }

    #[test]
    fn half_open_flows_go_before_established_ones_however_old_those_are() {
        let established = Life::new(FlowState::Established, 15, 0);
        let half_open = Life::new(FlowState::HalfOpen, 15, 10_000);
        assert!(half_open.worth(10_000) < established.worth(10_000));
    }

    #[test]
    fn a_clock_read_a_moment_earlier_is_no_age() {
        let life = Life::new(FlowState::Established, 0, 7);
        assert_eq!(life.age(6), 0);
        assert!(!life.expired(6));
        let wrapped = Life::new(FlowState::Established, 0, 0);
        assert_eq!(wrapped.age(0xffff), 0);
    }

    #[test]
    fn half_open_flows_yield_and_others_only_where_nobody_waits() {
        let yields = |state, age| Life::new(state, 10, 1000).yields(1000 + age);
        assert!(yields(FlowState::HalfOpen, 0));
        assert!(
            !yields(FlowState::Datagrams, YIELDING_TICKS - 1) && yields(FlowState::Datagrams, YIELDING_TICKS)
        );
        for state in [FlowState::Empty, FlowState::Closing, FlowState::Established, FlowState::Claimed] {
            assert!(!yields(state, 500), "{state:?}");
        }
    }

    #[test]
    fn milliseconds_round_up_to_ticks() {
        assert_eq!(ticks_of_ms(0), 1);
        assert_eq!(ticks_of_ms(1_000), 1);
        assert_eq!(ticks_of_ms(1_074), 2);
        assert_eq!(ticks_of_ms(300_000), 280);
        assert_eq!(ticks_of_ms(u64::MAX), MAX_IDLE_TICKS);
    }

    proptest! {
        #[test]
        fn a_life_leaves_the_rest_of_its_word_alone(word: u64, tick: u16, class in 0u8..16, state in 0u64..5) {
            let life = Life::new(FlowState::from_bits(state), class, tick);
            let put = life.put(word);
            prop_assert_eq!(put >> Life::BITS, word >> Life::BITS);
            prop_assert_eq!(Life::of(put), life);
            prop_assert_eq!((life.tick(), life.class(), life.state() as u64), (tick, class, state));
        }

        #[test]
        fn a_class_never_ends_a_flow_before_its_time(idle in 1u16..=MAX_IDLE_TICKS, start: u16, age in 0u16..0x9000) {
            let life = Life::new(FlowState::Established, Life::idle_class(idle), start);
            let now = start.wrapping_add(age);
            prop_assert!(!life.expired(now) || life.expired_for(now, idle));
            prop_assert_eq!(life.expired_for(now, idle), age > idle);
        }
    }
}
