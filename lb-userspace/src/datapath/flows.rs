//! Reading and sweeping the tables of flows through mapped memory, while the data plane uses them.

pub mod clients;
pub mod list;
pub mod newest;
pub mod tally;

use std::sync::atomic::Ordering;

use lb_common::{
    FlowState, Life, Timeouts,
    flow_table::{BUCKET_SLOTS, Slot},
    life::tick_of_ns,
    nat_table::{KEY_CLAIMED, KEY_EMPTY, NatReply, NatValue, ReplyPeer},
};
use nix::time::{ClockId, clock_gettime};

use super::tables::FlowTables;

/// A closing flow that has had no packet for longer than this is not counted.
const CLOSING_COUNTS_TICKS: u16 = 2;

/// Flows that are remembered at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// By index of the backend.
    pub by_backend: Vec<u64>,
    /// In the table of steered flows.
    pub steered: u64,
    /// In the table of translated flows.
    pub translated: u64,
}

/// The data plane's tick of this moment (its clock is `CLOCK_MONOTONIC`, coarse).
#[must_use]
pub fn now_tick() -> u16 {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(0, |time| tick_of_ns(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64))
}

impl FlowTables {
    /// Slots of the two tables: steered, translated.
    #[must_use]
    pub fn slots(&self) -> (u64, u64) {
        ((self.steered.len() * BUCKET_SLOTS) as u64, (self.translated.len() * BUCKET_SLOTS) as u64)
    }

    /// Counts the flows of each backend; `timeouts` has every backend's time-outs, none where the index is no
    /// backend's.
    ///
    /// Of a backend's, a flow that is closing counts while it still has packets: it is remembered for late ones, but
    /// nobody waits for it. In the tables it has a place as long as it is remembered.
    #[must_use]
    pub fn count(&self, timeouts: &[Option<Timeouts>], now: u16) -> FlowCounts {
        let mut by_backend = vec![0; timeouts.len()];
        let mut add = |backend: u16, life: Life| {
            let Some(Some(timeouts)) = timeouts.get(usize::from(backend)) else { return 0 };
            if life.expired_for(now, *timeouts) {
                return 0;
            }
            let is_over = life.state() == FlowState::Closing && life.age(now) > CLOSING_COUNTS_TICKS;
            by_backend[usize::from(backend)] += u64::from(!is_over);
            1
        };
        let (mut steered, mut translated) = (0, 0);
        for index in 0..self.steered.len() {
            for word in self.steered.get(index).0 {
                steered += add(Slot(word).backend(), Slot(word).life());
            }
        }
        for index in 0..self.translated.len() {
            for word in self.translated.get(index).values {
                translated += add(NatValue(word).backend(), NatValue(word).life());
            }
        }
        FlowCounts { by_backend, steered, translated }
    }

    /// Frees the flows in one of `parts` parts of the tables that are over: expired, or of what is no backend any
    /// more; `timeouts` as for [`FlowTables::count`].
    pub fn sweep(&self, part: usize, parts: usize, now: u16, timeouts: &[Option<Timeouts>]) {
        let range = |len: usize| len * part / parts..len * (part + 1) / parts;
        let over = |backend: u16, life: Life| match life.state() {
            FlowState::Empty | FlowState::Claimed => false,
            _ => {
                let timeouts = timeouts.get(usize::from(backend)).copied().flatten();
                timeouts.is_none_or(|timeouts| life.expired_for(now, timeouts))
            }
        };
        for index in range(self.steered.len()) {
            self.sweep_steered(index, &over);
        }
        for index in range(self.translated.len()) {
            self.sweep_translated(index, &over);
        }
        for index in range(self.replies.len()) {
            self.sweep_reply(index, &over);
        }
    }

    fn sweep_steered(&self, index: usize, over: &impl Fn(u16, Life) -> bool) {
        for (slot, word) in self.steered.get(index).0.into_iter().enumerate() {
            if over(Slot(word).backend(), Slot(word).life()) {
                // Where the data plane has used it meanwhile it stays.
                let place = self.steered.word(index, slot * 8);
                let _ = place.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }

    fn sweep_translated(&self, index: usize, over: &impl Fn(u16, Life) -> bool) {
        let bucket = self.translated.get(index);
        for (slot, (key, value)) in bucket.keys.into_iter().zip(bucket.values).enumerate() {
            if key <= KEY_CLAIMED || !over(NatValue(value).backend(), NatValue(value).life()) {
                continue;
            }
            let key_word = self.translated.word(index, slot * 8);
            let value_word = self.translated.word(index, (BUCKET_SLOTS + slot) * 8);
            if key_word.compare_exchange(key, KEY_CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            let freed = value_word.compare_exchange(value, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            key_word.store(if freed { KEY_EMPTY } else { key }, Ordering::Release);
        }
    }

    fn sweep_reply(&self, index: usize, over: &impl Fn(u16, Life) -> bool) {
        let entry = self.replies.get(index);
        if over(ReplyPeer(entry.peer).backend(), Life::of(entry.word)) {
            let place = self.replies.word(index, std::mem::offset_of!(NatReply, word));
            let _ = place.compare_exchange(entry.word, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}
