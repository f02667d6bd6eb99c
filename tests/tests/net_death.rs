//! Backends and agents that die under load: each mode, both IP versions, TCP and UDP at once.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use harness::{
    agent::{Agent, Setup},
    config::{HTTP_HEALTH, service},
    load::{Load, Plan},
    long_lived::LongLived,
    servers::Server,
    topology::Topology,
    wait::wait_until,
};

const UP_WITHIN: Duration = Duration::from_secs(15);
/// fall × interval + timeout, see [`HTTP_HEALTH`].
const DETECTED_WITHIN: Duration = Duration::from_millis(800);
/// What a busy machine of two cores takes to run whoever has something to do.
const SCHEDULING: Duration = Duration::from_millis(300);
/// A retransmitted SYN comes after a second: a request that took so long has lost a packet.
const LOST_A_PACKET: Duration = Duration::from_millis(900);

/// A service under load.
struct Loaded {
    name: &'static str,
    load: Load,
}

/// Three backends with servers for every service, an agent, and load on all of it.
struct Scene {
    net: Topology,
    servers: Vec<Server>,
    agent: Agent,
    ways: Vec<(&'static str, SocketAddr, bool)>,
}

impl Scene {
    fn new() -> Result<Self> {
        let net = Topology::one_arm(3)?;
        let (nat, dsr) = (net.service, net.dsr_service);
        let ways = vec![
            ("nat4", nat.v4(80), false),
            ("nat6", nat.v6(80), false),
            ("dsr4", dsr.v4(80), false),
            ("dsr6", dsr.v6(80), false),
            ("udp4", nat.v4(53), true),
            ("udp6", nat.v6(53), true),
        ];
        let mut servers = net.serve_http(8080)?;
        servers.extend(net.serve_http(80)?);
        servers.extend(net.serve_udp_echo(5300)?);
        let services: String = ways.iter().map(|(name, target, _)| entry(&net, name, *target)).collect();
        let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(&services))?;
        agent.wait_until_all_up(UP_WITHIN)?;
        Ok(Self { net, servers, agent, ways })
    }

    fn load(&self) -> Vec<Loaded> {
        let start = |(name, target, udp): &(&'static str, SocketAddr, bool)| {
            let plan = if *udp { Plan::udp(*target) } else { Plan::http(*target) };
            let plan = plan.workers(2).pause(Duration::from_millis(10));
            Loaded { name, load: Load::start(&self.net.client.netns, plan) }
        };
        self.ways.iter().map(start).collect()
    }

    /// The first backend, as `backend list` has it of each service: how many say so.
    fn services_that_call_the_first(&self, health: &str) -> usize {
        let rows = self.agent.cli_json(&["backend", "list"]).unwrap_or_default();
        let first = self.net.backends[0].addresses.both().map(|address| address.to_string());
        let is_first = |row: &&serde_json::Value| {
            first.iter().any(|address| row["address"] == address.as_str()) && row["health"] == health
        };
        rows.as_array().map_or(0, |rows| rows.iter().filter(is_first).count())
    }
}

/// A service in the mode that its name says; datagrams are probed by the web server beside them.
fn entry(net: &Topology, name: &str, target: SocketAddr) -> String {
    let (mode, protocol, port) = match name.split_at(3).0 {
        "nat" => ("full-nat", "tcp", 8080),
        "dsr" => ("dsr", "tcp", 80),
        _ => ("full-nat", "udp", 5300),
    };
    let backends: Vec<_> = net
        .backends
        .iter()
        .map(|host| if target.is_ipv4() { host.addresses.v4(port) } else { host.addresses.v6(port) })
        .collect();
    let health = HTTP_HEALTH.replace(" }", if protocol == "udp" { ", port = 8080 }" } else { " }" });
    service(name, target, protocol, mode, &health, &backends)
}

