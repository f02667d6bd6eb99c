//! ICMP errors among real kernels: what comes back about balanced packets reaches whoever can do something about it.

use std::{
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use harness::{
    agent::{Agent, Setup},
    config::{NO_HEALTH, service},
    decapsulator,
    servers::Server,
    shell,
    topology::Topology,
};

const UP_WITHIN: Duration = Duration::from_secs(15);

/// Behind the clients' router segments must be smaller than client and server agree on. The router tells the service so;
/// that reaches the server, which sends smaller ones: 50 MB arrive.
#[test]
fn large_downloads_find_out_what_fits() -> Result<()> {
    // One backend for the modes without a tunnel, and one for each tunnel.
    let net = Topology::two_arm_routed(3)?;
    // Backends behind tunnels answer by way of the balancer's kernel, which routes for them.
    net.balancer.netns.set_forwarding(true)?;
    let router = net.router.as_ref().context("a router")?;
    router.netns.ip("link set eth1 mtu 1400")?;
    let from = net.balancer_inside.both();
    let _decapsulators = [
        decapsulator::start_for(&net.backends[1].netns, "ipip", from)?,
        decapsulator::start_for(&net.backends[2].netns, "gue", from)?,
    ];
    let everywhere = |port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let mut servers = vec![Server::http(&net.backends[0].netns, "b1", everywhere(8080))?];
    let mut ways = Vec::new();
    for (port, mode, host) in [(80, "full-nat", 0), (81, "nat", 0), (82, "ipip", 1), (83, "gue", 2)] {
        let is_tunnel = host > 0;
        let (at, backend_port) = if is_tunnel { (net.dsr_service, port) } else { (net.service, 8080) };
        if is_tunnel {
            servers.push(Server::http(&net.backends[host].netns, "tunnel", everywhere(port))?);
        }
        let addresses = &net.backends[host].addresses;
        ways.push((format!("{mode}-4"), mode, at.v4(port), addresses.v4(backend_port)));
        ways.push((format!("{mode}-6"), mode, at.v6(port), addresses.v6(backend_port)));
    }
    let file: String = ways
        .iter()
        .map(|(name, mode, target, backend)| service(name, *target, "tcp", mode, NO_HEALTH, &[*backend]))
        .collect();
    let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0", "eth1"]).file(&file))?;
    agent.wait_until_all_up(UP_WITHIN)?;
    for (name, _, target, _) in &ways {
        for host in &net.backends {
            for version in ["-4", "-6"] {
                shell::run(host.netns.command("ip").args([version, "route", "flush", "cache"]))?;
            }
        }
        let before = agent.packets("icmp_error")?;
        let url = format!("http://{target}/bytes/52428800");
        let mut curl = net.client.netns.command("curl");
        curl.args(["--silent", "--show-error", "--globoff", "--max-time", "60", "--output", "/dev/null"]);
        curl.args(["--write-out", "%{size_download}", &url]);
        let got = shell::run(&mut curl).with_context(|| format!("{name}\n{}", agent.log()))?;
        ensure!(got == "52428800", "{name}: {got} bytes");
        ensure!(agent.packets("icmp_error")? > before, "{name}: no server was told");
    }
    Ok(())
}

/// Nobody listens at the backend: its kernel says so, and the client hears of it as if it had spoken to the service alone.
#[test]
fn a_client_is_told_that_nobody_listens() -> Result<()> {
    let net = Topology::two_arm(1)?;
    let mut ways = Vec::new();
    for (port, mode) in [(53, "full-nat"), (54, "nat")] {
        let addresses = &net.backends[0].addresses;
        ways.push((format!("{mode}-4"), mode, net.service.v4(port), addresses.v4(5300)));
        ways.push((format!("{mode}-6"), mode, net.service.v6(port), addresses.v6(5300)));
    }
    let file: String = ways
        .iter()
        .map(|(name, mode, target, backend)| service(name, *target, "udp", mode, NO_HEALTH, &[*backend]))
        .collect();
    let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0", "eth1"]).file(&file))?;
    agent.wait_until_all_up(UP_WITHIN)?;
    for (name, _, target, _) in &ways {
        let error = net.client.netns.run_in(|| ask(*target))?;
        ensure!(error.kind() == std::io::ErrorKind::ConnectionRefused, "{name}: {error}\n{}", agent.log());
    }
    ensure!(agent.packets("icmp_error")? >= 4, "somebody else has told");
    Ok(())
}

/// What comes back for a datagram that nobody takes.
fn ask(target: SocketAddr) -> Result<std::io::Error> {
    let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(target)?;
    socket.send(b"question")?;
    match socket.recv(&mut [0; 64]) {
        Ok(_) => bail!("{target}: an answer"),
        Err(error) => Ok(error),
    }
}
