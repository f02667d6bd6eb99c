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

/// A flow of datagrams, or a connection that is over, that has had no packet for so many ticks leaves its port to a new
/// one, where none is free.
pub const YIELDING_TICKS: u16 = 3;

/// Ages above this are a clock that another CPU read a moment later, not an age.
pub(crate) const SKEW_TICKS: u16 = 0xff00;

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
///
/// The low two bits are the lane of [`Timeouts`] that counts for the state.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowState {
    /// No flow.
    Empty = 0,
    /// TCP: a SYN, and nothing after it.
    HalfOpen = 1,
    /// TCP: both sides have sent a FIN, or one of them a RST.
    Closing = 2,
    /// TCP: the other side has sent a FIN, this one not yet; where one word stands for both (`nat`).
    PeerClosed = 3,
    /// UDP.
    Datagrams = 4,
    /// TCP: the side that this word belongs to has sent a FIN, the other not yet.
    HalfClosed = 7,
    /// TCP: a segment after the SYN.
    Established = 8,
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
            3 => Self::PeerClosed,
            4 => Self::Datagrams,
            7 => Self::HalfClosed,
            8 => Self::Established,
            _ => Self::Claimed,
        }
    }

    /// The state of a flow that begins with a packet of `protocol` and `tcp_flags`.
    ///
    /// A segment without SYN begins one where it was forgotten; it has shown no more than a SYN has.
    #[inline(always)]
    #[must_use]
    pub fn first(protocol: u8, tcp_flags: u8, on_fin: Self) -> Self {
        Self::from_bits(next_bits(Self::HalfOpen as u64, protocol, tcp_flags | TCP_SYN, on_fin))
    }

    /// The state after a further packet; `on_fin` as in [`Course`].
    #[inline(always)]
    #[must_use]
    pub fn next(self, protocol: u8, tcp_flags: u8, on_fin: Self) -> Self {
        Self::from_bits(next_bits(self as u64, protocol, tcp_flags, on_fin))
    }

    /// What one half of a translated flow becomes by what the other is: each sees the packets of one side only.
    #[inline(always)]
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        match (self, other) {
            (Self::Closing, _) | (_, Self::Closing) | (Self::HalfClosed, Self::HalfClosed) => Self::Closing,
            (Self::HalfOpen, Self::Established | Self::HalfClosed) => Self::Established,
            _ => self,
        }
    }
}

/// The transitions, without branches: RST closes, FIN half-closes or closes, any segment without SYN establishes.
#[inline(always)]
fn next_bits(state: u64, protocol: u8, tcp_flags: u8, on_fin: FlowState) -> u64 {
    let is_tcp = is_zero(u64::from(protocol ^ PROTOCOL_TCP));
    let is_fin = is_set(u64::from(tcp_flags & TCP_FIN)) & is_set(state ^ FlowState::Closing as u64);
    let is_rst = is_set(u64::from(tcp_flags & TCP_RST));
    let establishes = is_zero(state ^ FlowState::HalfOpen as u64) & is_zero(u64::from(tcp_flags & TCP_SYN));
    let state = select(establishes, FlowState::Established as u64, state);
    let state = select(is_fin, on_fin as u64, state);
    let state = select(is_rst, FlowState::Closing as u64, state);
    select(is_tcp, state, FlowState::Datagrams as u64)
}

/// The idle time-outs of a service's flows by state, in ticks: four lanes of 16 bits, see [`FlowState`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts(pub u64);

impl Timeouts {
    /// `idle` for datagrams and established connections; the others for the states that they are named after.
    #[inline(always)]
    #[must_use]
    pub const fn new(idle: u16, half_open: u16, closing: u16, half_closed: u16) -> Self {
        Self(idle as u64 | (half_open as u64) << 16 | (closing as u64) << 32 | (half_closed as u64) << 48)
    }

    /// The time-out of a state.
    #[inline(always)]
    #[must_use]
    pub const fn of(self, state: FlowState) -> u16 {
        self.of_bits(state as u64) as u16
    }

    #[inline(always)]
    const fn of_bits(self, state: u64) -> u64 {
        self.0 >> ((state & 3) * 16) & 0xffff
    }

    /// The class of each: four lanes of four bits.
    ///
    /// A class is the smallest power of two of ticks that is not below the time-out: a word has room for four bits
    /// only. So a flow whose service is not at hand is taken for live up to twice as long as it is; where the
    /// service is at hand its exact time-out counts.
    #[must_use]
    pub const fn classes(self) -> Classes {
        let mut classes = 0;
        let mut lane = 0;
        while lane < 4 {
            classes |= (class_of(self.of_bits(lane) as u16) as u16) << (lane * 4);
            lane += 1;
        }
        Classes(classes)
    }
}

/// See [`Timeouts::classes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes(pub u16);

impl Classes {
    #[inline(always)]
    const fn of_bits(self, state: u64) -> u64 {
        self.0 as u64 >> ((state & 3) * 4) & 0xf
    }
}

