//! Who gets new flows, and how large a part: pure functions of what is true, what the operator wants and what was
//! decided before. No clock, no I/O.
//!
//! ```text
//! up, or panic → priorities in use → not full → weight, and how far a slow start has got
//! ```
//!
//! What was decided before counts where a threshold is met: a decision is taken back only when things are clearly
//! better than where it was made, so that nothing flaps at the edge.

mod full;
mod panic;
mod ramp;
mod tiers;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

pub use ramp::{WHOLE, ramp};

use crate::model::{AdminState, Health, PanicAction, Service};

/// Percentage points above a threshold at which a decision is taken back.
const HYSTERESIS: u8 = 10;

/// A backend as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its address and port.
    pub address: SocketAddr,
    /// The weight in force.
    pub weight: u16,
    /// Its priority: 0 is used first.
    pub priority: u8,
    /// What probes say.
    pub health: Health,
    /// What the operator says.
    pub admin_state: AdminState,
    /// Whether there is a way to it.
    pub is_reachable: bool,
    /// For how long it has been up, if it is to start slowly.
    pub starting_for: Option<Duration>,
    /// Its flows, where they are counted.
    pub flows: Option<u64>,
    /// Flows above which it gets no new ones; 0: no bound.
    pub max_flows: u32,
}

/// What the operator wants of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// See [`Service::slow_start`].
    pub slow_start: Duration,
    /// See [`Service::panic_threshold`].
    pub panic_threshold: u8,
    /// See [`Service::panic_action`].
    pub panic_action: PanicAction,
    /// See [`Service::failover_below`].
    pub failover_below: u8,
}

impl From<&Service> for Policy {
    fn from(service: &Service) -> Self {
        Self {
            slow_start: service.slow_start,
            panic_threshold: service.panic_threshold,
            panic_action: service.panic_action,
            failover_below: service.failover_below,
        }
    }
}

/// What was decided for a service, and what the next decision has to know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// In the order of the candidates.
    pub shares: Vec<Share>,
    /// Whether fewer backends are up than the panic threshold asks for.
    pub panic: bool,
    /// The priorities in use.
    pub priorities: BTreeSet<u8>,
}

/// One backend's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The backend.
    pub address: SocketAddr,
    /// Its weight on the ring; 0: no new flows.
    pub ring_weight: u16,
    /// How much of its slots on the ring it has, in thousandths.
    pub ramp_permille: u16,
    /// Whether it is used although probes say that it is down.
    pub in_spite_of_health: bool,
    /// Whether it has as many flows as it may.
    pub is_full: bool,
}

impl Placement {
    /// A backend's part.
    #[must_use]
    pub fn share(&self, backend: SocketAddr) -> Option<&Share> {
        self.shares.iter().find(|share| share.address == backend)
    }

    /// The part of all new flows that a backend gets, 0 to 1: what one that starts slowly lacks goes to the others.
    #[must_use]
    pub fn part_of_new_flows(&self, share: &Share) -> f64 {
        let weight = |share: &Share| f64::from(share.ring_weight);
        let total: f64 = self.shares.iter().map(weight).sum();
        let is_settled = |share: &&Share| share.ramp_permille >= WHOLE;
        let settled: f64 = self.shares.iter().filter(is_settled).map(weight).sum();
        if share.ring_weight == 0 {
            return 0.0;
        }
        if settled == 0.0 {
            // Where all start slowly none does.
            return weight(share) / total;
        }
        let ramp = |share: &Share| f64::from(share.ramp_permille) / f64::from(WHOLE);
        let starting: f64 = self.shares.iter().map(|share| weight(share) / total * ramp(share)).sum();
        let settled_part = settled / total;
        let lacking = 1.0 - starting;
        match share.ramp_permille {
            WHOLE.. => weight(share) / total + lacking * (weight(share) / total / settled_part),
            _ => weight(share) / total * ramp(share),
        }
    }

    /// Whether a slow start is under way, so that time alone changes what is decided.
    #[must_use]
    pub fn is_ramping(&self) -> bool {
        self.shares.iter().any(|share| share.ring_weight > 0 && share.ramp_permille < WHOLE)
    }
}

/// Decides, given what was decided `before`.
#[must_use]
pub fn place(candidates: &[Candidate], policy: &Policy, before: &Placement) -> Placement {
    let counted: Vec<bool> = candidates.iter().map(is_counted).collect();
    let panic = panic::sets_in(candidates, &counted, policy.panic_threshold, before.panic);
    let usable: Vec<bool> = candidates
        .iter()
        .zip(&counted)
        .map(|(candidate, counted)| {
            let by_health = match (panic, policy.panic_action) {
                (false, _) => candidate.health == Health::Up,
                (true, PanicAction::All) => candidate.health != Health::Checking,
                (true, PanicAction::None) => false,
            };
            *counted && candidate.is_reachable && by_health
        })
        .collect();
    let priorities = if panic {
        candidates.iter().map(|candidate| candidate.priority).collect()
    } else {
        tiers::in_use(candidates, &counted, &usable, policy.failover_below, &before.priorities)
    };
    let active = |index: usize| usable[index] && priorities.contains(&candidates[index].priority);
    let full = full::full(candidates, &active, before);
    let all_full = (0..candidates.len()).filter(|index| active(*index)).all(|index| full[index]);
    let gets_flows = |index: usize| active(index) && (!full[index] || all_full);
    let ramp_of = |candidate: &Candidate| ramp(candidate.starting_for, policy.slow_start);
    // Where all start slowly none does: there is nobody to take the rest.
    let nobody_settled = !candidates
        .iter()
        .enumerate()
        .any(|(index, candidate)| gets_flows(index) && ramp_of(candidate) >= WHOLE);
    let shares = candidates.iter().enumerate().map(|(index, candidate)| {
        let gets_flows = gets_flows(index);
        Share {
            address: candidate.address,
            ring_weight: if gets_flows { candidate.weight } else { 0 },
            ramp_permille: if gets_flows && nobody_settled { WHOLE } else { ramp_of(candidate) },
            in_spite_of_health: active(index) && candidate.health != Health::Up,
            is_full: full[index],
        }
    });
    Placement { shares: shares.collect(), panic, priorities }
}

/// Whether it is one of those that there should be: shares of what is up are shares of these.
fn is_counted(candidate: &Candidate) -> bool {
    candidate.admin_state == AdminState::Enabled && candidate.weight > 0
}

/// Whether less than `threshold` percent of the weight counts; what was so `before` ends only at ten points more.
fn is_below(counting: u32, all: u32, threshold: u8, before: bool) -> bool {
    let threshold = if before { (threshold + HYSTERESIS).min(100) } else { threshold };
    u64::from(counting) * 100 < u64::from(all) * u64::from(threshold)
}

#[cfg(test)]
mod tests;
