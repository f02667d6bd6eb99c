//! The schedulers beside maglev choose for real TCP connections, in every mode and on both IP versions.

use std::{collections::BTreeMap, net::SocketAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use harness::{
    agent::{Agent, Setup},
    config::NO_HEALTH,
    http::Connection,
    netns::Namespace,
    servers::Server,
    topology::Topology,
    wait::wait_for,
    ways::{self, WAYS, Way},
};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

const UP_WITHIN: Duration = Duration::from_secs(15);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Flows are counted twice a second.
const RECOUNTED: Duration = Duration::from_millis(700);

/// What is dropped first comes first.
struct Stage {
    agent: Agent,
    _servers: Vec<Server>,
    net: Topology,
}

impl Stage {
    /// A service for every way without probes, which would send packets at any moment.
    fn set(backends: usize, scheduler: &str) -> Result<Self> {
        let net = Topology::one_arm(backends)?;
        let servers = ways::serve_http(&net)?;
        let file = ways::sections(&net, NO_HEALTH, &format!("scheduler = \"{scheduler}\""));
        // Connections here say nothing for as long as they are held.
        let file = file.replace("idle_timeout = \"10s\"", "idle_timeout = \"5m\"");
        let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(&file))?;
        agent.wait_until_all_up(UP_WITHIN)?;
        Ok(Self { agent, _servers: servers, net })
    }

    fn set_weights(&self, way: &Way, weights: &[u32]) -> Result<()> {
        let backends = self.net.backends.iter().zip(weights);
        let set: Vec<_> = backends.map(|(host, weight)| format!("{}={weight}", way.backend(host))).collect();
        let set: Vec<_> = set.iter().map(String::as_str).collect();
        self.agent.cli_ok(&[&["backend", "set", way.name], &set[..]].concat()).map(drop)
    }

    fn wait_for_flows_of_b1(&self, way: &Way, flows: usize) -> Result<()> {
        let b1 = way.backend(&self.net.backends[0]);
        wait_for("the others are forgotten", UP_WITHIN, || {
            let row = self.agent.backend(way.name, b1)?;
            ensure!(row["flows"] == flows, "{flows} are open: {row}");
            Ok(())
        })
    }

    fn open(&self, way: &Way, count: usize) -> Result<Open> {
        Open::new(&self.net.client.netns, way.target(&self.net), count)
    }
}

/// Open connections by backend.
#[derive(Default)]
struct Open(BTreeMap<String, Vec<Connection>>);

impl Open {
    /// Connects so often, one after the other, and only then asks who is at the other end.
    ///
    /// A connection is made by one thread on one CPU, servers included, until data is sent.
    fn new(netns: &Namespace, target: SocketAddr, count: usize) -> Result<Self> {
        netns.run_in(|| {
            stay_on_one_cpu()?;
            let connections: Vec<_> =
                (0..count).map(|_| Connection::open(target, TIMEOUT)).collect::<Result<_>>()?;
            let mut open = Self::default();
            for mut connection in connections {
                let backend = connection.get("/")?.backend;
                open.0.entry(backend).or_default().push(connection);
            }
            Ok(open)
        })
    }

    fn on(&self, backend: &str) -> usize {
        self.0.get(backend).map_or(0, Vec::len)
    }

    fn counts(&self) -> Vec<(&str, usize)> {
        self.0.iter().map(|(backend, open)| (backend.as_str(), open.len())).collect()
    }
}

/// Keeps this thread on a CPU that it may run on.
fn stay_on_one_cpu() -> Result<()> {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread)?;
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(first.context("no CPU is allowed")?)?;
    sched_setaffinity(this_thread, &one).context("stay on one CPU")
}

/// By weights 3, 2 and 1 of six connections three, two and one go to the backends, however many rounds there are. Every CPU
/// takes turns of its own, so clients stay on one; a packet that another CPU has taken after all costs one turn.
#[test]
fn round_robin_gives_each_backend_its_weight_in_every_round() -> Result<()> {
    const ROUNDS: usize = 20;
    let stage = Stage::set(3, "round-robin")?;
    for way in &WAYS {
        stage.set_weights(way, &[3, 2, 1])?;
        let open = stage.open(way, 6 * ROUNDS)?;
        for (backend, turns) in [("b1", 3), ("b2", 2), ("b3", 1)] {
            let wrong = open.on(backend).abs_diff(turns * ROUNDS);
            ensure!(wrong <= 1, "{}: {:?}", way.name, open.counts());
        }
    }
    Ok(())
}

/// With b1 far ahead it gets a new connection only where both candidates are b1, one of 16. Once its connections are closed
/// and the agent has counted again it is far behind, and gets one wherever a candidate is b1: 7 of 16. Counts that only
/// grow would keep it at one of 16.
#[test]
fn least_conn_spares_a_backend_with_many_connections_until_they_are_closed() -> Result<()> {
    const MANY: usize = 100;
    let stage = Stage::set(4, "least-conn")?;
    let (mut firsts, mut others) = (Vec::new(), Vec::new());
    for way in &WAYS {
        stage.set_weights(way, &[10, 0, 0, 0])?;
        let first = stage.open(way, MANY)?;
        ensure!(first.on("b1") == MANY, "{}: {:?}", way.name, first.counts());
        stage.set_weights(way, &[10, 10, 10, 10])?;
        let other = stage.open(way, 2 * MANY)?;
        // 12.5 are expected, of a scheduler that does not count 50.
        ensure!(other.on("b1") < 30, "{}: {:?}", way.name, other.counts());
        firsts.push(first);
        others.push(other);
    }
    drop(firsts);
    for (way, other) in WAYS.iter().zip(&others) {
        stage.wait_for_flows_of_b1(way, other.on("b1"))?;
    }
    thread::sleep(RECOUNTED);
    for (way, other) in WAYS.iter().zip(&others) {
        let new = stage.open(way, MANY)?;
        // 40 are expected, of counts that have not gone down 6.
        ensure!(new.on("b1") > 20, "{}: {:?} beside {:?}", way.name, new.counts(), other.counts());
    }
    Ok(())
}

/// All connections of a client's address meet one backend, whatever their ports, and many clients meet every backend.
#[test]
fn source_hash_keeps_a_client_s_address_with_one_backend() -> Result<()> {
    const CLIENTS: u8 = 32;
    let stage = Stage::set(3, "source-hash")?;
    let client = &stage.net.client;
    let hosts = || 150..150 + CLIENTS;
    for host in hosts() {
        client.add_address(&format!("10.10.0.{host}/24"))?;
        client.add_address(&format!("2001:db8:10::{host}/64"))?;
    }
    for way in &WAYS {
        let target = way.target(&stage.net);
        let mut clients: BTreeMap<String, usize> = BTreeMap::new();
        for host in hosts() {
            let prefix = if way.v6 { "2001:db8:10::" } else { "10.10.0." };
            let source = format!("{prefix}{host}").parse()?;
            let ask = || Connection::open_from(source, target, TIMEOUT)?.get_and_close("/");
            let answers = client.netns.run_in(|| (0..6).map(|_| ask()).collect::<Result<Vec<_>>>())?;
            let backend = &answers[0].backend;
            ensure!(answers.iter().all(|answer| answer.backend == *backend), "{source}: {answers:?}");
            *clients.entry(backend.clone()).or_default() += 1;
        }
        ensure!(clients.len() == 3, "{}: {clients:?}", way.name);
    }
    Ok(())
}
