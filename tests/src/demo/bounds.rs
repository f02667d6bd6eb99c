//! Every bound that the demo holds Flowgate to, in one place.

use std::time::Duration;

/// How often a backend is probed; a probe without an answer for as long has failed.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_millis(200);

/// So many failed probes take a backend out, so many passed ones let it back in.
pub(super) const FALL: u32 = 3;
/// See [`FALL`].
pub(super) const RISE: u32 = 2;

/// From a backend's death to the last request that it spoils. Three probes a fifth of a second apart, the
/// last one's timeout and the wait for the first make 0.8 s at worst; the rest is for a busy machine.
pub(super) const OUTAGE: Duration = Duration::from_millis(1100);

/// From a backend's return to its first request from every service. Two probes make 0.4 s at worst; the rest is for
/// starting its servers and the first client's turn.
pub(super) const RETURN: Duration = Duration::from_millis(1000);

/// A request that takes longer was delayed. An answer takes less than a millisecond; a lost packet costs a
/// second, when TCP sends the first one of a connection again.
pub(super) const DELAYED: Duration = Duration::from_millis(500);

/// The smallest share of the requests that a backend of four gets, as a part of its fair share: five points of a
/// hundred below its twenty-five.
pub(super) const FAIRNESS: f64 = 0.8;

/// From the drain's acknowledgement to the last new connection that the backend gets.
pub(super) const DRAIN_TAKES_HOLD: Duration = Duration::from_millis(500);

/// From the moment that the last client of a draining backend has left until the drain is over: the idle
/// timeout of its service, and as much again.
pub(super) const DRAIN_ENDS: Duration = Duration::from_secs(12);

/// The services' idle timeout, in the words of the configuration file: short, so that a drain is.
pub(super) const IDLE_TIMEOUT: &str = "5s";

/// From the agent's start until it answers, having taken over the data plane that it found.
pub(super) const TAKE_OVER: Duration = Duration::from_secs(3);
