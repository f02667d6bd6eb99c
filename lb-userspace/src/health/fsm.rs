//! The health of one backend as a pure state machine: outcomes and times go in, transitions come out.
//!
//! ```text
//!                      first pass
//!      ┌──────────┐ ─────────────────────────────► ┌──────┐
//! ───► │ checking │                                │  up  │ ◄─┐ pass, or fewer than
//! new  └──────────┘                                └──────┘ ──┘ `fall` failures in a row
//!        │  ▲ │                                     │   ▲
//!        │  └─┘ fewer than `fall`                   │   │
//!        │      failures in a row                   │   │ `rise` passes
//!        │                       `fall` failures    │   │ in a row
//!        │                       in a row           ▼   │
//!        │   `fall` failures in a row              ┌──────┐
//!        └───────────────────────────────────────► │ down │ ◄─┐ failure, or fewer than
//!                                                  └──────┘ ──┘ `rise` passes in a row
//! ```
//!
//! A probe that could not be asked ([`Outcome::NotAsked`]) moves nothing and breaks no row.
//!
//! **The first verdict.** One pass is enough to leave `checking` for `up`: nothing bad is known of the backend,
//! and a fresh agent must have traffic flowing after one round trip, not after `rise` intervals. `rise` guards
//! against a backend that has *failed* before. The other way it takes all of `fall`, so that one lost packet is
//! not a verdict; `checking` gets no flows anyway.
//!
//! **Adoption.** An agent that takes over a running data plane [resumes](Fsm::resume) the verdicts that it finds,
//! and so does a backend whose check was changed: neither a restart nor a reload empties a ring.

use std::time::Instant;

use super::Outcome;
use crate::model::Health;

/// The state machine of one backend.
#[derive(Clone, Debug)]
pub struct Fsm {
    rise: u32,
    fall: u32,
    health: Health,
    /// Outcomes in a row that speak against `health`.
    against: u32,
    reason: String,
    since: Instant,
}

/// A change of health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What it was.
    pub from: Health,
    /// What it is now; never `from`.
    pub to: Health,
    /// Why, as [`Fsm::reason`] has it.
    pub reason: String,
    /// When.
    pub at: Instant,
}

/// [`Fsm::reason`] before the first outcome.
pub const NOT_PROBED: &str = "not probed yet";

impl Fsm {
    /// A backend of which nothing is known. `rise` and `fall` of 0 count as 1.
    #[must_use]
    pub fn new(rise: u32, fall: u32, now: Instant) -> Self {
        Self::resume(Health::Checking, NOT_PROBED, rise, fall, now)
    }

    /// A backend with a verdict from before, and why (ignored where it is `up`); all rows begin anew.
    #[must_use]
    pub fn resume(health: Health, reason: &str, rise: u32, fall: u32, since: Instant) -> Self {
        let reason = if health == Health::Up { String::new() } else { reason.to_owned() };
        Self { rise: rise.max(1), fall: fall.max(1), health, against: 0, reason, since }
    }

    /// Takes an outcome in; the transition that it caused, if any.
    pub fn on_probe(&mut self, outcome: &Outcome, now: Instant) -> Option<Transition> {
        let to = match (self.health, outcome) {
            (Health::Checking, Outcome::Pass { .. }) => Health::Up,
            (Health::Down, Outcome::Pass { .. }) => self.count_against(self.rise, Health::Up),
            (Health::Up, Outcome::Pass { .. }) => {
                self.against = 0;
                Health::Up
            }
            (Health::Checking, Outcome::Fail { reason, .. }) => {
                self.reason.clone_from(reason);
                self.count_against(self.fall, Health::Down)
            }
            (Health::Up, Outcome::Fail { reason, .. }) => {
                let to = self.count_against(self.fall, Health::Down);
                if to == Health::Down {
                    self.reason.clone_from(reason);
                }
                to
            }
            (Health::Down, Outcome::Fail { reason, .. }) => {
                self.against = 0;
                self.reason.clone_from(reason);
                Health::Down
            }
            (Health::Checking, Outcome::NotAsked { reason }) => {
                self.reason.clone_from(reason);
                Health::Checking
            }
            (Health::Up | Health::Down, Outcome::NotAsked { .. }) => self.health,
        };
        self.enter(to, now)
    }

    /// The verdict.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// Why it is not `up`: the last failure, in words; empty while it is up.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Since when `health` is what it is.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// One more outcome in a row against `health`: what the health is after it.
    fn count_against(&mut self, enough: u32, other: Health) -> Health {
        self.against += 1;
        if self.against >= enough { other } else { self.health }
    }

