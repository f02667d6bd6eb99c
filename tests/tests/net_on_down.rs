//! What becomes of connections to a backend whose probes fail although it goes on serving: they stay, go elsewhere or are
//! reset, as their service says, in every mode and on both IP versions.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use harness::{
    agent::{Agent, Setup},
    config::HTTP_HEALTH,
    http::{self, Connection},
    long_lived::{LongLived, State},
    netns::Namespace,
    servers::Server,
    topology::{Host, Topology},
    wait::wait_for,
    ways::{self, WAYS, Way},
};
use serde_json::Value;

const UP_WITHIN: Duration = Duration::from_secs(15);
/// No answer for so long is a failure.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Connections of each service, of which each backend has some.
const CONNECTIONS: usize = 24;
/// Every connection asks so often.
const EVERY: Duration = Duration::from_millis(50);
/// From the verdict to the last client that knows: each asks many times in it.
const RESET_WITHIN: Duration = Duration::from_secs(3);
/// From a client's RST to an answer on a new connection: less than the first retransmission of a SYN, so that none was lost.
const RECONNECTED_WITHIN: Duration = Duration::from_secs(1);

/// A backend that will be down (b1), and another. What is dropped first comes first.
struct Stage {
    agent: Agent,
    servers: Vec<Server>,
    net: Topology,
}

impl Stage {
    fn set(on_down: &str) -> Result<Self> {
        let net = Topology::one_arm(2)?;
        let servers = ways::serve_http(&net)?;
        let file = ways::sections(&net, HTTP_HEALTH, &format!("on_down = \"{on_down}\""));
        let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(&file))?;
        agent.wait_until_all_up(UP_WITHIN)?;
        Ok(Self { agent, servers, net })
    }

    /// Connections of every service, of which both backends have some.
    fn open(&self) -> Result<Vec<(Way, LongLived)>> {
        let open = |way: Way| {
            let open = LongLived::open(&self.net.client.netns, way.target(&self.net), CONNECTIONS, EVERY)?;
            ensure!(open.by_backend().len() == 2, "{}: {:?}", way.name, open.by_backend());
            Ok((way, open))
        };
        WAYS.into_iter().map(open).collect()
    }

    /// Probes of b1 fail from now on; waits until the agent says `down` for every service, and gives when it first did.
    fn fail_b1(&self) -> Result<BTreeMap<&'static str, Instant>> {
        self.servers
            .iter()
            .filter(|server| server.name() == "b1")
            .for_each(|server| server.set_healthy(false));
        let mut down = BTreeMap::new();
        wait_for("b1 is down everywhere", UP_WITHIN, || {
            let rows = self.agent.cli_json(&["backend", "list"])?;
            let rows = rows.as_array().context("backend list is no array")?;
            for way in WAYS.iter().filter(|way| rows.iter().any(|row| self.is_b1_down(way, row))) {
                down.entry(way.name).or_insert_with(Instant::now);
            }
            ensure!(down.len() == WAYS.len(), "{rows:?}");
            Ok(())
        })?;
        Ok(down)
    }

    fn is_b1_down(&self, way: &Way, row: &Value) -> bool {
        let address = way.backend(&self.net.backends[0]).ip().to_string();
        row["service"] == way.name && row["address"] == address && row["health"] == "down"
    }

    /// RSTs that the balancer has answered with.
    fn resets_by_balancer(&self) -> Result<u64> {
        let stats = self.agent.cli_json(&["stats"])?;
        let reasons = stats["reasons"].as_array().context("reasons")?;
        let of_it = reasons.iter().filter(|row| row["reason"] == "backend_reset");
        Ok(of_it.filter_map(|row| row["packets"].as_u64()).sum())
    }

    /// New connections are made, and all by b2.
    fn new_ones_go_to_b2(&self, way: Way) -> Result<()> {
        let target = way.target(&self.net);
        for _ in 0..CONNECTIONS {
            let answer = self.net.client.netns.run_in(|| http::get(target, "/", TIMEOUT))?;
            ensure!(answer.backend == "b2", "{}: {} got a new connection", way.name, answer.backend);
        }
        Ok(())
    }
}

/// RSTs that a host's kernel has sent, of both IP versions.
fn resets_by(host: &Host) -> Result<u64> {
    // The thread's own: the process is in another namespace.
    let text = host.netns.run_in(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "OutRsts");
    Ok(found.context("OutRsts")?.1.parse()?)
}

/// With `keep` connections to a backend that is down are answered by it as before, and new ones go elsewhere.
#[test]
fn connections_to_a_dead_backend_go_on_being_answered_by_default() -> Result<()> {
    let stage = Stage::set("keep")?;
    let open = stage.open()?;
    let before: Vec<_> = open.iter().map(|(_, open)| open.by_backend()).collect();
    stage.fail_b1()?;
    for ((way, open), before) in open.iter().zip(before) {
        open.all_ask_again(UP_WITHIN).with_context(|| way.name)?;
        ensure!(open.broken().is_empty() && open.moved() == 0, "{}: {:?}", way.name, open.broken());
        ensure!(open.by_backend() == before, "{}: {before:?} -> {:?}", way.name, open.by_backend());
        stage.new_ones_go_to_b2(*way)?;
    }
    ensure!(stage.resets_by_balancer()? == 0);
    Ok(())
}

