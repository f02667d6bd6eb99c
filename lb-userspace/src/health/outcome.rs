//! What came of one probe.

use std::time::Duration;

/// What came of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend answered as expected.
    Pass {
        /// From the start of the probe to the verdict.
        took: Duration,
    },
    /// The backend did not answer, or not as expected.
    Fail {
        /// What was wrong, in words that stay the same while the fault does.
        reason: String,
        /// From the start of the probe to the verdict.
        took: Duration,
    },
    /// This machine could not ask, for want of file descriptors, memory or ports. It says nothing of the
    /// backend: were it counted as a failure, one shortage here would take every backend away at once.
    NotAsked {
        /// What was missing.
        reason: String,
    },
}