    fn enter(&mut self, to: Health, now: Instant) -> Option<Transition> {
        if to == self.health {
            return None;
        }
        if to == Health::Up {
            self.reason.clear();
        }
        let from = std::mem::replace(&mut self.health, to);
        self.against = 0;
        self.since = now;
        Some(Transition { from, to, reason: self.reason.clone(), at: now })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Health::{Checking, Down, Up};

    fn pass() -> Outcome {
        Outcome::Pass { took: Duration::from_millis(1) }
    }

    fn fail(reason: &str) -> Outcome {
        Outcome::Fail { reason: reason.to_owned(), took: Duration::from_millis(1) }
    }

    fn not_asked() -> Outcome {
        Outcome::NotAsked { reason: "no ports".to_owned() }
    }

    /// Every state with every row of outcomes that can matter to it, rise 2 and fall 3:
    /// `+` passes, `-` fails, `.` could not be asked.
    #[test]
    fn the_whole_transition_table() {
        let table = [
            // from, outcomes, health after each, reason at the end
            (Checking, "", vec![], NOT_PROBED),
            (Checking, "+", vec![Up], ""),
            (Checking, "-", vec![Checking], "refused"),
            (Checking, "--", vec![Checking; 2], "refused"),
            (Checking, "---", vec![Checking, Checking, Down], "refused"),
            (Checking, "--+", vec![Checking, Checking, Up], ""),
            (Checking, ".", vec![Checking], "no ports"),
            (Checking, "--.-", vec![Checking, Checking, Checking, Down], "refused"),
            (Up, "+", vec![Up], ""),
            (Up, "-", vec![Up], ""),
            (Up, "--", vec![Up; 2], ""),
            (Up, "---", vec![Up, Up, Down], "refused"),
            (Up, "--+--", vec![Up; 5], ""),
            (Up, "--+---", vec![Up, Up, Up, Up, Up, Down], "refused"),
            (Up, "....", vec![Up; 4], ""),
            (Up, "--.-", vec![Up, Up, Up, Down], "refused"),
            (Down, "-", vec![Down], "refused"),
            (Down, "+", vec![Down], "before"),
            (Down, "++", vec![Down, Up], ""),
            (Down, "+-+", vec![Down; 3], "refused"),
            (Down, "+-++", vec![Down, Down, Down, Up], ""),
            (Down, "+.+", vec![Down, Down, Up], ""),
            (Down, "++---", vec![Down, Up, Up, Up, Down], "refused"),
            (Down, ".", vec![Down], "before"),
        ];
        for (from, outcomes, expected, reason) in table {
            let start = Instant::now();
            let mut fsm = match from {
                Checking => Fsm::new(2, 3, start),
                Up | Down => Fsm::resume(from, "before", 2, 3, start),
            };
            let mut since = start;
            for (step, (outcome, expected)) in outcomes.chars().zip(&expected).enumerate() {
                let now = start + Duration::from_secs(step as u64 + 1);
                let was = fsm.health();
                let outcome = match outcome {
                    '+' => pass(),
                    '-' => fail("refused"),
                    _ => not_asked(),
                };
                let transition = fsm.on_probe(&outcome, now);
                assert_eq!(fsm.health(), *expected, "{from} {outcomes:?} step {step}");
                let moved = (was != *expected).then(|| Transition {
                    from: was,
                    to: *expected,
                    reason: fsm.reason().to_owned(),
                    at: now,
                });
                assert_eq!(transition, moved, "{from} {outcomes:?} step {step}");
                since = if moved.is_some() { now } else { since };
                assert_eq!(fsm.since(), since, "{from} {outcomes:?} step {step}");
            }
            assert_eq!(outcomes.len(), expected.len());
            assert_eq!(fsm.reason(), reason, "{from} {outcomes:?}");
        }
    }

    #[test]
    fn the_reason_follows_the_last_failure() {
        let now = Instant::now();
        let mut fsm = Fsm::new(1, 1, now);
        assert_eq!(fsm.on_probe(&fail("refused"), now).map(|to| to.reason).as_deref(), Some("refused"));
        assert_eq!(fsm.on_probe(&fail("no answer within 1s"), now), None);
        assert_eq!(fsm.reason(), "no answer within 1s");
    }

    fn outcomes() -> impl Strategy<Value = Vec<Outcome>> {
        proptest::collection::vec(
            prop_oneof![4 => Just(pass()), 4 => Just(fail("refused")), 1 => Just(not_asked())],
            0..60,
        )
    }

    fn healths() -> impl Strategy<Value = Health> {
        prop_oneof![Just(Checking), Just(Up), Just(Down)]
    }

    proptest! {
        /// What the last outcomes alone decide holds after any history.
        #[test]
        fn enough_in_a_row_decide(
            from in healths(), rise in 1u32..6, fall in 1u32..6, history in outcomes(),
        ) {
            let now = Instant::now();
            let mut fsm = Fsm::resume(from, "before", rise, fall, now);
            for outcome in &history {
                fsm.on_probe(outcome, now);
            }
            let mut failing = fsm.clone();
            (0..fall).for_each(|_| drop(failing.on_probe(&fail("refused"), now)));
            prop_assert_eq!(failing.health(), Down);
            (0..rise).for_each(|_| drop(fsm.on_probe(&pass(), now)));
            prop_assert_eq!(fsm.health(), Up);
        }

        /// Down needs `fall` failures at the end of the history, up after down `rise` passes; a transition is
        /// told exactly where the health changes; `up` and an empty reason are the same thing.
        #[test]
        fn no_verdict_without_its_row(
            from in healths(), rise in 1u32..6, fall in 1u32..6, history in outcomes(),
        ) {
            let start = Instant::now();
            let mut fsm = Fsm::resume(from, "before", rise, fall, start);
            let (mut passes, mut failures) = (0, 0);
            for (step, outcome) in history.iter().enumerate() {
                let now = start + Duration::from_secs(step as u64);
                let was = fsm.health();
                match outcome {
                    Outcome::Pass { .. } => (passes, failures) = (passes + 1, 0),
                    Outcome::Fail { .. } => (passes, failures) = (0, failures + 1),
                    Outcome::NotAsked { .. } => {}
                }
                let transition = fsm.on_probe(outcome, now);
                prop_assert_eq!(transition.is_some(), was != fsm.health());
                match (was, fsm.health()) {
                    (Checking | Up, Down) => prop_assert!(failures >= fall),
                    (Down, Up) => prop_assert!(passes >= rise),
                    (Checking, Up) => prop_assert!(passes >= 1),
                    (Up | Down, Checking) => prop_assert!(false, "no way back to checking"),
                    (Checking, Checking) | (Up, Up) | (Down, Down) => {}
                }
                prop_assert_eq!(fsm.health() == Up, fsm.reason().is_empty());
            }
        }
    }
}
