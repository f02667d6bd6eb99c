//! Tunnels from end to end: the real balancer, the real decapsulator on each backend, and real clients; the service and
//! the way to its backends each of either IP version.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use harness::{
    agent::{Agent, Setup, binary},
    config::{NO_HEALTH, service},
    decapsulator,
    load::{Load, Plan},
    process::Process,
    servers::Server,
    shell,
    topology::{Host, Topology},
    wait::wait_until,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const UP_WITHIN: Duration = Duration::from_secs(15);
/// Two for each mode: a machine's decapsulator knows one.
const BACKENDS: usize = 4;

/// A service, and with it one way through a tunnel.
struct Way {
    name: String,
    mode: &'static str,
    target: SocketAddr,
    /// Whether backends are of the other IP version.
    crosses: bool,
}

/// Each mode, service version and backend version, at a port of its own from `port` on.
fn ways(net: &Topology, port: u16) -> Vec<Way> {
    let mut ways = Vec::new();
    for (n, (mode, crosses)) in
        [("ipip", false), ("ipip", true), ("gue", false), ("gue", true)].into_iter().enumerate()
    {
        for target in [net.dsr_service.v4(port + n as u16), net.dsr_service.v6(port + n as u16)] {
            let version = |v4: bool| if v4 { 4 } else { 6 };
            let (inner, outer) = (version(target.is_ipv4()), version(target.is_ipv4() != crosses));
            ways.push(Way { name: format!("{mode}-{inner}-in-{outer}"), mode, target, crosses });
        }
    }
    ways
}

impl Way {
    fn hosts<'a>(&self, net: &'a Topology) -> &'a [Host] {
        let half = net.backends.len() / 2;
        if self.mode == "ipip" { &net.backends[..half] } else { &net.backends[half..] }
    }

    fn section(&self, net: &Topology, protocol: &str) -> String {
        let is_v4 = self.target.is_ipv4() != self.crosses;
        let port = self.target.port();
        let address = |host: &Host| if is_v4 { host.addresses.v4(port) } else { host.addresses.v6(port) };
        let backends: Vec<_> = self.hosts(net).iter().map(address).collect();
        service(&self.name, self.target, protocol, self.mode, NO_HEALTH, &backends)
    }
}

impl Way {
    /// The same with its first backend alone, for TCP.
    fn section_of_one(&self, net: &Topology) -> String {
        let section = self.section(net, "tcp");
        let second = section.rfind("[[service.backend]]").expect("two backends");
        section[..second].to_owned()
    }
}

fn sections(net: &Topology, ways: &[Way], protocol: &str) -> String {
    ways.iter().map(|way| way.section(net, protocol)).collect()
}

/// A decapsulator on every backend, the first half for ipip, the second for gue.
fn decapsulate(net: &Topology) -> Result<Vec<Process>> {
    let half = net.backends.len() / 2;
    let from = net.balancer_inside.both();
    let run = |(n, host): (usize, &Host)| {
        decapsulator::start_for(&host.netns, if n < half { "ipip" } else { "gue" }, from)
    };
    net.backends.iter().enumerate().map(run).collect()
}

fn start(net: &Topology, interfaces: &[&str], agent: &str, services: &str) -> Result<Agent> {
    let agent = Agent::start(&net.balancer.netns, Setup::on(interfaces).agent(agent).file(services))?;
    agent.wait_until_all_up(UP_WITHIN)?;
    Ok(agent)
}

/// Frames of a decapsulator by outcome, once it has ended.
fn frames(mut process: Process) -> Result<BTreeMap<String, u64>> {
    process.signal(Signal::SIGTERM)?;
    let status = process.wait(Duration::from_secs(10))?;
    let log = process.log();
    ensure!(status.success(), "{status}: {log}");
    let json = &log[log.find('{').context("counters")?..];
    let report: Value = serde_json::from_str(json).with_context(|| log.clone())?;
    let rows = report["frames"].as_array().context("frames")?;
    Ok(rows
        .iter()
        .map(|row| (row["outcome"].to_string().replace('"', ""), row["frames"].as_u64().unwrap_or(0)))
        .collect())
}

