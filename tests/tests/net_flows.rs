//! What operators see of flows: lists, counts, and the program's own account of a packet, with real connections in
//! every mode and on both IP versions.

use std::{
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use harness::{
    agent::{Agent, Setup},
    config::{HTTP_HEALTH, service},
    long_lived::LongLived,
    servers::Server,
    topology::Topology,
};
use serde_json::Value;

const UP_WITHIN: Duration = Duration::from_secs(15);
const CONNECTIONS: usize = 10;

struct Way {
    name: &'static str,
    mode: &'static str,
    target: SocketAddr,
    backends: Vec<SocketAddr>,
}

fn ways(net: &Topology) -> Vec<Way> {
    let hosts = || net.backends.iter().map(|host| &host.addresses);
    let way = |name, mode, target, backends| Way { name, mode, target, backends };
    vec![
        way("nat4", "full-nat", net.service.v4(8080), hosts().map(|host| host.v4(80)).collect()),
        way("nat6", "full-nat", net.service.v6(8080), hosts().map(|host| host.v6(80)).collect()),
        way("dsr4", "dsr", net.dsr_service.v4(80), hosts().map(|host| host.v4(80)).collect()),
        way("dsr6", "dsr", net.dsr_service.v6(80), hosts().map(|host| host.v6(80)).collect()),
    ]
}

fn start(net: &Topology) -> Result<(Agent, Vec<Server>)> {
    let everywhere = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 80);
    let servers = net
        .backends
        .iter()
        .map(|host| Server::http(&host.netns, &host.name, everywhere))
        .collect::<Result<_>>()?;
    let file: String = ways(net)
        .iter()
        .map(|way| service(way.name, way.target, "tcp", way.mode, HTTP_HEALTH, &way.backends))
        .collect();
    let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(&file))?;
    agent.wait_until_all_up(UP_WITHIN)?;
    Ok((agent, servers))
}

fn rows(value: &Value) -> &[Value] {
    value["flows"].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn connections_are_listed_counted_and_looked_up() -> Result<()> {
    let net = Topology::one_arm(3)?;
    let (agent, _servers) = start(&net)?;
    for way in ways(&net) {
        let open = LongLived::open(&net.client.netns, way.target, CONNECTIONS, Duration::from_millis(100))?;
        let name = way.name;
        let list = agent.cli_json(&["flow", "list", "--service", name, "--state", "established"])?;
        ensure!(rows(&list).len() == CONNECTIONS && list["more"] == 0, "{name}: {list}");
        let count = agent.cli_json(&["flow", "count", "--service", name, "--by", "backend"])?;
        ensure!(count["flows"] == CONNECTIONS, "{name}: {count}");
        for (host, on_it) in open.by_backend() {
            let at = net.backends.iter().position(|backend| backend.name == host).context("a backend")?;
            let backend = way.backends[at].to_string();
            let listed = rows(&list).iter().filter(|row| row["backend"] == backend.as_str()).count();
            ensure!(listed == on_it, "{name} {host}: {listed} listed, {on_it} open");
            let only = agent.cli_json(&["flow", "list", "--service", name, "--backend", &backend])?;
            ensure!(rows(&only).len() == on_it, "{name} {host}: {only}");
        }
        for state in open.states() {
            check_connection(&agent, &net, &way, &state, &list)
                .with_context(|| format!("{name}, {state:?}"))?;
        }
        let limited = agent.cli_json(&["flow", "list", "--service", name, "--limit", "3"])?;
        ensure!(rows(&limited).len() == 3 && limited["more"] == CONNECTIONS - 3, "{limited}");
    }
    Ok(())
}

/// One connection, in the list and by a question to the program.
fn check_connection(
    agent: &Agent,
    net: &Topology,
    way: &Way,
    state: &harness::long_lived::State,
    list: &Value,
) -> Result<()> {
    let local = state.local.context("a local address")?;
    let at = net.backends.iter().position(|backend| backend.name == state.backend).context("a backend")?;
    let backend = way.backends[at].to_string();
    let (from, to) = (local.to_string(), way.target.to_string());
    let row = rows(list).iter().find(|row| row["client"] == from.as_str());
    let said = agent.cli_json(&["lookup", "--from", &from, "--to", &to])?;
    ensure!(said["reason"] == "forwarded" && said["backend"] == backend.as_str(), "{said}");
    ensure!(said["flow"]["fate"] == "goes-on" && said["flow"]["state"] == "established", "{said}");
    if way.mode == "dsr" {
        ensure!(row.is_none(), "of a steered flow the client is not known");
        return Ok(());
    }
    let row = row.context("it is listed")?;
    ensure!(row["backend"] == backend.as_str() && row["source"] == said["source"], "{row}\n{said}");
    // The backend's answer, asked about in the same way.
    let source = row["source"].as_str().context("a source")?;
    let answer = agent.cli_json(&["lookup", "--from", &backend, "--to", source])?;
    ensure!(answer["reason"] == "replied" && answer["flow"]["fate"] == "is-answered", "{answer}");
    Ok(())
}

#[test]
fn a_packet_of_nobody_is_explained_and_nothing_is_remembered_of_it() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let (agent, _servers) = start(&net)?;
    for way in ways(&net) {
        let client = if way.target.is_ipv4() { "198.51.100.7:40000" } else { "[2001:db8::7]:40000" };
        let said =
            agent.cli_json(&["lookup", "--from", client, "--to", &way.target.to_string(), "--opens"])?;
        ensure!(said["reason"] == "forwarded" && said["flow"].is_null(), "{said}");
        ensure!(said["ring_slot"][1] == 4099, "{said}");
        let text = agent.cli_ok(&["lookup", "--from", client, "--to", &way.target.to_string()])?;
        ensure!(text.contains("maglev picks slot") && text.contains("next hop"), "{text}");
        let elsewhere = SocketAddr::new(way.target.ip(), 9);
        let said = agent.cli_json(&["lookup", "--from", client, "--to", &elsewhere.to_string()])?;
        ensure!(said["reason"] == "not_service" && said["verdict"] == "pass", "{said}");
    }
    ensure!(agent.cli_json(&["flow", "count"])?["flows"] == 0);
    Ok(())
}

