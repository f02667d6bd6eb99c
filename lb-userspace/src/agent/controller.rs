//! The one task that owns the desired state and the maps.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, time};
use tracing::{error, info, warn};

use super::{
    command::{Answer, Command, CommandError},
    facts::{Facts, Standing, backend_addresses},
    interfaces::Interfaces,
    meter::Meter,
    placements::Placements,
    plan::{key_of, plan},
};
use crate::{
    api::schema::{Changed, Finding},
    config::entry::ServiceEntry,
    datapath::{apply::features_of, explain::Explainer, load::Datapath, pin},
    health::{HealthEvent, Monitor, Target},
    model::{AgentSettings, Desired, DesiredService, Health, Limits, ServiceName},
    neigh::{NextHopEvent, Resolver, links::LinkEvent},
};

/// How long the first plan waits for a word on every backend: until then a data plane that runs already goes on as it was.
const SETTLE_LIMIT: Duration = Duration::from_secs(3);

/// How often flows are counted for backends with a bound and for least-conn: what is placed in between the data plane
/// counts itself, what ends in between it does not.
const LOADS_INTERVAL: Duration = Duration::from_millis(500);

/// How long the program can do more than services ask for: less, and who tries things out would wait each time for
/// the kernel to take another.
const FIT_AFTER: Duration = Duration::from_secs(60);

/// Everything that the controller owns.
pub(super) struct Controller {
    pub(super) settings: AgentSettings,
    pub(super) limits: Limits,
    /// The configuration file, where there is one.
    pub(super) config_path: Option<PathBuf>,
    /// Its `[agent]` section when the agent was started.
    pub(super) file_settings: AgentSettings,
    pub(super) desired: Desired,
    /// Services of the command line that do not fit beside the file's: kept on disk, not served.
    pub(super) left_out: Vec<ServiceEntry>,
    /// What the operator was told when the agent started, and is told again by `status`.
    pub(super) warnings: Vec<Finding>,
    pub(super) datapath: Datapath,
    pub(super) interfaces: Interfaces,
    pub(super) facts: Facts,
    pub(super) placements: Placements,
    pub(super) meter: Meter,
    /// Loaded with the first `lookup`.
    pub(super) explainer: Option<Explainer>,
    pub(super) started: Instant,
    /// When the program could last do no more than services ask for.
    pub(super) fits_since: Instant,
    /// The health in force of each backend, and since when.
    pub(super) standings: HashMap<(ServiceName, SocketAddr), (Health, Instant)>,
    /// Why the maps are not what was planned; none where they are.
    pub(super) apply_problem: Option<String>,
    pub(super) monitor: Monitor,
    pub(super) resolver: Resolver,
    /// Whether there has been a first plan.
    pub(super) settled: bool,
}

/// What the controller listens to.
pub(super) struct Inbox {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) health: mpsc::Receiver<HealthEvent>,
    pub(super) next_hops: mpsc::Receiver<NextHopEvent>,
    pub(super) links: mpsc::Receiver<LinkEvent>,
    /// SIGHUP.
    pub(super) reloads: mpsc::Receiver<()>,
    /// SIGTERM, SIGINT.
    pub(super) stop: mpsc::Receiver<&'static str>,
}

/// Why the controller has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to: the data plane goes on.
    Stopped,
    /// The data plane was taken away.
    Detached,
}

impl Controller {
    /// Works until it is told to end.
    pub(super) async fn run(mut self, mut inbox: Inbox) -> End {
        self.watch();
        let mut second = time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut loads = time::interval(LOADS_INTERVAL);
        loads.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let settle = time::sleep(SETTLE_LIMIT);
        tokio::pin!(settle);
        loop {
            tokio::select! {
                biased;
                Some(signal) = inbox.stop.recv() => {
                    info!(signal, "stopping; the data plane goes on");
                    return End::Stopped;
                }
                Some(event) = inbox.health.recv() => {
                    self.facts.on_health(event);
                    while let Ok(event) = inbox.health.try_recv() {
                        self.facts.on_health(event);
                    }
                    self.apply_or_log();
                }
                Some(event) = inbox.next_hops.recv() => {
                    self.facts.on_next_hop(event);
                    while let Ok(event) = inbox.next_hops.try_recv() {
                        self.facts.on_next_hop(event);
                    }
                    self.apply_or_log();
                }
                Some(_) = inbox.links.recv() => {
                    while inbox.links.try_recv().is_ok() {}
                    self.on_links().await;
                }
                Some(command) = inbox.commands.recv() => {
                    if self.answer(command) {
                        return End::Detached;
                    }
                }
                Some(()) = inbox.reloads.recv() => match self.reload() {
                    Ok(changed) => info!(changes = changed.changes.len(), "reloaded"),
                    Err(problem) => error!(%problem, "not reloaded: nothing was changed"),
                },
                () = &mut settle, if !self.settled => {
                    self.settled = true;
                    self.apply_or_log();
                }
                _ = second.tick() => self.tick(),
                _ = loads.tick() => self.count_loads(),
            }
        }
    }

