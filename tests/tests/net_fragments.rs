//! Datagrams larger than what the way takes, among real kernels, which send them in parts.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use harness::{
    agent::{Agent, Setup},
    config::{NO_HEALTH, service},
    decapsulator,
    servers::Server,
    topology::Topology,
};

const UP_WITHIN: Duration = Duration::from_secs(15);
/// Three parts of 1500 bytes.
const DATAGRAM_BYTES: usize = 4000;
const DATAGRAMS: usize = 100;

/// A service, and with it one way.
struct Way {
    name: String,
    mode: &'static str,
    target: SocketAddr,
    backend: SocketAddr,
}

/// Questions and answers in three parts each, in every mode that two interfaces allow.
#[test]
fn large_datagrams_in_both_directions() -> Result<()> {
    // One backend for the modes without a tunnel, and one for each tunnel.
    let net = Topology::two_arm(3)?;
    // Backends behind tunnels answer by way of the balancer's kernel, which routes for them.
    net.balancer.netns.set_forwarding(true)?;
    let from = net.balancer_inside.both();
    let _decapsulators = [
        decapsulator::start_for(&net.backends[1].netns, "ipip", from)?,
        decapsulator::start_for(&net.backends[2].netns, "gue", from)?,
    ];
    let mut ways = Vec::new();
    for (port, mode, host) in [(53, "full-nat", 0), (54, "nat", 0), (55, "ipip", 1), (56, "gue", 2)] {
        let (at, backend_port) = if host > 0 { (net.dsr_service, port) } else { (net.service, 5300 + port) };
        let addresses = &net.backends[host].addresses;
        ways.push(Way {
            name: format!("{mode}-4"),
            mode,
            target: at.v4(port),
            backend: addresses.v4(backend_port),
        });
        ways.push(Way {
            name: format!("{mode}-6"),
            mode,
            target: at.v6(port),
            backend: addresses.v6(backend_port),
        });
    }
    let hosts = |way: &Way| match way.mode {
        "ipip" => 1,
        "gue" => 2,
        _ => 0,
    };
    ask_every_way(&net, &["eth0", "eth1"], &ways, hosts)
}

/// The same where the server answers the client by itself.
#[test]
fn large_datagrams_of_dsr() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let addresses = &net.backends[0].addresses;
    let way = |name: &str, target, backend| Way { name: name.to_owned(), mode: "dsr", target, backend };
    let ways = [
        way("dsr-4", net.dsr_service.v4(53), addresses.v4(53)),
        way("dsr-6", net.dsr_service.v6(53), addresses.v6(53)),
    ];
    ask_every_way(&net, &["eth0"], &ways, |_| 0)
}

fn ask_every_way(
    net: &Topology,
    interfaces: &[&str],
    ways: &[Way],
    host: impl Fn(&Way) -> usize,
) -> Result<()> {
    // Answers come from the address that was asked.
    let serve = |way: &Way| {
        let at = if matches!(way.mode, "full-nat" | "nat") { way.backend } else { way.target };
        Server::udp_echo(&net.backends[host(way)].netns, "b1", at)
    };
    let _servers: Vec<_> = ways.iter().map(serve).collect::<Result<_>>()?;
    let file: String = ways
        .iter()
        .map(|way| service(&way.name, way.target, "udp", way.mode, NO_HEALTH, &[way.backend]))
        .collect();
    let agent = Agent::start(&net.balancer.netns, Setup::on(interfaces).file(&file))?;
    agent.wait_until_all_up(UP_WITHIN)?;
    for way in ways {
        let (forwarded, replied) = (agent.packets("forwarded")?, agent.packets("replied")?);
        net.client
            .netns
            .run_in(|| ask(way.target))
            .with_context(|| format!("{}: {}", way.name, agent.cli_ok(&["stats"]).unwrap_or_default()))?;
        let forwarded = agent.packets("forwarded")? - forwarded;
        ensure!(forwarded >= 3 * DATAGRAMS as u64, "{}: {forwarded} parts by Flowgate", way.name);
        let replied = agent.packets("replied")? - replied;
        let is_answered_here = matches!(way.mode, "full-nat" | "nat");
        ensure!(!is_answered_here || replied >= 3 * DATAGRAMS as u64, "{}: {replied} back", way.name);
    }
    Ok(())
}

/// Sends datagrams, each of which must come back whole. The first may have to find out what fits through a tunnel.
fn ask(target: SocketAddr) -> Result<()> {
    let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(target)?;
    let mut tries = 0;
    while !echoes(&socket, 0)? {
        tries += 1;
        ensure!(tries < 10, "no answer to any of {tries}");
    }
    for number in 1..=DATAGRAMS {
        ensure!(echoes(&socket, number)?, "no answer to number {number}");
    }
    Ok(())
}

/// Whether a datagram comes back as it was sent.
fn echoes(socket: &UdpSocket, number: usize) -> Result<bool> {
    let datagram: Vec<u8> = (0..DATAGRAM_BYTES).map(|at| (at * 7 + number) as u8).collect();
    match socket.send(&datagram) {
        // The kernel has been told that less fits; it cuts the next one smaller.
        Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => return Ok(false),
        sent => sent?,
    };
    let mut answer = vec![0; DATAGRAM_BYTES + 64];
    match socket.recv(&mut answer) {
        Ok(length) => {
            let expected = [b"b1 ", datagram.as_slice()].concat();
            ensure!(answer[..length] == expected, "another answer, of {length} bytes");
            Ok(true)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Ok(false),
        Err(error) => bail!("{error}"),
    }
}