#[test]
fn wrong_questions_are_refused_with_the_way_out() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let (agent, _servers) = start(&net)?;
    for (args, words) in [
        (&["flow", "list", "--service", "nat5"][..], "did you mean nat"),
        (&["flow", "list", "--service", "dsr4", "--from", "198.51.100.7"], "no client's address is kept"),
        (&["flow", "count", "--backend", "10.10.0.99:80"], "`flowgate backend list` shows"),
        (&["flow", "list", "--limit", "1000000000"], "at most 100000"),
        (&["lookup", "--from", "198.51.100.7:1", "--to", "[2001:db8::1]:80"], "two IPv4 or two IPv6"),
    ] {
        let output = agent.cli(args)?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && error.contains(words), "{args:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn a_file_is_compared_before_it_is_applied() -> Result<()> {
    let net = Topology::one_arm(3)?;
    let (agent, _servers) = start(&net)?;
    let open = LongLived::open(&net.client.netns, net.service.v4(8080), 12, Duration::from_millis(100))?;
    let file = agent.config_path();
    let path = file.to_str().context("a path")?;
    ensure!(agent.cli_ok(&["config", "diff", path])?.contains("Nothing would change"));

    let text = std::fs::read_to_string(&file)?;
    let proposed = file.with_extension("new");
    let last = format!("address = \"{}\"\nport = 80\n", net.backends[2].addresses.v4(80).ip());
    ensure!(text.contains(&last), "{text}");
    // Only nat4 loses its last backend; dsr4 has the same one.
    std::fs::write(&proposed, text.replacen(&format!("[[service.backend]]\n{last}"), "", 1))?;
    let proposed = proposed.to_str().context("a path")?;
    let diff = agent.cli_json(&["config", "diff", proposed])?;
    let on_it = open.by_backend().get("b3").copied().unwrap_or(0);
    ensure!(diff["flows_moved"] == on_it, "{diff}");
    let backends = diff["services"][0]["backends"].as_array().context("backends")?;
    ensure!(diff["services"].as_array().map(Vec::len) == Some(1) && backends.len() == 3, "{diff}");
    for (backend, then) in backends.iter().zip([Some(0.5), Some(0.5), None]) {
        ensure!(backend["share_after"].as_f64() == then, "{backend}");
        ensure!((backend["share_before"].as_f64().context("a share")? - 1.0 / 3.0).abs() < 1e-9, "{backend}");
    }
    // Nothing has been changed by asking.
    ensure!(agent.cli_ok(&["config", "diff", path])?.contains("Nothing would change"));
    ensure!(open.broken().is_empty() && open.moved() == 0);
    Ok(())
}
