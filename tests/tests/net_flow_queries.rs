//! What operators ask about flows: of which client, how many of which kind, and the flows of UDP, in every mode and on both
//! IP versions.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use harness::{
    agent::{Agent, Setup},
    config::NO_HEALTH,
    http::Connection,
    servers::Server,
    topology::Topology,
    wait::wait_until,
    ways::{self, WAYS, Way},
};
use serde_json::Value;

const UP_WITHIN: Duration = Duration::from_secs(15);
const TIMEOUT: Duration = Duration::from_secs(5);

fn start(net: &Topology, file: &str) -> Result<Agent> {
    let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(file))?;
    agent.wait_until_all_up(UP_WITHIN)?;
    Ok(agent)
}

fn start_http(net: &Topology) -> Result<(Agent, Vec<Server>)> {
    let servers = ways::serve_http(net)?;
    // Connections here say nothing for as long as they are held.
    let file = ways::sections(net, NO_HEALTH, "").replace("idle_timeout = \"10s\"", "idle_timeout = \"5m\"");
    Ok((start(net, &file)?, servers))
}

fn rows(value: &Value) -> &[Value] {
    value["flows"].as_array().map_or(&[], Vec::as_slice)
}

/// Another client's address, in another /24 and another /64, that the others can answer.
fn add_client(net: &Topology) -> Result<[IpAddr; 2]> {
    net.client.add_address("10.11.0.5/24")?;
    net.client.add_address("2001:db8:11::5/64")?;
    for host in net.backends.iter().chain([&net.balancer]) {
        host.netns.ip("route add 10.11.0.0/24 dev eth0\nroute add 2001:db8:11::/64 dev eth0")?;
    }
    Ok(["10.11.0.5".parse()?, "2001:db8:11::5".parse()?])
}

/// So many connections to a service from one of the client's addresses, each of which has been answered.
fn connect(net: &Topology, way: Way, source: IpAddr, count: usize) -> Result<Vec<Connection>> {
    let open = || {
        let mut connection = Connection::open_from(source, way.target(net), TIMEOUT)?;
        connection.get("/")?;
        Ok(connection)
    };
    net.client.netns.run_in(|| (0..count).map(|_| open()).collect())
}

/// Connections to every service: three from the client's own address, two from another one.
fn connect_two_clients(net: &Topology) -> Result<Vec<(Way, IpAddr, Vec<Connection>)>> {
    let own = net.client.addresses.both();
    let other = add_client(net)?;
    let mut open = Vec::new();
    for way in WAYS {
        let version = usize::from(way.v6);
        for (source, count) in [(own[version], 3), (other[version], 2)] {
            let connections = connect(net, way, source, count)?;
            open.push((way, source, connections));
        }
    }
    Ok(open)
}

/// `--from` finds the translated flows of an address, and with a port the one connection; of steered flows it says how many
/// it could not compare.
#[test]
fn flows_are_found_by_their_client_s_address_and_port() -> Result<()> {
    let net = Topology::one_arm(3)?;
    let (agent, _servers) = start_http(&net)?;
    let open = connect_two_clients(&net)?;
    let steered: usize =
        open.iter().filter(|(way, ..)| way.mode == "dsr").map(|(_, _, open)| open.len()).sum();
    for (way, source, connections) in open.iter().filter(|(way, ..)| way.mode == "full-nat") {
        let found = agent.cli_json(&["flow", "list", "--from", &source.to_string()])?;
        ensure!(found["more"] == 0 && found["not_compared"] == steered, "{found}");
        let clients: BTreeSet<_> = rows(&found).iter().filter_map(|row| row["client"].as_str()).collect();
        let locals: Vec<String> = connections
            .iter()
            .map(|connection| Ok(connection.local_address()?.to_string()))
            .collect::<Result<_>>()?;
        ensure!(clients == locals.iter().map(String::as_str).collect(), "{locals:?}: {found}");
        ensure!(rows(&found).iter().all(|row| row["service"] == way.name), "{found}");
        let one = agent.cli_json(&["flow", "list", "--from", &locals[0], "--service", way.name])?;
        ensure!(rows(&one).len() == 1 && rows(&one)[0]["client"] == locals[0].as_str(), "{one}");
    }
    let nobody = agent.cli_json(&["flow", "list", "--from", "10.10.0.77"])?;
    ensure!(rows(&nobody).is_empty(), "{nobody}");
    Ok(())
}

/// The groups of `flow count --by`.
fn groups(agent: &Agent, by: &str) -> Result<BTreeMap<String, u64>> {
    let count = agent.cli_json(&["flow", "count", "--by", by])?;
    let groups = count["groups"].as_array().context("groups")?;
    let pair = |group: &Value| Some((group["name"].as_str()?.to_owned(), group["flows"].as_u64()?));
    let groups: BTreeMap<_, _> = groups.iter().filter_map(pair).collect();
    // Clients of steered flows are not known.
    let sum = groups.values().sum::<u64>();
    ensure!(by == "client" || count["flows"] == sum && count["rest"] == 0, "{count}");
    Ok(groups)
}

fn expected(groups: &[(&str, u64)]) -> BTreeMap<String, u64> {
    groups.iter().map(|(name, flows)| ((*name).to_owned(), *flows)).collect()
}