/// With `rehash` every connection to a backend that is down is broken by a RST of the other backend's kernel, which knows
/// nothing of it: neither the balancer nor the dead backend has sent one.
#[test]
fn connections_to_a_dead_backend_are_reset_by_the_other_one_where_they_go_elsewhere() -> Result<()> {
    let stage = Stage::set("rehash")?;
    let open = stage.open()?;
    let [b1, b2] = [0, 1].map(|at| &stage.net.backends[at]);
    let before = (resets_by(b1)?, resets_by(b2)?);
    stage.fail_b1()?;
    let mut moved = 0;
    for (way, open) in &open {
        let is_on_b1 = |state: &&State| state.backend == "b1";
        wait_for("the connections of b1 are broken", UP_WITHIN, || {
            let left = open.by_backend();
            ensure!(!left.contains_key("b1"), "{}: {left:?}", way.name);
            Ok(())
        })?;
        let states = open.states();
        let (on_b1, broken) = (states.iter().filter(is_on_b1).count(), open.broken());
        ensure!(broken.len() == on_b1 && open.moved() == 0, "{}: {on_b1} on b1, {broken:?}", way.name);
        ensure!(broken.iter().all(|why| why.contains("reset")), "{}: {broken:?}", way.name);
        open.all_ask_again(UP_WITHIN).with_context(|| way.name)?;
        stage.new_ones_go_to_b2(*way)?;
        moved += on_b1 as u64;
    }
    let after = (resets_by(b1)?, resets_by(b2)?);
    ensure!(after.0 == before.0, "b1 has sent {} RSTs", after.0 - before.0);
    ensure!(after.1 >= before.1 + moved, "{moved} went to b2, which sent {} RSTs", after.1 - before.1);
    ensure!(stage.resets_by_balancer()? == 0);
    Ok(())
}

/// What a client of the dead backend has met with.
struct Reconnected {
    way: Way,
    /// What its connection broke by, and when.
    broken: (String, Instant),
    /// Who answered on a new one, and when.
    answered: (String, Instant),
}

/// Asks until the connection breaks, then on a new one at once.
fn ask_until_broken(way: Way, target: SocketAddr, mut connection: Connection) -> Result<Reconnected> {
    let deadline = Instant::now() + UP_WITHIN;
    let broken = loop {
        match connection.get("/") {
            Ok(_) => thread::sleep(EVERY),
            Err(error) => break (format!("{error:#}"), Instant::now()),
        }
        ensure!(Instant::now() < deadline, "{}: it was never reset", way.name);
    };
    let answer = http::get(target, "/", TIMEOUT).with_context(|| format!("{}: connect again", way.name))?;
    Ok(Reconnected { way, broken, answered: (answer.backend, Instant::now()) })
}

/// Connections to b1 of one service, each with a client that asks all the time.
fn clients_of_b1(net: &Topology, way: Way, results: &Sender<Result<Reconnected>>) -> Result<usize> {
    let (netns, target) = (&net.client.netns, way.target(net));
    let connections =
        netns.run_in(|| (0..CONNECTIONS).map(|_| open_on_b1(target)).collect::<Result<Vec<_>>>())?;
    let on_b1: Vec<_> = connections.into_iter().flatten().collect();
    ensure!(!on_b1.is_empty(), "{}: b1 has none of {CONNECTIONS} connections", way.name);
    let count = on_b1.len();
    for connection in on_b1 {
        ask_in_thread(netns, way, target, connection, results.clone());
    }
    Ok(count)
}

/// A connection, if it is b1 that answers on it.
fn open_on_b1(target: SocketAddr) -> Result<Option<Connection>> {
    let mut connection = Connection::open(target, TIMEOUT)?;
    let answer = connection.get("/")?;
    Ok((answer.backend == "b1").then_some(connection))
}

fn ask_in_thread(
    netns: &Namespace,
    way: Way,
    target: SocketAddr,
    connection: Connection,
    results: Sender<Result<Reconnected>>,
) {
    netns.spawn_thread("client", move || {
        // Nobody listens any more where the test has failed.
        let _ = results.send(ask_until_broken(way, target, connection));
    });
}

fn next(results: &Receiver<Result<Reconnected>>) -> Result<Reconnected> {
    results.recv_timeout(UP_WITHIN).context("a client has not finished")?
}

/// With `reset` every client of a backend that is down sees a RST soon after the verdict, and a new connection is answered
/// by the other backend at once; the balancer counts a RST for each.
#[test]
fn clients_of_a_dead_backend_are_reset_and_connect_again_at_once_where_that_is_asked_for() -> Result<()> {
    let stage = Stage::set("reset")?;
    let (sender, results) = mpsc::channel();
    let mut clients = 0;
    for way in WAYS {
        clients += clients_of_b1(&stage.net, way, &sender)?;
    }
    let down = stage.fail_b1()?;
    let mut last = Duration::ZERO;
    for _ in 0..clients {
        let Reconnected { way, broken: (why, broken), answered: (backend, answered) } = next(&results)?;
        ensure!(why.contains("reset"), "{}: {why}", way.name);
        ensure!(backend == "b2", "{}: {backend} got a new connection", way.name);
        let took = answered - broken;
        ensure!(took < RECONNECTED_WITHIN, "{}: connecting again took {took:?}", way.name);
        last = last.max(answered.saturating_duration_since(down[way.name]));
    }
    println!("{clients} clients connected again within {last:?}");
    ensure!(last < RESET_WITHIN, "the last of {clients} clients connected again after {last:?}");
    let counted = stage.resets_by_balancer()?;
    ensure!(counted >= clients as u64, "{clients} clients were reset, {counted} RSTs were counted");
    Ok(())
}