fn serve_http(net: &Topology, ports: std::ops::Range<u16>) -> Result<Vec<Server>> {
    let servers = ports.flat_map(|port| {
        let everywhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        net.backends.iter().map(move |host| Server::http(&host.netns, &host.name, everywhere))
    });
    servers.collect()
}

/// Requests on new connections, each answered, and by every backend its share.
fn requests_are_shared(net: &Topology, way: &Way, agent: &Agent) -> Result<()> {
    let plan = Plan::http(way.target).workers(4);
    let load = Load::start(&net.client.netns, plan);
    wait_until("the requests are sent", Duration::from_secs(60), || load.snapshot().requests >= 1500)?;
    let summary = load.stop();
    ensure!(summary.failed == 0, "{}: {summary}\n{}", way.name, agent.log());
    let total = summary.answered() as f64;
    for host in way.hosts(net) {
        let share = *summary.by_backend.get(&host.name).unwrap_or(&0) as f64 / total;
        ensure!((share - 0.5).abs() <= 0.05, "{}: {} had {share:.3}: {summary}", way.name, host.name);
    }
    Ok(())
}

#[test]
fn requests_reach_backends_through_every_tunnel() -> Result<()> {
    for (net, interfaces) in
        [(Topology::one_arm(BACKENDS)?, &["eth0"][..]), (Topology::two_arm(BACKENDS)?, &["eth0", "eth1"])]
    {
        // Backends answer clients by the balancer's kernel, which is their router here.
        net.balancer.netns.set_forwarding(true)?;
        let _servers = serve_http(&net, 80..84)?;
        let decapsulators = decapsulate(&net)?;
        let ways = ways(&net, 80);
        let agent = start(&net, interfaces, "", &sections(&net, &ways, "tcp"))?;
        for way in &ways {
            requests_are_shared(&net, way, &agent)?;
        }
        for (host, process) in net.backends.iter().zip(decapsulators) {
            let frames = frames(process)?;
            ensure!(frames["decapsulated"] > 1000, "{}: {frames:?}", host.name);
            for outcome in ["source_not_allowed", "malformed", "congested", "not_whole"] {
                ensure!(frames[outcome] == 0, "{}: {frames:?}", host.name);
            }
        }
    }
    Ok(())
}

#[test]
fn datagrams_are_answered_by_the_service() -> Result<()> {
    let net = Topology::one_arm(BACKENDS)?;
    let _decapsulators = decapsulate(&net)?;
    let ways = ways(&net, 53);
    let mut servers = Vec::new();
    for way in &ways {
        // Answers come from the service's address only by a socket that is bound to it.
        for host in &net.backends {
            servers.push(Server::udp_echo(&host.netns, &host.name, way.target)?);
        }
    }
    let agent = start(&net, &["eth0"], "", &sections(&net, &ways, "udp"))?;
    for way in &ways {
        let load =
            Load::start(&net.client.netns, Plan::udp(way.target).workers(4).pause(Duration::from_millis(1)));
        wait_until("the datagrams are sent", Duration::from_secs(30), || load.snapshot().requests >= 1000)?;
        let summary = load.stop();
        ensure!(summary.failed == 0, "{}: {summary}\n{}", way.name, agent.log());
        ensure!(summary.by_backend.len() == 2, "{}: {summary}", way.name);
    }
    Ok(())
}