    /// Tells those who look at backends which there are.
    pub(super) fn watch(&mut self) {
        let mut targets = Vec::new();
        for entry in self.desired.services.values() {
            let key = key_of(&entry.service);
            for backend in &entry.service.backends {
                let running = self.datapath.maps.backend(&key, backend.address);
                let initial = match running {
                    Some(running) if self.datapath.adopted && !self.settled => {
                        if running.is_up() {
                            Health::Up
                        } else {
                            Health::Down
                        }
                    }
                    _ => Health::Checking,
                };
                targets.push(Target {
                    service: entry.service.name.clone(),
                    backend: backend.address,
                    check: entry.service.health.clone(),
                    initial,
                });
            }
        }
        self.monitor.set_targets(targets);
        self.resolver.watch(backend_addresses(&self.desired));
        self.facts.retain(&self.desired);
    }

    /// Makes the maps what is wanted, given what is true.
    pub(super) fn apply(&mut self) -> Result<(), String> {
        if !self.settled {
            if !self.facts.are_complete(&self.desired) {
                return Ok(());
            }
            self.settled = true;
        }
        let now = Instant::now();
        self.note_transitions(now);
        self.decide(now);
        let wanted = plan(&self.desired, &self.facts, &self.placements);
        let done = tokio::task::block_in_place(|| {
            // The program first: from the first write on packets may ask for what is new.
            let features = features_of(&wanted).and(self.datapath.features());
            self.interfaces.fit(&mut self.datapath, features)?;
            self.datapath.maps.reconcile(&wanted, now)
        });
        self.apply_problem = done.as_ref().err().map(ToString::to_string);
        done.map_err(|error| error.to_string())
    }

    pub(super) fn apply_or_log(&mut self) {
        let before = self.apply_problem.clone();
        if let Err(problem) = self.apply()
            && before.as_ref() != Some(&problem)
        {
            error!(problem, "the data plane is not what was planned");
        }
    }

    fn decide(&mut self, now: Instant) {
        let maps = &self.datapath.maps;
        let count_of = |entry: &DesiredService, backend| maps.live_flows(&key_of(&entry.service), backend);
        self.placements.decide(&self.desired, &self.facts, &count_of, now);
    }

    /// Writes each change of a backend's health into the log.
    fn note_transitions(&mut self, now: Instant) {
        let mut standings = HashMap::new();
        for entry in self.desired.services.values() {
            for backend in &entry.service.backends {
                let Standing { health, reason, .. } =
                    self.facts.standing(&self.desired, entry, backend.address);
                let name = (entry.service.name.clone(), backend.address);
                let known = self.standings.get(&name).filter(|(before, _)| *before == health);
                let since = known.map_or(now, |(_, since)| *since);
                if known.is_none() {
                    let (service, backend) = (&name.0, &name.1);
                    match health {
                        Health::Up => info!(%service, %backend, "backend is up"),
                        Health::Down => warn!(%service, %backend, reason, "backend is down"),
                        Health::Checking => {}
                    }
                }
                standings.insert(name, (health, since));
            }
        }
        self.standings = standings;
    }

    async fn on_links(&mut self) {
        if self.interfaces.review(&mut self.datapath).await {
            self.facts.slots = self.interfaces.slots();
            self.apply_or_log();
        }
    }

    /// Counts the flows of backends, where that decides who gets new ones.
    fn count_loads(&mut self) {
        if !self.datapath.maps.wants_loads() {
            return;
        }
        tokio::task::block_in_place(|| self.datapath.maps.refresh_loads());
        self.apply_or_log();
    }

