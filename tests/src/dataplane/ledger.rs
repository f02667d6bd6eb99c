//! Every counter before and after a packet: what a case does not list must not move.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{Reason, counters::BackendCounters};

use super::{Action, DataPlane, Fate};
use crate::checksums;

/// Counters of every interface slot and reason, and of every backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    packets: BTreeMap<(u32, Reason), u64>,
    backends: BTreeMap<SocketAddr, BackendCounters>,
}

impl Ledger {
    pub(super) fn new(
        packets: impl Iterator<Item = ((u32, Reason), u64)>,
        backends: impl Iterator<Item = (SocketAddr, BackendCounters)>,
    ) -> Self {
        let mut ledger = Self { packets: packets.collect(), ..Self::default() };
        for (address, counters) in backends {
            // One address may be a backend of several services.
            add(ledger.backends.entry(address).or_default(), &counters);
        }
        ledger
    }

    /// Packets of an interface slot by a reason.
    #[must_use]
    pub fn packets(&self, slot: u32, reason: Reason) -> u64 {
        self.packets.get(&(slot, reason)).copied().unwrap_or(0)
    }

    /// A backend's counters, by [`lb_common::BackendCounter`].
    #[must_use]
    pub fn backend(&self, address: SocketAddr) -> BackendCounters {
        self.backends.get(&address).copied().unwrap_or_default()
    }

    /// What has moved since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let packets = self.packets.iter().map(|(place, count)| {
            (*place, count.wrapping_sub(before.packets.get(place).copied().unwrap_or(0)))
        });
        let backends = self.backends.iter().map(|(address, counters)| {
            let mut moved = *counters;
            for (now, then) in moved.iter_mut().zip(before.backend(*address)) {
                *now = now.wrapping_sub(then);
            }
            (*address, moved)
        });
        Self {
            packets: packets.filter(|(_, count)| *count != 0).collect(),
            backends: backends.filter(|(_, counters)| counters.iter().any(|count| *count != 0)).collect(),
        }
    }
}

fn add(totals: &mut BackendCounters, more: &BackendCounters) {
    for (total, count) in totals.iter_mut().zip(more) {
        *total += count;
    }
}

/// A packet that is about to come in.
#[must_use]
pub struct Case<'a> {
    plane: &'a DataPlane,
    name: String,
    slot: u32,
}

impl<'a> Case<'a> {
    pub(super) fn new(plane: &'a DataPlane, name: String) -> Self {
        Self { plane, name, slot: 0 }
    }

    /// By the interface in another slot than 0.
    pub fn by(mut self, slot: u32) -> Self {
        self.slot = slot;
        self
    }

    /// Lets it come in.
    pub fn send(self, frame: &[u8]) -> Sent<'a> {
        let before = self.plane.counters();
        let fate = self.plane.run(self.slot, frame);
        Sent { case: self, sent: frame.to_vec(), before, fate, credits: BTreeMap::new() }
    }
}

/// A packet that has come in; [`Sent::moves`] closes its ledger.
#[must_use = "the ledger is not closed yet"]
pub struct Sent<'a> {
    case: Case<'a>,
    sent: Vec<u8>,
    before: Ledger,
    fate: Fate,
    credits: BTreeMap<SocketAddr, BackendCounters>,
}

impl Sent<'_> {
    /// What became of it.
    #[must_use]
    pub fn fate(&self) -> &Fate {
        &self.fate
    }

    /// What must have become of it, byte for byte; what is sent on has right checksums.
    ///
    /// # Panics
    /// Where it did not.
    pub fn expect(self, action: Action, frame: &[u8]) -> Self {
        let name = &self.case.name;
        let moved = self.case.plane.counters().since(&self.before);
        assert_eq!(self.fate.action, action, "{name}: {moved:?}");
        assert_eq!(
            self.fate.frame, frame,
            "{name}: bytes\n {:02x?}\nwhere expected\n {frame:02x?}",
            self.fate.frame
        );
        if action.is_sent() {
            checksums::check(frame).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        self
    }

    /// It must have been sent, with right checksums.
    ///
    /// # Panics
    /// Where it was not.
    pub fn expect_sent(self) -> Self {
        assert!(self.fate.action.is_sent(), "{}: {:?}", self.case.name, self.fate.action);
        checksums::check(&self.fate.frame).unwrap_or_else(|error| panic!("{}: {error}", self.case.name));
        self
    }

    /// What a backend's counters must have risen by: packets and bytes in, packets and bytes out, flows.
    pub fn credits(mut self, backend: SocketAddr, counters: BackendCounters) -> Self {
        self.credits.insert(backend, counters);
        self
    }

    /// What must have moved on the interface that it came in by, and nothing else anywhere.
    ///
    /// # Panics
    /// With what has moved, where that is anything else.
    pub fn moves<const N: usize>(self, reasons: [(Reason, u64); N]) -> Fate {
        let slot = self.case.slot;
        let expected = Ledger {
            packets: reasons.into_iter().map(|(reason, count)| ((slot, reason), count)).collect(),
            backends: self.credits,
        };
        assert_eq!(self.case.plane.counters().since(&self.before), expected, "{}: counters", self.case.name);
        self.fate
    }

    /// It must have been handed to the kernel as it came, for this reason.
    ///
    /// # Panics
    /// Where it was not.
    pub fn passes(self, reason: Reason) {
        let frame = self.sent.clone();
        self.expect(Action::Pass, &frame).moves([(reason, 1)]);
    }

    /// It must have been dropped as it came, for this reason.
    ///
    /// # Panics
    /// Where it was not.
    pub fn dropped(self, reason: Reason) {
        let frame = self.sent.clone();
        self.expect(Action::Drop, &frame).moves([(reason, 1)]);
    }
}
