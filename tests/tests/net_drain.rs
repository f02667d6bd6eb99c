//! A drain with connections that last: it waits for every one of them, and harms none, in every mode and on both IP
//! versions.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{
    agent::{Agent, Setup},
    config::HTTP_HEALTH,
    load::{Load, Plan},
    long_lived::LongLived,
    process::Process,
    servers::Server,
    topology::Topology,
    wait::{wait_for, wait_until},
    ways::{self, WAYS, Way},
};

const UP_WITHIN: Duration = Duration::from_secs(15);

/// Connections of every service, b1 of which is to be drained. What is dropped first comes first.
struct Crowd {
    open: Vec<(Way, LongLived)>,
    agent: Agent,
    _servers: Vec<Server>,
    net: Topology,
}

impl Crowd {
    fn gather() -> Result<Self> {
        let net = Topology::one_arm(2)?;
        let servers = ways::serve_http(&net)?;
        let file = ways::sections(&net, HTTP_HEALTH, "");
        let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(&file))?;
        agent.wait_until_all_up(UP_WITHIN)?;
        let open = |way: Way| {
            let open = LongLived::open(&net.client.netns, way.target(&net), 24, Duration::from_millis(50))?;
            ensure!(open.by_backend().get("b1").is_some_and(|count| *count > 2), "{:?}", open.by_backend());
            Ok((way, open))
        };
        let open = WAYS.into_iter().map(open).collect::<Result<_>>()?;
        Ok(Self { open, agent, _servers: servers, net })
    }

    /// Starts draining b1 of every service, and waits until it is.
    fn drain(&self, timeout: &str) -> Result<Vec<Process>> {
        let drain = |way: &Way| {
            let backend = way.backend(&self.net.backends[0]).to_string();
            let args = ["backend", "drain", way.name, &backend, "--wait", "--timeout", timeout];
            Process::spawn(self.agent.command(&args), way.name)
        };
        let waiting = WAYS.iter().map(drain).collect::<Result<_>>()?;
        for way in &WAYS {
            wait_until("it is draining", UP_WITHIN, || {
                self.b1(way).is_ok_and(|row| row["admin_state"] == "draining")
            })?;
        }
        Ok(waiting)
    }

    fn b1(&self, way: &Way) -> Result<serde_json::Value> {
        self.agent.backend(way.name, way.backend(&self.net.backends[0]))
    }

    /// Flows that b1 of every service has been given since it was made.
    fn flows_begun(&self) -> Result<Vec<u64>> {
        let begun = |way: &Way| self.b1(way)?["totals"]["flows"].as_u64().context("flows begun");
        WAYS.iter().map(begun).collect()
    }

    /// Closes connections with b1 until each service has `left`, and waits until the agent knows.
    fn close_down_to(&mut self, left: usize) -> Result<()> {
        for (way, open) in &mut self.open {
            let closing = open.by_backend()["b1"] - left;
            ensure!(open.close_some("b1", closing) == closing, "{}: {:?}", way.name, open.states());
        }
        for way in &WAYS {
            wait_for("the agent knows", UP_WITHIN, || {
                let row = self.b1(way)?;
                ensure!(row["flows"] == left, "{left} are left, not {}", row["flows"]);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Every connection that was not closed is still answered by the backend that it was opened with.
    fn all_answer(&self) -> Result<()> {
        for (way, open) in &self.open {
            open.all_ask_again(UP_WITHIN).with_context(|| way.name)?;
            ensure!(open.broken().is_empty() && open.moved() == 0, "{}: {:?}", way.name, open.broken());
        }
        Ok(())
    }
}

/// New connections to every service, one after the other.
fn load_on_every_service(net: &Topology) -> Vec<(Way, Load)> {
    let plan = |way: Way| Plan::http(way.target(net)).workers(1).pause(Duration::from_millis(10));
    WAYS.into_iter().map(|way| (way, Load::start(&net.client.netns, plan(way)))).collect()
}

/// `--wait` goes on while a connection is left, ends with 0 soon after the last is closed, and meanwhile no connection
/// breaks and no new one reaches the backend.
#[test]
fn a_drain_ends_with_the_last_connection_and_gives_the_backend_no_new_one() -> Result<()> {
    let mut crowd = Crowd::gather()?;
    let mut drains = crowd.drain("60s")?;
    let begun = crowd.flows_begun()?;
    let loads = load_on_every_service(&crowd.net);
    for left in [2, 1] {
        crowd.close_down_to(left)?;
        crowd.all_answer()?;
        for drain in &mut drains {
            ensure!(drain.exit_status().is_none(), "{left} are left, and it says {}", drain.log());
        }
    }
    crowd.close_down_to(0)?;
    for drain in &mut drains {
        let status = drain.wait(UP_WITHIN)?;
        ensure!(status.code() == Some(0), "{status}: {}", drain.log());
        ensure!(drain.log().contains("has no flows left"), "{}", drain.log());
    }
    crowd.all_answer()?;
    for (way, load) in loads {
        let summary = load.stop();
        let by_b2 = summary.answered_by("b2");
        ensure!(summary.failed == 0 && by_b2 == summary.requests && by_b2 > 50, "{}: {summary}", way.name);
    }
    ensure!(crowd.flows_begun()? == begun, "{begun:?} -> {:?}", crowd.flows_begun()?);
    Ok(())
}

/// At its deadline a drain ends with 1 and says how many connections are left. They are answered as before, by the backend
/// that goes on draining.
#[test]
fn a_drain_that_is_overdue_fails_and_leaves_the_connections_alone() -> Result<()> {
    let crowd = Crowd::gather()?;
    for (drain, (way, open)) in crowd.drain("1s")?.iter_mut().zip(&crowd.open) {
        let status = drain.wait(UP_WITHIN)?;
        let left = format!("has {} flows left after 1s", open.by_backend()["b1"]);
        ensure!(status.code() == Some(1), "{}: {status}: {}", way.name, drain.log());
        ensure!(drain.log().contains(&left), "{}: not {left:?}: {}", way.name, drain.log());
    }
    crowd.all_answer()?;
    for way in &WAYS {
        let row = crowd.b1(way)?;
        ensure!(row["admin_state"] == "draining" && row["active"] == false, "{row}");
    }
    Ok(())
}
