//! A flow that has begun stays where it is: thousands of connections, held open through everything that operators do.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use harness::{
    agent::{Agent, Setup},
    config::HTTP_HEALTH,
    long_lived::{LongLived, State},
    servers::Server,
    topology::{Host, Topology},
    wait::wait_for,
};

const UP_WITHIN: Duration = Duration::from_secs(15);
/// Connections are opened in groups of so many, so that no queue of a listener is full.
const GROUP: usize = 125;
/// Every connection asks so often.
const EVERY: Duration = Duration::from_millis(1500);
/// Backends that services begin with; those after them come and go.
const FIRST: usize = 4;
/// The one whose server is killed.
const KILLED: &str = "b3";
/// The one that is taken out of a service with its connections.
const REMOVED: &str = "b4";

/// A service with connections.
struct Crowd {
    name: &'static str,
    mode: &'static str,
    v6: bool,
    /// Declared in the file, else made on the command line.
    in_file: bool,
    connections: usize,
}

const CROWDS: [Crowd; 4] = [
    Crowd { name: "nat4", mode: "full-nat", v6: false, in_file: true, connections: 1000 },
    Crowd { name: "nat6", mode: "full-nat", v6: true, in_file: false, connections: 500 },
    Crowd { name: "dsr4", mode: "dsr", v6: false, in_file: false, connections: 250 },
    Crowd { name: "dsr6", mode: "dsr", v6: true, in_file: true, connections: 250 },
];

impl Crowd {
    fn address(&self, net: &Topology) -> SocketAddr {
        let addresses = if self.mode == "dsr" { net.dsr_service } else { net.service };
        if self.v6 { addresses.v6(80) } else { addresses.v4(80) }
    }

    /// A backend of it, as the command line and the file name it.
    fn backend(&self, host: &Host) -> SocketAddr {
        let port = if self.mode == "dsr" { 80 } else { 8080 };
        if self.v6 { host.addresses.v6(port) } else { host.addresses.v4(port) }
    }

    /// Its section of the file, in the `round`-th edition: weights differ, and a fifth and a sixth backend come and go.
    fn section(&self, net: &Topology, round: usize) -> String {
        let address = self.address(net);
        let mut text = format!(
            "[[service]]\nname = \"{}\"\naddress = \"{}\"\nport = 80\nprotocol = \"tcp\"\nmode = \"{}\"\n\
             idle_timeout = \"{}s\"\nhealth = {HTTP_HEALTH}\n",
            self.name,
            address.ip(),
            self.mode,
            60 + round % 7
        );
        for (n, host) in net.backends.iter().enumerate().take(FIRST + round % 3) {
            let backend = self.backend(host);
            let weight = 10 + (round * (n + 3)) % 40;
            let _ = writeln!(
                text,
                "[[service.backend]]\naddress = \"{}\"\nport = {}\nweight = {weight}",
                backend.ip(),
                backend.port()
            );
        }
        text
    }

    fn add(&self, net: &Topology, agent: &Agent) -> Result<()> {
        let address = self.address(net).ip().to_string();
        let probe = ["--health-type", "http", "--health-path", "/healthz", "--health-interval", "200ms"];
        let service =
            ["service", "add", self.name, "--address", &address, "--port", "80", "--protocol", "tcp"];
        agent
            .cli_ok(&[&service[..], &["--mode", self.mode, "--health-timeout", "200ms"], &probe].concat())?;
        for host in &net.backends[..FIRST] {
            agent.cli_ok(&["backend", "add", self.name, &self.backend(host).to_string()])?;
        }
        Ok(())
    }
}

fn file(net: &Topology, round: usize) -> String {
    CROWDS.iter().filter(|crowd| crowd.in_file).map(|crowd| crowd.section(net, round)).collect()
}

/// The connections, and what they run through.
struct Stage {
    net: Topology,
    servers: Vec<Server>,
    agent: Agent,
    open: Vec<(&'static Crowd, LongLived)>,
}

impl Stage {
    fn set() -> Result<Self> {
        let net = Topology::one_arm(FIRST + 2)?;
        let mut servers = net.serve_http(8080)?;
        servers.extend(net.serve_http(80)?);
        let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(&file(&net, 0)))?;
        for crowd in CROWDS.iter().filter(|crowd| !crowd.in_file) {
            crowd.add(&net, &agent)?;
        }
        agent.wait_until_all_up(UP_WITHIN)?;
        let mut open = Vec::new();
        for crowd in &CROWDS {
            for _ in 0..crowd.connections / GROUP {
                let group = LongLived::open(&net.client.netns, crowd.address(&net), GROUP, EVERY)?;
                open.push((crowd, group));
            }
        }
        Ok(Self { net, servers, agent, open })
    }

    /// Runs the same command for a backend of every service, or of those that the command line has made.
    fn everywhere(&self, all: bool, verb: &str, host: usize, options: &[&str]) -> Result<()> {
        for crowd in CROWDS.iter().filter(|crowd| all || !crowd.in_file) {
            let backend = crowd.backend(&self.net.backends[host]).to_string();
            self.agent.cli_ok(&[&["backend", verb, crowd.name, &backend], options].concat())?;
        }
        Ok(())
    }

    fn states(&self) -> impl Iterator<Item = (&'static Crowd, State)> {
        self.open.iter().flat_map(|(crowd, group)| group.states().into_iter().map(|state| (*crowd, state)))
    }

