//! What was decided of who gets new flows, by service, and since when backends have been starting slowly.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    time::Instant,
};

use super::facts::{Facts, Standing};
use crate::{
    model::{Backend, Desired, DesiredService, Health, ServiceName},
    placement::{Candidate, Placement, Policy, WHOLE, place},
};

/// The decisions in force.
#[derive(Debug, Default)]
pub(super) struct Placements {
    by_service: BTreeMap<ServiceName, Placement>,
    /// The last verdict on each backend: up or down.
    known: HashMap<(ServiceName, SocketAddr), Health>,
    /// Backends that were there when their service came, or the agent: they do not start slowly with their first
    /// verdict.
    initial: HashSet<(ServiceName, SocketAddr)>,
    /// Since when backends that start slowly have been up.
    starting: HashMap<(ServiceName, SocketAddr), Instant>,
}

/// The flows of a backend, where they are counted.
pub(super) type CountOf<'a> = &'a dyn Fn(&DesiredService, SocketAddr) -> Option<u64>;

impl Placements {
    /// Decides anew for every service.
    pub(super) fn decide(&mut self, desired: &Desired, facts: &Facts, count_of: CountOf<'_>, now: Instant) {
        self.note_health(desired, facts, now);
        let decided = desired.services.values().map(|entry| {
            let name = &entry.service.name;
            let candidates = self.candidates(desired, facts, entry, count_of, now);
            let before = self.by_service.get(name).cloned().unwrap_or_default();
            (name.clone(), place(&candidates, &Policy::from(&entry.service), &before))
        });
        self.by_service = decided.collect();
        // Whoever has its whole share, by time or because it is alone, has started.
        for (name, placement) in &self.by_service {
            for share in placement.shares.iter().filter(|share| share.ring_weight > 0) {
                if share.ramp_permille >= WHOLE {
                    self.starting.remove(&(name.clone(), share.address));
                }
            }
        }
    }

    /// What was decided for a service; nobody gets anything where nothing was.
    pub(super) fn of(&self, service: &ServiceName) -> Placement {
        self.by_service.get(service).cloned().unwrap_or_default()
    }

    /// Whether time alone will change what is decided.
    pub(super) fn is_ramping(&self) -> bool {
        self.by_service.values().any(Placement::is_ramping)
    }

    /// Sees who has come up, and who has gone.
    fn note_health(&mut self, desired: &Desired, facts: &Facts, now: Instant) {
        let mut known = HashMap::new();
        for entry in desired.services.values() {
            let service = &entry.service;
            let is_new_service = !self.by_service.contains_key(&service.name);
            for backend in &service.backends {
                let name = (service.name.clone(), backend.address);
                let health = facts.standing(desired, entry, backend.address).health;
                let before = self.known.get(&name).copied();
                if is_new_service {
                    self.initial.insert(name.clone());
                }
                match health {
                    Health::Up if before != Some(Health::Up) && !self.initial.contains(&name) => {
                        self.starting.insert(name.clone(), now);
                    }
                    Health::Down => drop(self.starting.remove(&name)),
                    Health::Up | Health::Checking => {}
                }
                // Without a verdict the last one counts: a next hop that is asked for anew is no new start.
                let verdict = if health == Health::Checking { before } else { Some(health) };
                if let Some(verdict) = verdict {
                    self.initial.remove(&name);
                    known.insert(name, verdict);
                }
            }
        }
        let exists = |name: &(ServiceName, SocketAddr)| {
            desired.services.get(&name.0).is_some_and(|entry| entry.service.backend(name.1).is_some())
        };
        self.starting.retain(|name, _| exists(name));
        self.initial.retain(exists);
        self.known = known;
    }

    fn candidates(
        &self,
        desired: &Desired,
        facts: &Facts,
        entry: &DesiredService,
        count_of: CountOf<'_>,
        now: Instant,
    ) -> Vec<Candidate> {
        let service = &entry.service;
        let candidate = |backend: &Backend| {
            let standing = facts.standing(desired, entry, backend.address);
            let since = self.starting.get(&(service.name.clone(), backend.address));
            Candidate {
                starting_for: since.map(|since| now.duration_since(*since)),
                flows: count_of(entry, backend.address),
                ..candidate_of(backend, &standing)
            }
        };
        service.backends.iter().map(candidate).collect()
    }
}

