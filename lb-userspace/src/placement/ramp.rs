//! Slow start: how much of its share a backend has.

use std::time::Duration;

/// All of it, in thousandths.
pub const WHOLE: u16 = 1000;

/// What a backend begins with: enough to warm it up.
const FIRST: u16 = 100;

/// A ring is made anew for each step, so there are few.
const STEP: u16 = 50;

/// The part, in thousandths, of a backend that has been up for `starting_for`; all of it where that is none.
#[must_use]
pub fn ramp(starting_for: Option<Duration>, slow_start: Duration) -> u16 {
    let Some(elapsed) = starting_for.filter(|elapsed| *elapsed < slow_start) else { return WHOLE };
    let part = elapsed.as_millis() * u128::from(WHOLE - FIRST) / slow_start.as_millis().max(1);
    let part = FIRST + u16::try_from(part).unwrap_or(WHOLE - FIRST);
    part / STEP * STEP
}
