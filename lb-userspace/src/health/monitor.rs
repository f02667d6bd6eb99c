//! Probes every backend at its time and tells what changed.
//!
//! One task for each backend keeps its time and asks; one task above them owns all state machines. So what is told
//! of a backend is in order, and nothing is told of a backend after the event that says its check was changed.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tracing::{debug, warn};

use super::{
    Outcome,
    fsm::{Fsm, NOT_PROBED},
    probe::Prober,
    scheduler::Schedule,
};
use crate::model::{Health, HealthCheck, Probe, ServiceName};

/// A shortage on this machine is logged no more often than this.
const SHORTAGE_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The reason of an adopted backend that was down, until it is probed.
const ADOPTED_DOWN: &str = "down when the agent started";

/// A backend to be probed. Service, backend and check are its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The service.
    pub service: ServiceName,
    /// The backend.
    pub backend: SocketAddr,
    /// How it is probed.
    pub check: HealthCheck,
    /// The health to begin with where the monitor does not know the backend yet: `checking`, or what a running
    /// data plane says of it.
    pub initial: Health,
}

/// What is known of a backend has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthEvent {
    /// The service.
    pub service: ServiceName,
    /// The backend.
    pub backend: SocketAddr,
    /// Its health.
    pub health: Health,
    /// Why, in words; empty where it is up.
    pub reason: String,
    /// Since when it has this health (not this reason).
    pub at: Instant,
}

/// Probes backends until it is dropped.
#[derive(Debug)]
pub struct Monitor {
    targets: watch::Sender<Vec<Target>>,
    _task: Task,
}

impl Monitor {
    /// Starts with no targets. Needs a tokio runtime.
    ///
    /// The receiver gets one event for each new target at once, then one for each change of its health or of the
    /// reason. An event may be of a target that was just removed: whoever reads must ignore those.
    #[must_use]
    pub fn spawn(prober: Prober) -> (Self, mpsc::Receiver<HealthEvent>) {
        let (events, receiver) = mpsc::channel(256);
        let (targets, wanted) = watch::channel(Vec::new());
        let task = Task(tokio::spawn(run(prober, wanted, events)));
        (Self { targets, _task: task }, receiver)
    }

    /// Replaces the set of targets; never waits. Order does not matter.
    ///
    /// A target that stays keeps its state, one that goes is not probed any more. Where only the check is another
    /// one, the verdict stays until the new check has one of its own: a reload never empties a ring.
    pub fn set_targets(&self, targets: Vec<Target>) {
        self.targets.send_replace(targets);
    }
}

/// Service and backend; its text is what places a backend within the interval.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    service: ServiceName,
    backend: SocketAddr,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service, self.backend)
    }
}

/// A backend under watch.
struct Watched {
    check: HealthCheck,
    fsm: Fsm,
    /// Tells outcomes of this check from those of an earlier one that are still in the channel.
    round: u64,
    /// None for a backend that is not probed.
    _task: Option<Task>,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An outcome on its way to the state machine.
type Report = (Key, u64, Outcome);

async fn run(prober: Prober, mut wanted: watch::Receiver<Vec<Target>>, events: mpsc::Sender<HealthEvent>) {
    let (reports, mut outcomes) = mpsc::channel(256);
    let mut board = Board { prober, reports, rounds: 0, watched: BTreeMap::new(), shortage: None };
    loop {
        let news = tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => {
                    let targets = wanted.borrow_and_update().clone();
                    board.set(targets, now())
                }
                Err(_) => return,
            },
            // `board` holds a sender: there is always a next one.
            Some((key, round, outcome)) = outcomes.recv() => {
                board.on_outcome(&key, round, &outcome, now()).into_iter().collect()
            }
        };
        for event in news {
            if events.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// The clock of the runtime, so that tests can hold it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// All backends.
struct Board {
    prober: Prober,
    reports: mpsc::Sender<Report>,
    rounds: u64,
    watched: BTreeMap<Key, Watched>,
    /// When a shortage was last logged.
    shortage: Option<Instant>,
}

impl Board {
    fn set(&mut self, targets: Vec<Target>, now: Instant) -> Vec<HealthEvent> {
        let mut before = std::mem::take(&mut self.watched);
        let mut news = Vec::new();
        for Target { service, backend, check, initial } in targets {
            let key = Key { service, backend };
            if self.watched.contains_key(&key) {
                continue; // named twice
            }
            let mut old = before.remove(&key);
            if let Some(same) = old.take_if(|old| old.check == check) {
                self.watched.insert(key, same);
                continue;
            }
            let (health, reason) = match &old {
                _ if check.probe == Probe::None => (Health::Up, ""),
                Some(old) => (old.fsm.health(), old.fsm.reason()),
                None if initial == Health::Down => (initial, ADOPTED_DOWN),
                None => (initial, NOT_PROBED),
            };
            let kept = old.as_ref().filter(|old| old.fsm.health() == health);
            let since = kept.map_or(now, |old| old.fsm.since());
            let fsm = Fsm::resume(health, reason, check.rise, check.fall, since);
            if kept.is_none() {
                news.push(event(&key, &fsm));
            }
            let watched = self.watch(key.clone(), check, fsm, now);
            self.watched.insert(key, watched);
        }
        news
    }

    fn watch(&mut self, key: Key, check: HealthCheck, fsm: Fsm, now: Instant) -> Watched {
        self.rounds += 1;
        let round = self.rounds;
        let task = (check.probe != Probe::None).then(|| {
            let schedule = Schedule::new(&key, check.interval, now);
            let (prober, reports) = (self.prober.clone(), self.reports.clone());
            Task(tokio::spawn(keep_asking(key, round, check.clone(), schedule, prober, reports)))
        });
        Watched { check, fsm, round, _task: task }
    }

    fn on_outcome(&mut self, key: &Key, round: u64, outcome: &Outcome, now: Instant) -> Option<HealthEvent> {
        if let Outcome::NotAsked { reason } = outcome {
            self.log_shortage(reason, now);
        }
        let watched = self.watched.get_mut(key).filter(|watched| watched.round == round)?;
        let reason = watched.fsm.reason().to_owned();
        let transition = watched.fsm.on_probe(outcome, now);
        if let Some(to) = &transition {
            debug!(service = %key.service, backend = %key.backend, from = %to.from, to = %to.to, reason = to.reason,
                "health changed");
        }
        let news = transition.is_some() || watched.fsm.reason() != reason;
        news.then(|| event(key, &watched.fsm))
    }

    fn log_shortage(&mut self, reason: &str, now: Instant) {
        if self.shortage.is_none_or(|last| now.duration_since(last) >= SHORTAGE_LOG_INTERVAL) {
            self.shortage = Some(now);
            warn!(reason, "backends could not be probed; they keep their health");
        }
    }
}

fn event(key: &Key, fsm: &Fsm) -> HealthEvent {
    HealthEvent {
        service: key.service.clone(),
        backend: key.backend,
        health: fsm.health(),
        reason: fsm.reason().to_owned(),
        at: fsm.since(),
    }
}

async fn keep_asking(
    key: Key,
    round: u64,
    check: HealthCheck,
    mut schedule: Schedule,
    prober: Prober,
    reports: mpsc::Sender<Report>,
) {
    let target = SocketAddr::new(key.backend.ip(), check.port.unwrap_or(key.backend.port()));
    loop {
        tokio::time::sleep_until(schedule.due().into()).await;
        let outcome = prober.probe(&check.probe, target, check.timeout).await;
        if reports.send((key.clone(), round, outcome)).await.is_err() {
            return;
        }
        schedule.advance(now());
    }
}

#[cfg(test)]
mod tests;
