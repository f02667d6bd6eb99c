//! What became of a request, and of many.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// One request.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it was begun.
    pub begun: Instant,
    /// When its answer was there, or it was given up.
    pub ended: Instant,
    /// Who answered, or what went wrong.
    pub outcome: Result<Arc<str>, Arc<str>>,
}

impl Record {
    /// From its beginning to its end.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.ended - self.begun
    }

    /// Who answered.
    #[must_use]
    pub fn backend(&self) -> Option<&str> {
        self.outcome.as_deref().ok()
    }

    /// Whether it failed, or took longer than `slow`.
    #[must_use]
    pub fn is_disturbed(&self, slow: Duration) -> bool {
        self.outcome.is_err() || self.latency() > slow
    }
}

/// Many requests, summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All of them.
    pub requests: u64,
    /// Those that were not answered.
    pub failed: u64,
    /// Answered requests by backend.
    pub by_backend: BTreeMap<String, u64>,
    /// Failed requests by what went wrong.
    pub errors: BTreeMap<String, u64>,
    /// The longest time to an answer.
    pub slowest: Duration,
    /// Half of the answers were there within this.
    pub median: Duration,
}

impl Summary {
    /// Sums up.
    #[must_use]
    pub fn of(records: &[Record]) -> Self {
        let mut by_backend: BTreeMap<&str, u64> = BTreeMap::new();
        let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
        let mut latencies = Vec::with_capacity(records.len());
        for record in records {
            match &record.outcome {
                Ok(backend) => {
                    *by_backend.entry(backend).or_default() += 1;
                    latencies.push(record.latency());
                }
                Err(error) => *errors.entry(error).or_default() += 1,
            }
        }
        let middle = latencies.len() / 2;
        let owned = |counts: BTreeMap<&str, u64>| {
            counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
        };
        Self {
            requests: records.len() as u64,
            failed: errors.values().sum(),
            by_backend: owned(by_backend),
            errors: owned(errors),
            slowest: latencies.iter().max().copied().unwrap_or_default(),
            median: if latencies.is_empty() {
                Duration::ZERO
            } else {
                *latencies.select_nth_unstable(middle).1
            },
        }
    }

    /// Requests that a backend answered.
    #[must_use]
    pub fn answered_by(&self, backend: &str) -> u64 {
        self.by_backend.get(backend).copied().unwrap_or_default()
    }

    /// Requests that were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.requests - self.failed
    }

    /// Adds the figures of other requests; the median stays this one's where both have one.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        for (backend, count) in &other.by_backend {
            *self.by_backend.entry(backend.clone()).or_default() += count;
        }
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
        self.slowest = self.slowest.max(other.slowest);
        if self.median == Duration::ZERO {
            self.median = other.median;
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests, {} failed", self.requests, self.failed)?;
        for (backend, count) in &self.by_backend {
            write!(f, ", {backend} {count}")?;
        }
        write!(f, "; median {:.1?}, slowest {:.1?}", self.median, self.slowest)?;
        for (error, count) in &self.errors {
            write!(f, "\n  {count} times: {error}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(milliseconds: u64, outcome: Result<&str, &str>) -> Record {
        let begun = Instant::now();
        let outcome = outcome.map(Arc::from).map_err(Arc::from);
        Record { begun, ended: begun + Duration::from_millis(milliseconds), outcome }
    }

    #[test]
    fn sums_are_by_backend_and_by_error() {
        let records =
            [record(1, Ok("b1")), record(9, Ok("b2")), record(2, Ok("b1")), record(500, Err("refused"))];
        let summary = Summary::of(&records);
        assert_eq!((summary.requests, summary.failed, summary.answered()), (4, 1, 3));
        assert_eq!(
            (summary.answered_by("b1"), summary.answered_by("b2"), summary.answered_by("b3")),
            (2, 1, 0)
        );
        assert_eq!((summary.median, summary.slowest), (Duration::from_millis(2), Duration::from_millis(9)));
        assert_eq!(summary.errors["refused"], 1);
    }

    #[test]
    fn nothing_sums_up_to_nothing() {
        assert_eq!(Summary::of(&[]), Summary::default());
    }

    #[test]
    fn a_request_is_disturbed_by_failure_or_delay() {
        let slow = Duration::from_millis(100);
        assert!(!record(100, Ok("b1")).is_disturbed(slow));
        assert!(record(101, Ok("b1")).is_disturbed(slow));
        assert!(record(1, Err("reset")).is_disturbed(slow));
    }
}
