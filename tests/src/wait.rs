//! Waiting for something to become so, with an error that says what did not.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `condition` holds, at most for `limit`, and gives the time that it took.
///
/// # Errors
/// Names `what` where it does not come to hold.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<Duration> {
    let begun = Instant::now();
    wait_for(what, limit, || if condition() { Ok(()) } else { Err(anyhow!("not so")) })?;
    Ok(begun.elapsed())
}

/// Waits until `attempt` succeeds, at most for `limit`, and gives its value.
///
/// # Errors
/// Names `what`, with the error of the last attempt.
pub fn wait_for<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("waited {limit:?} in vain until {what}")));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