/// What begins after the bound never meets the dead backend; what begins while it comes back never fails.
fn fails_over(
    scene: &mut Scene,
    kill: fn(&mut Scene) -> Result<()>,
    revive: fn(&mut Scene) -> Result<()>,
) -> Result<()> {
    let loads = scene.load();
    thread::sleep(Duration::from_secs(1));
    let killed = Instant::now();
    kill(scene)?;
    wait_until("every service says that it is down", UP_WITHIN, || {
        scene.services_that_call_the_first("down") == scene.ways.len()
    })?;
    thread::sleep(Duration::from_secs(2));
    for Loaded { name, load } in &loads {
        let last = load.last_disturbed(killed, LOST_A_PACKET);
        let last = last.map(|record| record.begun - killed).unwrap_or_default();
        ensure!(
            last <= DETECTED_WITHIN + SCHEDULING,
            "{name}: still failing after {last:?}\n{}",
            scene.agent.log()
        );
    }
    let back = Instant::now();
    revive(scene)?;
    wait_until("every service says that it is up", UP_WITHIN, || {
        scene.services_that_call_the_first("up") == scene.ways.len()
    })?;
    thread::sleep(Duration::from_secs(1));
    for Loaded { name, load } in loads {
        ensure!(
            load.disturbed(back, LOST_A_PACKET) == 0,
            "{name}: {}\n{}",
            load.snapshot(),
            scene.agent.log()
        );
        let summary = load.stop();
        ensure!(summary.answered() > 50, "{name}: {summary}");
    }
    Ok(())
}

/// Its ports are closed: connections are refused at once.
#[test]
fn a_backend_whose_servers_die_is_left_within_the_bound() -> Result<()> {
    let kill = |scene: &mut Scene| {
        scene.servers.iter_mut().filter(|server| server.name() == "b1").for_each(Server::stop);
        Ok(())
    };
    let revive = |scene: &mut Scene| {
        scene.servers.iter_mut().filter(|server| server.name() == "b1").try_for_each(Server::start)
    };
    fails_over(&mut Scene::new()?, kill, revive)
}

/// It is cut off: what is sent to it vanishes, and only time-outs tell.
#[test]
fn a_backend_that_falls_silent_is_left_within_the_bound() -> Result<()> {
    fails_over(&mut Scene::new()?, |scene| scene.net.freeze(0), |scene| scene.net.thaw(0))
}

/// Nothing fails, no packet is lost, no connection breaks or moves.
#[test]
fn an_agent_that_is_killed_and_started_again_costs_no_packet() -> Result<()> {
    let mut scene = Scene::new()?;
    let loads = scene.load();
    let every = Duration::from_millis(100);
    let open = scene
        .ways
        .iter()
        .filter(|(_, _, udp)| !udp)
        .map(|(_, target, _)| LongLived::open(&scene.net.client.netns, *target, 10, every))
        .collect::<Result<Vec<_>>>()?;
    thread::sleep(Duration::from_secs(1));
    let killed = Instant::now();
    for _ in 0..2 {
        scene.agent.kill9();
        thread::sleep(Duration::from_secs(1));
        scene.agent.restart()?;
        thread::sleep(Duration::from_secs(2));
    }
    let status = scene.agent.cli_json(&["status"])?;
    ensure!(status["agent"]["adopted"] == true && status["findings"] == serde_json::json!([]), "{status}");
    for service in status["services"].as_array().into_iter().flatten() {
        ensure!(service["backends_up"] == 3 && service["backends"] == 3, "{service}");
    }
    for open in open {
        ensure!(open.broken().is_empty() && open.moved() == 0, "{:?}\n{}", open.broken(), scene.agent.log());
    }
    for Loaded { name, load } in loads {
        ensure!(
            load.disturbed(killed, LOST_A_PACKET) == 0,
            "{name}: {}\n{}",
            load.snapshot(),
            scene.agent.log()
        );
        let summary = load.stop();
        ensure!(summary.failed == 0 && summary.answered() > 200, "{name}: {summary}");
    }
    Ok(())
}
