//! Rates and flow counts: what is measured once a second, or when somebody asks.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use lb_common::{BackendCounter, Reason, ServiceKey, Verdict, counters::BackendCounters};

use crate::{
    api::schema::Rates,
    datapath::{
        apply::Reconciler,
        flows::{FlowCounts, now_tick},
    },
};

/// A count of flows is as good as new for so long.
const COUNT_AGE: Duration = Duration::from_millis(500);
/// Drops are spoken of for so long after the last one.
const DROPS_AGE: Duration = Duration::from_secs(10);
/// The tables are swept in so many parts, one a second.
const SWEEP_PARTS: usize = 16;

/// What has been measured.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Counters of each service when they were last read, and what they rose by in a second.
    services: HashMap<ServiceKey, (BackendCounters, Rates)>,
    last: Option<Instant>,
    counts: Option<(Instant, FlowCounts)>,
    /// Packets of each reason when they were last read, and those that were dropped meanwhile, and when.
    drops: HashMap<Reason, Drops>,
    next_part: usize,
}

#[derive(Clone, Copy, Debug)]
struct Drops {
    total: u64,
    last: Option<(Instant, u64)>,
}

impl Meter {
    /// Once a second: rates, and a part of the sweep.
    pub(super) fn tick(
        &mut self,
        maps: &mut Reconciler,
        keys: impl Iterator<Item = ServiceKey>,
        now: Instant,
    ) {
        let elapsed = self.last.replace(now).map_or(Duration::ZERO, |last| now - last);
        let mut services = HashMap::new();
        for key in keys {
            let Ok(counters) = maps.service_counters(&key) else { continue };
            let rates = match self.services.get(&key) {
                Some((before, _)) => rates(before, &counters, elapsed),
                None => Rates::default(),
            };
            services.insert(key, (counters, rates));
        }
        self.services = services;
        let timeouts = maps.timeouts_by_backend();
        if maps.take_sweep_order() {
            maps.flow_tables().sweep(0, 1, now_tick(), &timeouts);
        } else {
            maps.flow_tables().sweep(self.next_part, SWEEP_PARTS, now_tick(), &timeouts);
            self.next_part = (self.next_part + 1) % SWEEP_PARTS;
        }
    }

    /// What a service's counters rise by in a second.
    pub(super) fn rates(&self, key: &ServiceKey) -> Rates {
        self.services.get(key).map_or_else(Rates::default, |(_, rates)| *rates)
    }

    /// Flows remembered, counted anew where the last count is not fresh.
    pub(super) fn counts(&mut self, maps: &Reconciler, now: Instant) -> &FlowCounts {
        let fresh = |(at, _): &(Instant, FlowCounts)| now.duration_since(*at) < COUNT_AGE;
        let counts = match self.counts.take().filter(fresh) {
            Some(counts) => counts,
            None => (now, maps.flow_tables().count(&maps.timeouts_by_backend(), now_tick())),
        };
        &self.counts.insert(counts).1
    }

    /// Takes note of the packets of each reason, summed over interfaces; those of before the agent are no news.
    pub(super) fn note_drops(&mut self, packets: impl Iterator<Item = (Reason, u64)>, now: Instant) {
        let mut sums: HashMap<Reason, u64> = HashMap::new();
        for (reason, count) in packets.filter(|(reason, _)| reason.verdict() == Verdict::Drop) {
            *sums.entry(reason).or_default() += count;
        }
        for (reason, total) in sums {
            let known = self.drops.entry(reason).or_insert(Drops { total, last: None });
            if total > known.total {
                known.last = Some((now, total - known.total));
            }
            known.total = total;
        }
    }

    /// What is being dropped, and how many packets the last time they were looked at: in the order of the reasons.
    pub(super) fn recent_drops(&self, now: Instant) -> Vec<(Reason, u64)> {
        let recent = |(reason, drops): (&Reason, &Drops)| {
            let (at, count) = drops.last?;
            (now.duration_since(at) < DROPS_AGE).then_some((*reason, count))
        };
        let mut drops: Vec<_> = self.drops.iter().filter_map(recent).collect();
        drops.sort_unstable();
        drops
    }

    /// Forgets the last count: whoever asks after a change is not told of before it.
    pub(super) fn forget_counts(&mut self) {
        self.counts = None;
    }

    /// Flows of one backend at the last count.
    pub(super) fn flows_of(&self, maps: &Reconciler, key: &ServiceKey, backend: SocketAddr) -> u64 {
        let Some((_, counts)) = &self.counts else { return 0 };
        let index = maps.backend(key, backend).map(|backend| backend.index as usize);
        index.and_then(|index| counts.by_backend.get(index)).copied().unwrap_or(0)
    }
}

fn rates(before: &BackendCounters, after: &BackendCounters, elapsed: Duration) -> Rates {
    let seconds = elapsed.as_secs_f64();
    let per_second = |counters: &[BackendCounter]| {
        let rise: u64 = counters
            .iter()
            .map(|counter| after[*counter as usize].saturating_sub(before[*counter as usize]))
            .sum();
        if seconds > 0.0 { (rise as f64 / seconds).round() as u64 } else { 0 }
    };
    Rates {
        packets_per_second: per_second(&[BackendCounter::PacketsIn, BackendCounter::PacketsOut]),
        bits_per_second: per_second(&[BackendCounter::BytesIn, BackendCounter::BytesOut]) * 8,
        flows_per_second: per_second(&[BackendCounter::Flows]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_and_in_bits() {
        let rates = rates(&[10, 1000, 10, 1000, 1], &[30, 3000, 30, 5000, 5], Duration::from_secs(2));
        assert_eq!(rates, Rates { packets_per_second: 20, bits_per_second: 24_000, flows_per_second: 2 });
    }

    #[test]
    fn counters_that_went_back_are_no_rate() {
        assert_eq!(rates(&[9; 5], &[0; 5], Duration::from_secs(1)), Rates::default());
        assert_eq!(rates(&[0; 5], &[9; 5], Duration::ZERO), Rates::default());
    }
}