/// What a client sends in full-sized segments does not fit behind an outer header, and less where the way to the backends
/// has a smaller MTU: Flowgate says so, and the client's kernel sends smaller ones.
#[test]
fn large_uploads_find_out_what_fits() -> Result<()> {
    let net = Topology::two_arm(BACKENDS)?;
    net.balancer.netns.set_forwarding(true)?;
    net.balancer.netns.ip("link set eth1 mtu 1400")?;
    let _decapsulators = decapsulate(&net)?;
    let ways = ways(&net, 5201);
    // iperf3's connections must all meet one server.
    let text: String = ways.iter().map(|way| way.section_of_one(&net)).collect();
    let mut servers = Vec::new();
    for host in [&net.backends[0], &net.backends[2]] {
        for port in 5201..5205 {
            servers.push(host.netns.spawn("iperf3", &["--server", "--port", &port.to_string()])?);
        }
    }
    let agent = start(&net, &["eth0", "eth1"], "", &text)?;
    for way in &ways {
        // What fits is remembered for an address, which these services share.
        for version in ["-4", "-6"] {
            shell::run(net.client.netns.command("ip").args([version, "route", "flush", "cache"]))?;
        }
        let before = agent.packets("packet_too_big")?;
        let (address, port) = (way.target.ip().to_string(), way.target.port().to_string());
        let mut command = net.client.netns.command("iperf3");
        command.args(["--client", &address, "--port", &port, "--bytes", "50M", "--json"]);
        let report = shell::run(&mut command).with_context(|| format!("{}\n{}", way.name, agent.log()))?;
        let report: Value = serde_json::from_str(&report)?;
        let bytes = report["end"]["sum_received"]["bytes"].as_u64().unwrap_or(0);
        // The server counts until the client is done: what is on its way then is not among it.
        ensure!(bytes >= 40_000_000, "{}: {bytes} bytes arrived", way.name);
        ensure!(agent.packets("packet_too_big")? > before, "{}: nobody was told", way.name);
    }
    Ok(())
}

/// Outer source addresses of a network that nobody has: backends take them where they are told to.
#[test]
fn ipip_from_a_network_of_its_own() -> Result<()> {
    let net = Topology::one_arm(BACKENDS)?;
    let _servers = serve_http(&net, 80..84)?;
    let networks = ["198.18.0.0/16", "fd00:99::/64"];
    let decapsulator = decapsulator::start(&net.backends[0].netns, "ipip", &networks)?;
    let ways: Vec<_> = ways(&net, 80).into_iter().filter(|way| way.mode == "ipip").collect();
    let text: String = ways.iter().map(|way| way.section_of_one(&net)).collect();
    let sources = "ipip_sources = [\"198.18.0.0/16\", \"fd00:99::/64\"]";
    let agent = start(&net, &["eth0"], sources, &text)?;
    for way in &ways {
        let load = Load::start(&net.client.netns, Plan::http(way.target).workers(4));
        wait_until("the requests are sent", Duration::from_secs(30), || load.snapshot().requests >= 300)?;
        let summary = load.stop();
        ensure!(summary.failed == 0, "{}: {summary}\n{}", way.name, agent.log());
    }
    let frames = frames(decapsulator)?;
    ensure!(frames["decapsulated"] > 1000 && frames["source_not_allowed"] == 0, "{frames:?}");
    Ok(())
}

/// What is wrong with a decapsulator's arguments, or with the machine, is said with the way out.
#[test]
fn decap_says_what_is_wrong() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let host = &net.backends[0];
    let decap = |args: &[&str]| -> Result<(i32, String)> {
        let output = host.netns.command(binary()?).arg("decap").args(args).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.code().unwrap_or(-1), text))
    };
    let ipip = ["--interface", "eth0", "--mode", "ipip"];
    for (more, code, words) in [
        (&[][..], 2, "--from <NETWORK>"),
        (&["--from", "10.10.0.2/24"], 2, "an address in a network: write 10.10.0.0/24 or 10.10.0.2"),
        (&["--from", "web"], 2, "not an address or a network"),
        (&["--from", "10.10.0.2", "--port", "6080"], 2, "--port is for --mode gue"),
        (&["--from", "10.10.0.2", "--every", "0s"], 2, "out of range: use 1s to 24h"),
    ] {
        let (status, text) = decap(&[&ipip, more].concat())?;
        ensure!(status == code && text.contains(words), "{more:?}: {status}: {text}");
    }
    let (status, text) = decap(&["--interface", "eth9", "--mode", "gue", "--from", "10.10.0.2"])?;
    ensure!(status == 1 && text.contains("there is no interface eth9"), "{status}: {text}");
    let _first = decapsulator::start(&host.netns, "gue", &["10.10.0.2"])?;
    let (status, text) = decap(&["--interface", "eth0", "--mode", "gue", "--from", "10.10.0.2"])?;
    ensure!(status == 1 && text.contains("has another XDP program"), "{status}: {text}");
    Ok(())
}