const fn class_of(ticks: u16) -> u8 {
    if ticks >= MAX_IDLE_TICKS {
        return 15;
    }
    ticks.next_power_of_two().trailing_zeros() as u8
}

/// What a packet's effect on the life of its flow depends on, besides the packet.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// Of the service's time-outs.
    pub classes: Classes,
    /// What a FIN leads to: [`FlowState::HalfClosed`] where both sides' packets are seen, [`FlowState::Closing`]
    /// where those of the client alone are.
    pub on_fin: FlowState,
}

/// The low 24 bits of a word: state (4), class of its idle time-out (4), tick of the last use (16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life(u64);

impl Life {
    /// How many bits it takes.
    pub const BITS: u32 = 24;
    const MASK: u64 = (1 << Self::BITS) - 1;

    /// A flow in `state` that was used at `tick`.
    #[inline(always)]
    #[must_use]
    pub const fn new(state: FlowState, classes: Classes, tick: u16) -> Self {
        Self::of_bits(state as u64, classes, tick)
    }

    #[inline(always)]
    const fn of_bits(state: u64, classes: Classes, tick: u16) -> Self {
        Self(state | classes.of_bits(state) << 4 | (tick as u64) << 8)
    }

    /// From a table's word.
    #[inline(always)]
    #[must_use]
    pub const fn of(word: u64) -> Self {
        Self(word & Self::MASK)
    }

    /// A table's word with this life in place of its own.
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

    /// The class of the state's idle time-out: it is at most two to this power ticks.
    #[inline(always)]
    #[must_use]
    pub const fn class(self) -> u8 {
        (self.0 >> 4) as u8 & 0xf
    }

    /// The tick of the last use.
    #[inline(always)]
    #[must_use]
    pub const fn tick(self) -> u16 {
        (self.0 >> 8) as u16
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
    pub fn after(self, protocol: u8, tcp_flags: u8, tick: u16, course: Course) -> Self {
        let state = next_bits(self.0 & 0xf, protocol, tcp_flags, course.on_fin);
        Self::of_bits(state, course.classes, tick)
    }

    /// The same after a packet of the client, where one word sees both sides: a FIN closes what the server has closed
    /// already.
    #[inline(always)]
    #[must_use]
    pub fn asked(self, protocol: u8, tcp_flags: u8, tick: u16, classes: Classes) -> Self {
        let on_fin = self.on_fin(FlowState::PeerClosed, FlowState::HalfClosed);
        let state = next_bits(self.0 & 0xf, protocol, tcp_flags, on_fin);
        Self::of_bits(state, classes, tick)
    }

    /// The same after a packet of the server. It establishes nothing: to a SYN with a forged source servers answer as
    /// well.
    #[inline(always)]
    #[must_use]
    pub fn answered(self, protocol: u8, tcp_flags: u8, tick: u16, classes: Classes) -> Self {
        let on_fin = self.on_fin(FlowState::HalfClosed, FlowState::PeerClosed);
        let state = next_bits(self.0 & 0xf, protocol, tcp_flags | TCP_SYN, on_fin);
        Self::of_bits(state, classes, tick)
    }

    /// What a FIN leads to: the end where the flow is in the state that the other side's FIN has led to.
    #[inline(always)]
    fn on_fin(self, by_other: FlowState, by_this: FlowState) -> FlowState {
        let other_has_ended = is_zero(self.0 & 0xf ^ by_other as u64);
        FlowState::from_bits(select(other_has_ended, FlowState::Closing as u64, by_this as u64))
    }

    /// Whether the flow is to be forgotten, `timeouts` being its service's.
    #[inline(always)]
    #[must_use]
    pub fn expired_for(self, now: u16, timeouts: Timeouts) -> bool {
        self.expiry(now, timeouts.of_bits(self.0)) != 0
    }

    /// 1 where the flow is to be forgotten, `limit` being the time-out of its state in ticks.
    #[inline(always)]
    fn expiry(self, now: u16, limit: u64) -> u64 {
        let state = self.0 & 0xf;
        let is_claimed = is_zero(state ^ FlowState::Claimed as u64);
        less(limit, self.bounded_age(now)) & (is_claimed ^ 1) | is_zero(state)
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

    /// Whether a new flow that finds no free port may take this one's, and how willingly: 0 where not, else more than
    /// its age, so that the most goes first.
    ///
    /// It has shown no more than a SYN, or its datagrams have been answered or never will be, or it is over. The last
    /// may cost the new one a second: a backend that is in TIME-WAIT still refuses a SYN with an older timestamp
    /// (RFC 7323, 5.2) and the client sends it again. Being refused would cost it no less.
    #[inline(always)]
    #[must_use]
    pub fn yields(self, now: u16) -> u32 {
        let is = |state: FlowState| is_zero(self.0 & 0xf ^ state as u64);
        let age = self.bounded_age(now);
        let is_quiet = less(u64::from(YIELDING_TICKS) - 1, age);
        let yields = is(FlowState::HalfOpen) | (is(FlowState::Datagrams) | is(FlowState::Closing)) & is_quiet;
        (yields * (age + 1)) as u32
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
mod tests;
