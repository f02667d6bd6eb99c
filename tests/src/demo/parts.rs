//! What happens on the stage, one function a part.

use std::{
    net::SocketAddr,
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use harness::{agent::Agent, process::Process};

use super::{
    bounds::{DRAIN_ENDS, DRAIN_TAKES_HOLD, FAIRNESS, OUTAGE, RETURN, TAKE_OVER},
    figures::{Figures, seconds},
    screen::Screen,
    stage::{AllLoad, BACKENDS, Stage},
};

/// The backend that dies and comes back.
const VICTIM: usize = 2;
/// The backend that is drained.
const DRAINED: usize = 1;
/// Connections that stay open.
const HELD: usize = 24;

/// The demo while it is played.
#[derive(Debug)]
pub(super) struct Show {
    /// Stopped before the stage is taken down.
    pub(super) load: AllLoad,
    pub(super) stage: Stage,
    pub(super) screen: Screen,
    pub(super) figures: Figures,
    /// How long each part takes at least.
    pub(super) part: Duration,
}

impl Show {
    /// Nothing happens, and every backend gets its share.
    pub(super) fn steady(&mut self) -> Result<()> {
        self.screen.heading("1. Traffic: every request is a new connection, and the backends share them");
        let begun = Instant::now();
        self.watch(self.part);
        let sum = self.load.since(begun);
        let smallest = self.stage.net.backends.iter().map(|backend| sum.answered_by(&backend.name)).min();
        let share = ratio(smallest.unwrap_or_default() * BACKENDS as u64, sum.answered());
        self.figures.exactly("traffic: failed or delayed requests", self.load.disturbed(begun), 0);
        self.figures.percent_at_least("traffic: least busy backend, of its fair share", share, FAIRNESS);
        Ok(())
    }

    /// One backend dies.
    pub(super) fn kill_backend(&mut self) -> Result<()> {
        let name = self.stage.net.backends[VICTIM].name.clone();
        self.screen.heading(&format!("2. A backend dies: every server on {name} is killed"));
        self.watch(Duration::from_secs(1));
        let killed = Instant::now();
        self.screen.event(&format!("{name} is killed now; its connections are reset, new ones refused."));
        for server in &mut self.stage.servers[VICTIM] {
            server.stop();
        }
        self.watch(self.part);
        // None at all is possible too: a check may find out before a client does.
        let outage = self.load.last_disturbed(killed).unwrap_or_default();
        self.screen.event(&format!(
            "The last request that failed or was delayed was begun {} after the kill; {} failed in all.",
            seconds(outage),
            self.load.since(killed).failed
        ));
        self.figures.within(
            &format!("{name} killed: until the last failed or delayed request"),
            Some(outage),
            OUTAGE,
        );
        Ok(())
    }

    /// It comes back.
    pub(super) fn bring_backend_back(&mut self) -> Result<()> {
        let name = self.stage.net.backends[VICTIM].name.clone();
        self.screen.heading(&format!("3. It comes back: the servers on {name} are started again"));
        let started = Instant::now();
        self.screen.event(&format!("{name} is started now."));
        for server in &mut self.stage.servers[VICTIM] {
            server.start()?;
        }
        self.watch(self.part);
        let back = self.load.first_answers_of(&name, started);
        let when = back.map_or_else(|| "never".to_owned(), seconds);
        self.screen.event(&format!("Requests of every service reached {name} again after: {when}."));
        self.figures.within(&format!("{name} back: until every service uses it"), back, RETURN);
        self.figures.exactly(
            &format!("{name} back: failed or delayed requests"),
            self.load.disturbed(started),
            0,
        );
        Ok(())
    }

    /// One backend is drained while connections to it are open.
    pub(super) fn drain(&mut self) -> Result<()> {
        let (name, service) = (self.stage.net.backends[DRAINED].name.clone(), self.stage.web().clone());
        let address = self.stage.backend_address(&service, DRAINED);
        self.screen.heading(&format!("4. Maintenance: {name} is drained, and nobody notices"));
        let mut held = self.stage.open_long_lived(HELD)?;
        let mut open = held.by_backend().get(&name).copied().unwrap_or_default();
        self.screen.say(&format!(
            "A draining backend gets no new connections; those that it has go on until their clients leave.\n\
             {HELD} connections to {} stay open, {open} of them with {name}.",
            service.name
        ));
        let begun = Instant::now();
        let text = address.to_string();
        let args = ["backend", "drain", service.name, text.as_str(), "--wait", "--timeout", "2m"];
        self.screen.event(&format!("$ flowgate {}", args.join(" ")));
        let mut command = Process::spawn(self.stage.agent.command(&args), "flowgate backend drain")?;

        // Its clients leave one after the other.
        let steps = usize::try_from(self.part.as_secs()).unwrap_or(usize::MAX).max(1);
        let leaving = open.div_ceil(steps).max(1);
        let remark = |agent: &Agent, open: usize| {
            let flows = flows_of(agent, service.name, address);
            format!("{name}: connections kept open {open}, flows remembered {flows}")
        };
        let agent = &self.stage.agent;
        self.stage.watch_with(&self.load, &mut self.screen, self.part + Duration::from_secs(1), |_| {
            let text = remark(agent, open);
            open -= held.close_some(&name, leaving);
            Some(text)
        });
        held.close_some(&name, open);
        let last_left = Instant::now();
        self.screen.event("The last client has left.");
        let mut ended: Option<(ExitStatus, Duration)> = None;
        self.stage.watch_with(&self.load, &mut self.screen, DRAIN_ENDS * 2, |_| {
            ended = command.exit_status().map(|status| (status, last_left.elapsed()));
            ended.is_none().then(|| remark(agent, 0))
        });
        let drained = ended.filter(|(status, _)| status.success()).map(|(_, after)| after);
        match drained {
            Some(after) => self
                .screen
                .event(&format!("The drain is over, {} after the last client left.", seconds(after))),
            None => self.screen.event(&format!("The drain did not end well: {}", command.log())),
        }

        let late = late_connections(&self.load, service.name, &name, begun + DRAIN_TAKES_HOLD)?;
        self.figures.exactly(
            &format!("{name} drained: failed or delayed requests"),
            self.load.disturbed(begun),
            0,
        );
        self.figures.exactly(&format!("{name} drained: new connections that it got all the same"), late, 0);
        self.figures.exactly(
            &format!("{name} drained: open connections broken or moved"),
            held.broken().len() + held.moved(),
            0,
        );
        self.figures.within(&format!("{name} drained: until `drain --wait` returned"), drained, DRAIN_ENDS);
        drop(held);
        self.enable(&name, service.name, address)
    }

    /// The drained backend gets connections again.
    fn enable(&mut self, name: &str, service: &str, address: SocketAddr) -> Result<()> {
        let enabled = Instant::now();
        let args = ["backend", "enable", service, &address.to_string()];
        self.screen.event(&format!("$ flowgate {}", args.join(" ")));
        self.stage.agent.cli_ok(&args)?;
        self.watch(Duration::from_secs(2));
        let load = self.load.of(service).context("there is load on it")?;
        let back = load.first_answer_of(name, enabled).map(|record| record.ended - enabled);
        self.figures.within(&format!("{name} enabled: until it gets connections again"), back, RETURN);
        Ok(())
    }

    /// The agent is killed, and started again.
    pub(super) fn kill_agent(&mut self) -> Result<()> {
        self.screen.heading("5. The agent is killed: packets go on without it");
        let held = self.stage.open_long_lived(HELD)?;
        self.screen.say(&format!(
            "{HELD} connections to {} stay open. Each must keep its backend.",
            self.stage.web().name
        ));
        let killed = Instant::now();
        self.stage.agent.kill9();
        self.screen.event("The agent is killed with SIGKILL. The data plane stays in the kernel.");
        self.watch(self.part / 2 + Duration::from_secs(1));
        let while_away = self.load.since(killed).answered();
        self.screen.event(&format!(
            "{while_away} requests were answered while there was no agent. It is started again."
        ));
        let started = Instant::now();
        self.stage.agent.restart()?;
        let took = started.elapsed();
        let status = self.stage.agent.cli_json(&["status"])?;
        let adopted = status["agent"]["adopted"] == true;
        self.screen.event(&format!(
            "It answers after {}, and has {}.",
            seconds(took),
            if adopted {
                "taken over the running data plane"
            } else {
                "NOT taken over the running data plane"
            }
        ));
        self.watch(self.part / 2 + Duration::from_secs(1));

        self.figures.exactly("agent killed: failed or delayed requests", self.load.disturbed(killed), 0);
        self.figures.at_least("agent killed: requests answered meanwhile", while_away, 1);
        self.figures.exactly("agent killed: open connections broken", held.broken().len(), 0);
        self.figures.exactly("agent killed: open connections that changed backend", held.moved(), 0);
        self.figures.exactly("agent restarted: took over the data plane", yes_or_no(adopted), "yes");
        self.figures.within("agent restarted: until it answers", Some(took), TAKE_OVER);
        Ok(())
    }

    fn watch(&mut self, time: Duration) {
        self.stage.watch(&self.load, &mut self.screen, time);
    }
}

/// Flows that the data plane remembers of a backend, as the command line tells.
fn flows_of(agent: &Agent, service: &str, address: SocketAddr) -> String {
    let row = agent.backend(service, address).ok();
    row.and_then(|row| row["flows"].as_u64()).map_or_else(|| "?".to_owned(), |flows| flows.to_string())
}

/// New connections that a backend was given after `from`.
fn late_connections(load: &AllLoad, service: &str, backend: &str, from: Instant) -> Result<usize> {
    let records = load.of(service).context("there is load on it")?.records();
    let late = |record: &&harness::load::Record| record.begun > from && record.backend() == Some(backend);
    Ok(records.iter().filter(late).count())
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
