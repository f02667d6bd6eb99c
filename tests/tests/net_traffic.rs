//! Real clients through the real program: every mode on both IP versions.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use harness::{
    agent::{Agent, Setup},
    config::{HTTP_HEALTH, NO_HEALTH, service},
    load::{Load, Plan, Traffic},
    netns::Namespace,
    servers::Server,
    shell,
    topology::{Host, Topology},
    wait::wait_until,
};
use nix::sys::socket::{setsockopt, sockopt};

const BACKENDS: usize = 4;
/// Enough for a share to be within five points by more than chance.
const DATAGRAMS: u64 = 3_000;
const UP_WITHIN: Duration = Duration::from_secs(15);

/// One way through Flowgate.
struct Way {
    name: String,
    mode: &'static str,
    target: SocketAddr,
    backend_port: u16,
}

impl Way {
    fn backends(&self, net: &Topology) -> Vec<SocketAddr> {
        net.backends.iter().map(|host| self.backend(host)).collect()
    }

    fn backend(&self, host: &Host) -> SocketAddr {
        let addresses = &host.addresses;
        if self.target.is_ipv4() { addresses.v4(self.backend_port) } else { addresses.v6(self.backend_port) }
    }
}

/// Both IP versions in each mode. The NAT modes rewrite the port on the way, dsr cannot; each mode has a port of its own,
/// the `n`-th from `port` on.
fn ways(net: &Topology, port: u16, backend_port: u16, modes: &[&'static str]) -> Vec<Way> {
    let of_mode = |(n, mode): (usize, &&'static str)| {
        let mode = *mode;
        let (at, backend_port) =
            if mode == "dsr" { (net.dsr_service, port) } else { (net.service, backend_port) };
        let port = if mode == "dsr" { port } else { port + n as u16 };
        [at.v4(port), at.v6(port)].map(|target| {
            let version = if target.is_ipv4() { 4 } else { 6 };
            Way { name: format!("{mode}-{version}"), mode, target, backend_port }
        })
    };
    modes.iter().enumerate().flat_map(of_mode).collect()
}

/// The modes that a segment that all share has: nat's backends would answer clients there directly.
const ONE_ARM: &[&str] = &["full-nat", "dsr"];
/// The modes whose packets pass the balancer both ways, between two segments.
const TWO_ARM: &[&str] = &["full-nat", "nat"];

/// One web server on each backend, for every address that the backend has, the service's on its loopback included.
fn serve_http(net: &Topology, port: u16) -> Result<Vec<Server>> {
    let everywhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    net.backends.iter().map(|host| Server::http(&host.netns, &host.name, everywhere)).collect()
}

/// Datagrams to the service's address are answered from it only by a socket that is bound to it.
fn serve_datagrams(net: &Topology, addresses: [SocketAddr; 2]) -> Result<Vec<Server>> {
    let servers = net
        .backends
        .iter()
        .flat_map(|host| addresses.map(|address| Server::udp_echo(&host.netns, &host.name, address)));
    servers.collect()
}

fn start(net: &Topology, interfaces: &[&str], services: &[String]) -> Result<Agent> {
    let agent = Agent::start(&net.balancer.netns, Setup::on(interfaces).file(&services.concat()))?;
    agent.wait_until_all_up(UP_WITHIN)?;
    Ok(agent)
}

/// So many requests by curl, each on a connection of its own, one after the other.
///
/// Without `--fail-early` curl's exit code would be that of the last request alone.
fn curl(client: &Namespace, target: SocketAddr, requests: u64) -> Result<()> {
    let mut command = client.command("curl");
    command.args(["--fail", "--fail-early", "--silent", "--show-error", "--max-time", "60"]);
    command.args(["--header", "Connection: close", "--write-out", "%{http_code} %{num_connects}\\n"]);
    let urls: String = (0..requests)
        .map(|_| format!("url = \"http://{target}/bytes/64\"\noutput = \"/dev/null\"\n"))
        .collect();
    command.args(["--globoff", "--config", "-"]);
    let done = shell::run_with_input(&mut command, &urls)?;
    let (good, all) = (done.lines().filter(|line| *line == "200 1").count(), done.lines().count());
    ensure!(good as u64 == requests && good == all, "{good} of {all} had status 200 on a new connection");
    Ok(())
}

/// Every backend has had its share of `total` within five points.
fn shares_are_fair(name: &str, counts: &BTreeMap<String, u64>, total: u64) -> Result<()> {
    ensure!(counts.values().sum::<u64>() == total, "{name}: {counts:?} are not {total} requests");
    for (backend, count) in counts {
        let share = *count as f64 / total as f64;
        let fair = 1.0 / counts.len() as f64;
        ensure!((share - fair).abs() <= 0.05, "{name}: {backend} had {share:.3} of {total}: {counts:?}");
    }
    Ok(())
}

fn requests(servers: &[Server]) -> BTreeMap<String, u64> {
    servers.iter().map(|server| (server.name().to_owned(), server.requests())).collect()
}

fn curl_every_way(
    net: &Topology,
    interfaces: &[&str],
    modes: &[&'static str],
    requests_each: u64,
) -> Result<()> {
    let translated = serve_http(net, 8080)?;
    let direct = serve_http(net, 80)?;
    let ways = ways(net, 80, 8080, modes);
    let services: Vec<_> = ways
        .iter()
        .map(|way| service(&way.name, way.target, "tcp", way.mode, HTTP_HEALTH, &way.backends(net)))
        .collect();
    let agent = start(net, interfaces, &services)?;
    for way in &ways {
        let servers = if way.mode == "dsr" { &direct } else { &translated };
        let before = requests(servers);
        let connections_before: u64 = servers.iter().map(Server::connections).sum();
        curl(&net.client.netns, way.target, requests_each)
            .with_context(|| format!("{}\n{}", way.name, agent.log()))?;
        let mut counts = requests(servers);
        counts.iter_mut().for_each(|(backend, count)| *count -= before[backend]);
        shares_are_fair(&way.name, &counts, requests_each)?;
        // Probes come on top. Fewer, and curl would have used a connection twice.
        let connections = servers.iter().map(Server::connections).sum::<u64>() - connections_before;
        ensure!(connections >= requests_each, "{}: {connections} connections", way.name);
    }
    Ok(())
}

/// Ten thousand in each mode on each IP version.
#[test]
fn ten_thousand_requests_by_curl_and_none_fails() -> Result<()> {
    curl_every_way(&Topology::one_arm(BACKENDS)?, &["eth0"], ONE_ARM, 10_000)
}

#[test]
fn curl_between_two_interfaces() -> Result<()> {
    curl_every_way(&Topology::two_arm(BACKENDS)?, &["eth0", "eth1"], TWO_ARM, 2_500)
}

/// Answers go back by the router that the clients' packets came by, and no route is asked for.
#[test]
fn curl_from_behind_a_router() -> Result<()> {
    curl_every_way(&Topology::two_arm_routed(BACKENDS)?, &["eth0", "eth1"], TWO_ARM, 1_000)
}

#[test]
fn iperf3_with_many_streams_both_ways() -> Result<()> {
    iperf3_every_way(&Topology::one_arm(1)?, &["eth0"], ONE_ARM)?;
    iperf3_every_way(&Topology::two_arm(1)?, &["eth0", "eth1"], TWO_ARM)
}

/// iperf3's connections must all meet one server, so these services have one backend.
fn iperf3_every_way(net: &Topology, interfaces: &[&str], modes: &[&'static str]) -> Result<()> {
    let server = &net.backends[0];
    let ways = ways(net, 5201, 5210, modes);
    let _servers = [
        server.netns.spawn("iperf3", &["--server", "--port", "5201"])?,
        server.netns.spawn("iperf3", &["--server", "--port", "5210"])?,
    ];
    let services: Vec<_> = ways
        .iter()
        .map(|way| service(&way.name, way.target, "tcp", way.mode, NO_HEALTH, &way.backends(net)))
        .collect();
    let agent = start(net, interfaces, &services)?;
    for way in &ways {
        for direction in [None, Some("--reverse")] {
            let report = iperf3(&net.client.netns, way.target, direction)
                .with_context(|| format!("{} {direction:?}\n{}", way.name, agent.log()))?;
            let bytes = report["end"]["sum_received"]["bytes"].as_u64().unwrap_or(0);
            ensure!(
                bytes > 1_000_000,
                "{} {direction:?}: {bytes} bytes\n{}\n{}",
                way.name,
                report["end"],
                agent.log()
            );
        }
    }
    Ok(())
}

/// A run of iperf3, and what it reports. Its server takes a moment to be done with the run before, and says so.
fn iperf3(client: &Namespace, target: SocketAddr, direction: Option<&str>) -> Result<serde_json::Value> {
    let (address, port) = (target.ip().to_string(), target.port().to_string());
    let run = || -> Result<serde_json::Value> {
        let mut command = client.command("iperf3");
        command.args(["--client", &address, "--port", &port, "--parallel", "8", "--time", "2", "--json"]);
        Ok(serde_json::from_slice(&command.args(direction).output()?.stdout)?)
    };
    let mut report = run()?;
    let is_busy = |report: &serde_json::Value| report["error"].to_string().contains("busy");
    for _ in 0..10 {
        if !is_busy(&report) {
            break;
        }
        std::thread::sleep(Duration::from_millis(300));
        report = run()?;
    }
    ensure!(report["error"].is_null(), "iperf3: {}", report["error"]);
    Ok(report)
}

#[test]
fn datagrams_are_answered_by_the_service() -> Result<()> {
    datagrams_every_way(&Topology::one_arm(BACKENDS)?, &["eth0"], ONE_ARM)?;
    datagrams_every_way(&Topology::two_arm(BACKENDS)?, &["eth0", "eth1"], TWO_ARM)
}

/// Clients' sockets are connected: an answer from any other address than the service's is none.
fn datagrams_every_way(net: &Topology, interfaces: &[&str], modes: &[&'static str]) -> Result<()> {
    let direct = serve_datagrams(net, [net.dsr_service.v4(53), net.dsr_service.v6(53)])?;
    let _servers = (net.serve_udp_echo(5300)?, direct);
    let ways = ways(net, 53, 5300, modes);
    let services: Vec<_> = ways
        .iter()
        .map(|way| service(&way.name, way.target, "udp", way.mode, NO_HEALTH, &way.backends(net)))
        .collect();
    let agent = start(net, interfaces, &services)?;
    for way in &ways {
        for plan in [Plan::udp(way.target), Plan::udp_one_socket(way.target)] {
            let many_flows = plan.traffic == Traffic::Udp;
            let load = Load::start(&net.client.netns, plan.workers(8).pause(Duration::from_millis(1)));
            wait_until("the datagrams are sent", Duration::from_secs(30), || {
                load.snapshot().requests >= DATAGRAMS
            })?;
            let summary = load.stop();
            ensure!(summary.failed == 0, "{}: {summary}\n{}", way.name, agent.log());
            if many_flows {
                ensure!(summary.by_backend.len() == BACKENDS, "{}: {summary}", way.name);
                shares_are_fair(&way.name, &summary.by_backend, summary.answered())?;
            }
        }
    }
    Ok(())
}

/// `ping`, with small and large packets: by Flowgate where the service asks for it, by the kernel, which has the address,
/// where not.
#[test]
fn pings_are_answered() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let ways = ways(&net, 80, 8080, &["full-nat"]);
    let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]))?;
    for way in &ways {
        let (address, port) = (way.target.ip().to_string(), way.target.port().to_string());
        let add = ["service", "add", &way.name, "--address", &address, "--port", &port, "--protocol", "tcp"];
        agent.cli_ok(&add)?;
        for (set, answered) in [("--answer-ping", 3), ("--answer-ping=false", 0)] {
            agent.cli_ok(&["service", "set", &way.name, set])?;
            let before = agent.packets("ping_answered")?;
            let pings = ["-c", "3", "-i", "0.01", "-s", "1400", "-W", "2", &address];
            shell::run(net.client.netns.command("ping").args(pings)).with_context(|| way.name.clone())?;
            ensure!(agent.packets("ping_answered")? - before == answered, "{}, {set}", way.name);
        }
        agent.cli_ok(&["service", "remove", &way.name])?;
    }
    Ok(())
}