    fn tick(&mut self) {
        let keys: Vec<_> = self.desired.services.values().map(|entry| key_of(&entry.service)).collect();
        let slots: Vec<_> = self.facts.slots.values().copied().collect();
        let (meter, maps) = (&mut self.meter, &mut self.datapath.maps);
        tokio::task::block_in_place(|| {
            let now = Instant::now();
            meter.tick(maps, keys.into_iter(), now);
            let packets = slots.iter().filter_map(|slot| maps.packets(*slot).ok()).flatten();
            meter.note_drops(packets, now);
        });
        self.fit();
        // What could not be written may be possible now: an index has rested, memory is free.
        if self.apply_problem.is_some() || self.placements.is_ramping() {
            self.apply_or_log();
        }
    }

    /// Takes out of the program what no service has asked for in a while.
    fn fit(&mut self) {
        let (needed, now) = (self.datapath.maps.features(), Instant::now());
        if self.datapath.features() == needed {
            self.fits_since = now;
        }
        if now.duration_since(self.fits_since) < FIT_AFTER {
            return;
        }
        self.fits_since = now;
        let done = tokio::task::block_in_place(|| self.interfaces.fit(&mut self.datapath, needed));
        if let Err(problem) = done {
            warn!(%problem, "the program still does what no service asks for any more");
        }
    }

    /// Answers a command; true where it was the last one.
    fn answer(&mut self, command: Command) -> bool {
        // An answer that nobody waits for any more is nobody's loss.
        macro_rules! reply {
            ($to:expr, $answer:expr) => {{
                let _ = $to.send($answer);
            }};
        }
        match command {
            Command::Status(to) => reply!(to, self.status()),
            Command::Stats(to) => reply!(to, self.stats()),
            Command::ServiceList(to) => reply!(to, self.service_rows()),
            Command::ServiceShow(name, to) => reply!(to, self.service_detail(&name)),
            Command::ServiceAdd(entry, to) => reply!(to, self.service_add(&entry)),
            Command::ServiceSet(name, change, to) => reply!(to, self.service_set(&name, &change)),
            Command::ServiceRemove(name, to) => reply!(to, self.service_remove(&name)),
            Command::BackendList(service, to) => reply!(to, self.backend_rows(service.as_ref())),
            Command::BackendAdd(service, entry, to) => reply!(to, self.backend_add(&service, &entry)),
            Command::BackendSet(service, backend, change, to) => {
                reply!(to, self.backend_set(&service, backend, change));
            }
            Command::BackendsSet(service, change, to) => reply!(to, self.backends_set(&service, &change)),
            Command::BackendReset(service, backend, to) => reply!(to, self.backend_reset(&service, backend)),
            Command::BackendRemove(service, backend, to) => {
                reply!(to, self.backend_remove(&service, backend));
            }
            Command::ConfigReload(to) => reply!(to, self.reload()),
            Command::ConfigDiff(text, to) => reply!(to, self.config_diff(&text)),
            Command::ConfigShow(to) => reply!(to, Ok(self.config_text())),
            Command::FlowList(query, to) => match self.check_flow_query(&query) {
                Ok(()) => {
                    let snapshot = self.flow_snapshot();
                    tokio::task::spawn_blocking(move || to.send(Ok(snapshot.list(&query))));
                }
                Err(refused) => reply!(to, Err(refused)),
            },
            Command::FlowCount(query, to) => match self.check_names(query.service.as_ref(), query.backend) {
                Ok(()) => {
                    let snapshot = self.flow_snapshot();
                    tokio::task::spawn_blocking(move || to.send(Ok(snapshot.count(&query))));
                }
                Err(refused) => reply!(to, Err(refused)),
            },
            Command::Lookup(query, to) => reply!(to, self.lookup(&query)),
            Command::Detach(to) => {
                let answer = self.detach();
                let detached = answer.is_ok();
                reply!(to, answer);
                return detached;
            }
        }
        false
    }

    fn detach(&self) -> Answer<Changed> {
        pin::detach(&self.settings.pin_dir, false)
            .map(|changes| Changed { changes })
            .map_err(|error| CommandError::Failed(error.to_string()))
    }
}
