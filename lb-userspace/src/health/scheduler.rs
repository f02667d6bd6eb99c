//! When a backend is probed next: pure timing, the clock is an argument.
//!
//! ```text
//! added   first      tick          tick + interval    tick + 2 × interval
//!   │───────│──────────│──────────────────│──────────────────│────►
//!   └ share × at most FIRST_WITHIN
//!   └ share × interval ┘
//! ```
//!
//! The share, from 0 to 1, is a hash of the backend's identity. So a thousand backends that are added at once are
//! probed evenly over the interval, and the same backend always at the same place in it. Ticks are counted from
//! the moment of adding, not from the end of the last probe: nothing drifts.
//!
//! Two ticks are never more than one interval apart. A probe starts at its tick and, as its timeout is not above
//! the interval, has ended at the next, so a backend that dies is out within `fall × interval + timeout`.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// The first probe is not later than this after a backend was added.
pub const FIRST_WITHIN: Duration = Duration::from_millis(250);

/// The ticks of one backend.
#[derive(Clone, Debug)]
pub struct Schedule {
    interval: Duration,
    due: Instant,
    /// The tick that comes after the first probe; all later ones are whole intervals from it.
    next: Instant,
}

impl Schedule {
    /// A backend that is added now. An interval of 0 counts as a millisecond.
    #[must_use]
    pub fn new(identity: &impl fmt::Display, interval: Duration, added: Instant) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        let share = hash(&identity.to_string());
        let first = added + part(share, interval.min(FIRST_WITHIN));
        let tick = added + part(share, interval);
        // The two coincide where the interval is short.
        let next = if tick > first { tick } else { tick + interval };
        Self { interval, due: first, next }
    }

    /// When the next probe starts; in the past, if it is late.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The probe that was due has ended: on to the next tick.
    ///
    /// A tick missed by less than an interval is made up for at once, older ones are skipped: a stalled agent
    /// does not answer with a burst.
    pub fn advance(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.next);
        let skipped = late.as_nanos() / self.interval.as_nanos();
        let skipped = u32::try_from(skipped).unwrap_or(u32::MAX);
        self.due = self.next + self.interval.saturating_mul(skipped);
        self.next = self.due + self.interval;
    }
}

/// `share / 2^64` of `whole`.
fn part(share: u64, whole: Duration) -> Duration {
    let nanos = (u128::from(share) * whole.as_nanos()) >> 64;
    // Not above `whole`, and a whole of 584 years is not an interval.
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// FNV-1a, then a finalizer that spreads short texts over all 64 bits. Ours, since the standard library's may
/// change with the compiler, and a backend's place in the interval should not.
fn hash(text: &str) -> u64 {
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);

    #[test]
    fn a_thousand_backends_are_spread_over_the_interval() {
        let added = Instant::now();
        let mut firsts = [0; 10];
        let mut ticks = [0; 10];
        for backend in 0..1000 {
            let name = format!("web 10.2.{}.{}:8080", backend / 250, backend % 250);
            let mut schedule = Schedule::new(&name, INTERVAL, added);
            let first = schedule.due() - added;
            assert!(first < FIRST_WITHIN);
            firsts[(first.as_nanos() * 10 / FIRST_WITHIN.as_nanos()) as usize] += 1;
            schedule.advance(schedule.due());
            let tick = schedule.due() - added;
            assert!(tick <= INTERVAL);
            ticks[(tick.as_nanos() * 10 / INTERVAL.as_nanos()).min(9) as usize] += 1;
        }
        for tenth in firsts.into_iter().chain(ticks) {
            assert!((60..150).contains(&tenth), "{firsts:?} {ticks:?}");
        }
    }

    #[test]
    fn the_same_backend_has_the_same_place() {
        let added = Instant::now();
        let [one, other] = [(); 2].map(|()| Schedule::new(&"web 10.2.0.11:8080", INTERVAL, added));
        assert_eq!(one.due(), other.due());
    }

    #[test]
    fn nothing_drifts_while_probes_take_their_time() {
        let mut schedule = Schedule::new(&"web 10.2.0.11:8080", INTERVAL, Instant::now());
        schedule.advance(schedule.due());
        let tick = schedule.due();
        for step in 1..100 {
            schedule.advance(schedule.due() + Duration::from_millis(700));
            assert_eq!(schedule.due(), tick + INTERVAL * step);
        }
    }

    #[test]
    fn a_probe_that_ends_just_after_the_next_tick_loses_none() {
        let mut schedule = Schedule::new(&"web 10.2.0.11:8080", INTERVAL, Instant::now());
        schedule.advance(schedule.due());
        let tick = schedule.due();
        schedule.advance(tick + INTERVAL + Duration::from_millis(1));
        assert_eq!(schedule.due(), tick + INTERVAL, "late, so it starts at once");
    }

    #[test]
    fn ticks_that_a_stall_swallowed_are_skipped() {
        let mut schedule = Schedule::new(&"web 10.2.0.11:8080", INTERVAL, Instant::now());
        schedule.advance(schedule.due());
        let tick = schedule.due();
        let now = tick + INTERVAL * 50 + Duration::from_millis(3);
        schedule.advance(now);
        assert_eq!(schedule.due(), tick + INTERVAL * 50, "one at once");
        schedule.advance(now);
        assert_eq!(schedule.due(), tick + INTERVAL * 51, "then the grid as before");
    }

    proptest! {
        /// The promise: between two starts lies at most one interval, if probes end within one.
        #[test]
        fn starts_are_at_most_an_interval_apart(
            name in "[a-z]{1,8}", millis in 1u64..10_000,
            takes in proptest::collection::vec(0.0f64..1.0, 1..50),
        ) {
            let interval = Duration::from_millis(millis);
            let added = Instant::now();
            let mut schedule = Schedule::new(&name, interval, added);
            prop_assert!(schedule.due() - added <= interval.min(FIRST_WITHIN));
            let mut start = schedule.due();
            for take in takes {
                let end = start + interval.mul_f64(take);
                schedule.advance(end);
                let next = schedule.due().max(end);
                prop_assert!(next > start || take == 0.0);
                prop_assert!(next - start <= interval);
                start = next;
            }
        }
    }
}