/// A backend as it stands, whoever else there is: it does not start slowly, and its flows are not counted.
pub(super) fn candidate_of(backend: &Backend, standing: &Standing) -> Candidate {
    Candidate {
        address: backend.address,
        weight: standing.weight,
        priority: backend.priority,
        health: standing.health,
        admin_state: standing.admin_state,
        is_reachable: standing.way_problem.is_none(),
        starting_for: None,
        flows: None,
        max_flows: backend.max_flows,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        agent::plan::testing::{BACKENDS, desired, facts_of},
        placement::WHOLE,
    };

    const MINUTE: Duration = Duration::from_secs(60);

    /// The ramp of each backend at a time, given its health.
    fn ramps(placements: &mut Placements, desired: &Desired, health: [Health; 2], at: Instant) -> Vec<u16> {
        placements.decide(desired, &facts_of(desired, health), &|_, _| None, at);
        let service = desired.services.keys().next().expect("a service");
        placements.of(service).shares.iter().map(|share| share.ramp_permille).collect()
    }

    fn slow() -> Desired {
        let mut desired = desired("full-nat");
        desired.services.values_mut().for_each(|entry| entry.service.slow_start = MINUTE);
        desired
    }

    #[test]
    fn nobody_starts_slowly_when_the_agent_starts() {
        let (desired, start) = (slow(), Instant::now());
        let mut placements = Placements::default();
        use Health::{Checking, Up};
        assert_eq!(ramps(&mut placements, &desired, [Checking, Checking], start), [WHOLE, WHOLE]);
        assert_eq!(ramps(&mut placements, &desired, [Up, Checking], start), [WHOLE, WHOLE]);
        assert_eq!(ramps(&mut placements, &desired, [Up, Up], start + MINUTE / 2), [WHOLE, WHOLE]);
        assert!(!placements.is_ramping());
    }

    #[test]
    fn who_recovers_or_is_added_starts_slowly() {
        let (desired, start) = (slow(), Instant::now());
        let mut placements = Placements::default();
        use Health::{Down, Up};
        ramps(&mut placements, &desired, [Up, Down], start);
        assert_eq!(ramps(&mut placements, &desired, [Up, Up], start), [WHOLE, 100]);
        assert!(placements.is_ramping());
        assert_eq!(ramps(&mut placements, &desired, [Up, Up], start + MINUTE / 2), [WHOLE, 550]);
        assert_eq!(ramps(&mut placements, &desired, [Up, Up], start + MINUTE), [WHOLE, WHOLE]);
        assert!(!placements.is_ramping());

        let mut smaller = desired.clone();
        let service = smaller.services.values_mut().next().expect("a service");
        service.service.backends.retain(|backend| backend.address.to_string() == BACKENDS[0]);
        let mut placements = Placements::default();
        ramps(&mut placements, &smaller, [Up, Up], start);
        assert_eq!(ramps(&mut placements, &desired, [Up, Up], start), [WHOLE, 100], "it was added");
    }

    #[test]
    fn a_moment_without_a_verdict_is_no_new_start() {
        let (desired, start) = (slow(), Instant::now());
        let mut placements = Placements::default();
        use Health::{Checking, Up};
        ramps(&mut placements, &desired, [Up, Up], start);
        ramps(&mut placements, &desired, [Up, Checking], start);
        assert_eq!(ramps(&mut placements, &desired, [Up, Up], start), [WHOLE, WHOLE]);
    }

    #[test]
    fn who_was_alone_has_started_when_another_comes() {
        let (desired, start) = (slow(), Instant::now());
        let mut placements = Placements::default();
        use Health::{Down, Up};
        ramps(&mut placements, &desired, [Up, Down], start);
        ramps(&mut placements, &desired, [Down, Down], start);
        assert_eq!(ramps(&mut placements, &desired, [Up, Down], start), [WHOLE, WHOLE]);
        assert_eq!(ramps(&mut placements, &desired, [Up, Up], start), [WHOLE, 100]);
    }

    #[test]
    fn going_down_begins_the_start_again() {
        let (desired, start) = (slow(), Instant::now());
        let mut placements = Placements::default();
        use Health::{Down, Up};
        ramps(&mut placements, &desired, [Up, Down], start);
        ramps(&mut placements, &desired, [Up, Up], start);
        ramps(&mut placements, &desired, [Up, Down], start + MINUTE / 2);
        assert_eq!(ramps(&mut placements, &desired, [Up, Up], start + MINUTE), [WHOLE, 100]);
    }
}