/// Counts by service, by the clients' networks and by state are those of the connections that were opened, not answered yet
/// and closed.
#[test]
fn flows_are_counted_by_service_client_and_state() -> Result<()> {
    let net = Topology::one_arm(3)?;
    let (agent, _servers) = start_http(&net)?;
    let mut open = connect_two_clients(&net)?;
    let by_service = expected(&[("nat4", 5), ("nat6", 5), ("dsr4", 5), ("dsr6", 5)]);
    ensure!(groups(&agent, "service")? == by_service, "{:?}", groups(&agent, "service")?);
    let by_client = expected(&[
        ("10.10.0.0/24", 3),
        ("10.11.0.0/24", 2),
        ("2001:db8:10::/64", 3),
        ("2001:db8:11::/64", 2),
    ]);
    ensure!(groups(&agent, "client")? == by_client, "{:?}", groups(&agent, "client")?);
    ensure!(groups(&agent, "state")? == expected(&[("established", 20)]), "{:?}", groups(&agent, "state")?);

    // The three of the client's own address with nat4.
    open.remove(0);
    let closed = expected(&[("established", 17), ("closing", 3)]);
    wait_until("three are closing", UP_WITHIN, || groups(&agent, "state").is_ok_and(|now| now == closed))?;
    ensure!(groups(&agent, "service")? == by_service, "those that are closing count");

    // Nobody answers a SYN; without probes nobody is down for that.
    (0..net.backends.len()).try_for_each(|backend| net.freeze(backend))?;
    let target = WAYS[0].target(&net);
    let unanswered =
        net.client.netns.run_in(|| TcpStream::connect_timeout(&target, Duration::from_millis(100)));
    ensure!(unanswered.is_err(), "{unanswered:?}");
    let half_open = expected(&[("established", 17), ("closing", 3), ("half-open", 1)]);
    ensure!(groups(&agent, "state")? == half_open, "{:?}", groups(&agent, "state")?);
    Ok(())
}

/// UDP services of every mode and IP version, whose flows are forgotten after five seconds of silence.
fn start_datagrams(net: &Topology) -> Result<(Agent, Vec<Server>)> {
    let mut servers = net.serve_udp_echo(8080)?;
    for host in &net.backends {
        // A socket that is not bound to the service's address would not answer from it.
        for address in [net.dsr_service.v4(80), net.dsr_service.v6(80)] {
            servers.push(Server::udp_echo(&host.netns, &host.name, address)?);
        }
    }
    let file = ways::sections(net, NO_HEALTH, "")
        .replace("protocol = \"tcp\"", "protocol = \"udp\"")
        .replace("idle_timeout = \"10s\"", "idle_timeout = \"5s\"");
    Ok((start(net, &file)?, servers))
}

/// A client's socket, connected to a service: an answer from any other address is none.
fn datagram_socket(net: &Topology, target: SocketAddr) -> Result<UdpSocket> {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    net.client.netns.run_in(|| {
        let socket = UdpSocket::bind(any)?;
        socket.connect(target)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(socket)
    })
}

/// The backend that answers a datagram.
fn ask(socket: &UdpSocket) -> Result<String> {
    socket.send(b"question")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    let text = String::from_utf8_lossy(&answer[..length]).into_owned();
    Ok(text.split_once(' ').context("a name and an echo")?.0.to_owned())
}

/// A socket's datagrams are one flow, with the backend that answers them; it is listed, counted and looked up as such, and
/// forgotten when it is silent while one that goes on talking is not.
#[test]
fn datagrams_of_a_socket_are_one_flow_until_it_is_silent() -> Result<()> {
    let net = Topology::one_arm(3)?;
    let (agent, _servers) = start_datagrams(&net)?;
    for way in &WAYS {
        let sockets =
            (0..8).map(|_| datagram_socket(&net, way.target(&net))).collect::<Result<Vec<UdpSocket>>>()?;
        let answered = sockets.iter().map(ask).collect::<Result<Vec<_>>>()?;
        let again = sockets.iter().map(ask).collect::<Result<Vec<_>>>()?;
        ensure!(answered == again, "{}: {answered:?}, then {again:?}", way.name);
        let list = agent.cli_json(&["flow", "list", "--service", way.name, "--state", "datagrams"])?;
        ensure!(rows(&list).len() == sockets.len(), "{}: {list}", way.name);
        for (socket, host) in sockets.iter().zip(&answered) {
            check_datagrams(&agent, &net, way, socket.local_addr()?, host)?;
        }
    }
    let sum = groups(&agent, "state")?;
    ensure!(sum.keys().eq(["datagrams"]), "{sum:?}");
    let talking =
        WAYS.iter().map(|way| datagram_socket(&net, way.target(&net))).collect::<Result<Vec<_>>>()?;
    wait_until("only those that talk are remembered", UP_WITHIN, || {
        let all_answered = talking.iter().all(|socket| ask(socket).is_ok());
        let left = expected(&[("nat4", 1), ("nat6", 1), ("dsr4", 1), ("dsr6", 1)]);
        all_answered && groups(&agent, "service").is_ok_and(|groups| groups == left)
    })
    .map(drop)
}

/// One socket's flow, in the list by its client and by a question to the program.
fn check_datagrams(agent: &Agent, net: &Topology, way: &Way, local: SocketAddr, host: &str) -> Result<()> {
    let at = net.backends.iter().position(|backend| backend.name == host).context("a backend")?;
    let backend = way.backend(&net.backends[at]).to_string();
    let (from, to) = (local.to_string(), way.target(net).to_string());
    let said = agent.cli_json(&["lookup", "--from", &from, "--to", &to, "--protocol", "udp"])?;
    ensure!(said["backend"] == backend.as_str() && said["flow"]["state"] == "datagrams", "{said}");
    if way.mode == "full-nat" {
        let found = agent.cli_json(&["flow", "list", "--from", &from])?;
        ensure!(rows(&found).len() == 1 && rows(&found)[0]["backend"] == backend.as_str(), "{found}");
    }
    Ok(())
}