    /// No connection has moved, and none is broken but where `may` says so.
    fn check(&self, when: &str, may: impl Fn(&Crowd, &State) -> bool) -> Result<()> {
        let wrong =
            |(crowd, state): &(&Crowd, State)| state.moved || state.broken.is_some() && !may(crowd, state);
        let wrong: Vec<_> = self.states().filter(wrong).map(|(crowd, state)| (crowd.name, state)).collect();
        let first = &wrong[..wrong.len().min(3)];
        ensure!(wrong.is_empty(), "{when}: {} connections: {first:?}\n{}", wrong.len(), self.agent.log());
        Ok(())
    }

    /// Waits until every connection that is open has been answered once more, so that what a change has done shows.
    fn all_ask_again(&self, when: &str) -> Result<()> {
        let asked = Instant::now();
        let before: Vec<u64> = self.states().map(|(_, state)| state.answers).collect();
        wait_for("every connection asks again", UP_WITHIN, || {
            let silent = self
                .states()
                .zip(&before)
                .filter(|((_, state), before)| state.broken.is_none() && state.answers <= **before)
                .count();
            ensure!(silent == 0, "{when}: {silent} connections have said nothing for {:?}", asked.elapsed());
            Ok(())
        })
    }

    fn flows(&self) -> Result<u64> {
        let rows = self.agent.cli_json(&["backend", "list"])?;
        let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(rows.iter().filter_map(|row| row["flows"].as_u64()).sum())
    }
}

fn unbroken(_: &Crowd, _: &State) -> bool {
    false
}

#[test]
fn two_thousand_connections_stay_through_everything_that_operators_do() -> Result<()> {
    let mut stage = Stage::set()?;
    let connections: usize = CROWDS.iter().map(|crowd| crowd.connections).sum();
    ensure!(stage.states().count() == connections, "{} are open", stage.states().count());
    let flows = stage.flows()?;
    ensure!(flows >= connections as u64, "the tables remember {flows} flows of {connections}");

    backends_come_drain_and_go(&stage)?;
    fifty_reloads(&stage)?;
    a_server_dies_and_comes_back(&mut stage)?;
    a_backend_is_removed_with_its_connections(&stage)?;

    let mut whole: BTreeMap<_, usize> = BTreeMap::new();
    for (crowd, state) in stage.states().filter(|(_, state)| state.broken.is_none()) {
        *whole.entry((crowd.name, state.backend)).or_default() += 1;
    }
    println!("whole at the end: {whole:?}");
    // Of four backends one was killed everywhere, and one removed from two services.
    ensure!(whole.values().sum::<usize>() > connections / 2, "{whole:?}");
    Ok(())
}

fn backends_come_drain_and_go(stage: &Stage) -> Result<()> {
    stage.everywhere(false, "add", FIRST, &["--weight", "30"])?;
    stage.agent.wait_until_all_up(UP_WITHIN)?;
    stage.everywhere(true, "drain", 0, &[])?;
    stage.all_ask_again("one is draining, one was added")?;
    stage.everywhere(true, "enable", 0, &[])?;
    for weight in ["1000", "1", "0", "25"] {
        stage.everywhere(true, "set", 1, &["--weight", weight])?;
        stage.everywhere(true, "set", 2, &["--weight", "500"])?;
    }
    // No connection has been opened since it came: it has none to lose.
    stage.everywhere(false, "remove", FIRST, &[])?;
    stage.everywhere(true, "reset", 1, &[])?;
    stage.everywhere(true, "reset", 2, &[])?;
    stage.all_ask_again("backends came and went")?;
    stage.check("backends came, drained and went", unbroken)
}

fn fifty_reloads(stage: &Stage) -> Result<()> {
    for round in 1..=50 {
        stage.agent.write_file(&file(&stage.net, round))?;
        stage.agent.cli_ok(&["config", "reload"])?;
        thread::sleep(Duration::from_millis(50));
    }
    stage.agent.write_file(&file(&stage.net, 0))?;
    stage.agent.cli_ok(&["config", "reload"])?;
    stage.agent.wait_until_all_up(UP_WITHIN)?;
    stage.all_ask_again("fifty reloads")?;
    stage.check("fifty reloads", unbroken)
}

/// A killed process' kernel resets its connections; the other backends' know nothing of it.
fn a_server_dies_and_comes_back(stage: &mut Stage) -> Result<()> {
    for server in stage.servers.iter_mut().filter(|server| server.name() == KILLED) {
        server.stop();
    }
    let active = |agent: &Agent, wanted: usize| {
        wait_for("health has seen it", UP_WITHIN, || {
            let rows = agent.cli_json(&["backend", "list"])?;
            let active =
                rows.as_array().map_or(0, |rows| rows.iter().filter(|row| row["active"] == true).count());
            ensure!(active == wanted, "{active} backends are active");
            Ok(())
        })
    };
    active(&stage.agent, CROWDS.len() * (FIRST - 1))?;
    stage.all_ask_again("a server is dead")?;
    for server in stage.servers.iter_mut().filter(|server| server.name() == KILLED) {
        server.start()?;
    }
    active(&stage.agent, CROWDS.len() * FIRST)?;
    stage.all_ask_again("the server is back")?;
    stage.check("a server was killed", |_, state| state.backend == KILLED)
}

fn a_backend_is_removed_with_its_connections(stage: &Stage) -> Result<()> {
    stage.everywhere(false, "remove", FIRST - 1, &[])?;
    stage.all_ask_again("one is removed")?;
    let may =
        |crowd: &Crowd, state: &State| state.backend == KILLED || state.backend == REMOVED && !crowd.in_file;
    stage.check("a backend was removed", may)
}