/// A hop of its own, as routers are: what may live no longer is answered, which is what `traceroute` goes by.
#[test]
fn a_client_whose_packet_ends_at_the_balancer_is_told() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let _servers = net.serve_udp_echo(5300)?;
    let ways = ways(&net, 53, 5300, &["full-nat", "nat"]);
    let services: Vec<_> = ways
        .iter()
        .map(|way| service(&way.name, way.target, "udp", way.mode, NO_HEALTH, &way.backends(&net)))
        .collect();
    let agent = start(&net, &["eth0"], &services)?;
    for way in &ways {
        let before = agent.packets("time_exceeded")?;
        let error = net.client.netns.run_in(|| send_with_one_hop(way.target))?;
        ensure!(error.raw_os_error() == Some(libc::EHOSTUNREACH), "{}: {error}", way.name);
        ensure!(agent.packets("time_exceeded")? == before + 1, "{}: somebody else has told", way.name);
    }
    Ok(())
}

/// What comes back for a datagram that may go to the next router and no further.
fn send_with_one_hop(target: SocketAddr) -> Result<std::io::Error> {
    let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
    let socket = UdpSocket::bind(any)?;
    if target.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        setsockopt(&socket, sockopt::Ipv4Ttl, &1)?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        setsockopt(&socket, sockopt::Ipv6Ttl, &1)?;
    }
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(target)?;
    socket.send(b"question")?;
    match socket.recv(&mut [0; 64]) {
        Ok(_) => bail!("{target}: an answer, through a hop that may not be passed"),
        Err(error) => Ok(error),
    }
}
