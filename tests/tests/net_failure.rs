//! Backends, agents and interfaces that die, and what `status` says of it.

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use harness::{
    agent::{Agent, Setup},
    config::{HTTP_HEALTH, NO_HEALTH, service},
    load::{Load, Plan},
    long_lived::LongLived,
    servers::Server,
    shell,
    topology::Topology,
    wait::wait_until,
};

const UP_WITHIN: Duration = Duration::from_secs(15);
/// fall × interval + timeout, see [`HTTP_HEALTH`].
const DETECTED_WITHIN: Duration = Duration::from_millis(800);
/// A client's request may be on its way, and the machine busy.
const MARGIN: Duration = Duration::from_millis(700);
/// A retransmitted SYN comes after a second: such a request was delayed.
const SLOW: Duration = Duration::from_millis(500);

fn backends(net: &Topology) -> Vec<SocketAddr> {
    net.backends.iter().map(|host| host.addresses.v4(8080)).collect()
}

fn start(net: &Topology) -> Result<Agent> {
    let web = service("web", net.service.v4(80), "tcp", "full-nat", HTTP_HEALTH, &backends(net));
    let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(&web))?;
    agent.wait_until_all_up(UP_WITHIN)?;
    Ok(agent)
}

/// Everything that `status` finds, as text.
fn findings(agent: &Agent) -> Result<String> {
    Ok(agent.cli_json(&["status"])?["findings"].to_string())
}

/// Backends that get new flows, of all, as `status` has it of the only service.
fn up_of_all(agent: &Agent) -> Result<(u64, u64)> {
    let row = &agent.cli_json(&["status"])?["services"][0];
    let figure = |name: &str| row[name].as_u64().with_context(|| format!("no {name} in {row}"));
    Ok((figure("backends_up")?, figure("backends")?))
}

fn has_program(net: &Topology) -> Result<bool> {
    let links =
        shell::run(net.balancer.netns.command("ip").args(["-details", "link", "show", "dev", "eth0"]))?;
    Ok(links.contains("prog/xdp"))
}

#[test]
fn new_connections_leave_a_dead_backend_and_come_back() -> Result<()> {
    let net = Topology::one_arm(3)?;
    let mut servers = net.serve_http(8080)?;
    let agent = start(&net)?;
    ensure!(findings(&agent)? == "[]", "{}", findings(&agent)?);
    let load = Load::start(&net.client.netns, Plan::http(net.service.v4(80)));
    thread::sleep(Duration::from_secs(1));

    let killed = Instant::now();
    servers[0].stop();
    thread::sleep(Duration::from_secs(3));
    let last = load.last_disturbed(killed, SLOW).map(|record| record.begun - killed).unwrap_or_default();
    ensure!(last <= DETECTED_WITHIN + MARGIN, "still failing after {last:?}\n{}", agent.log());
    let found = findings(&agent)?;
    ensure!(found.contains("backend web 10.10.0.11:8080") && found.contains("connection refused"), "{found}");
    ensure!(!found.contains("10.10.0.12") && !found.contains("10.10.0.13"), "{found}");
    ensure!(up_of_all(&agent)? == (2, 3), "{:?}", up_of_all(&agent)?);

    let back = Instant::now();
    servers[0].start()?;
    wait_until("the first backend gets requests again", UP_WITHIN, || {
        load.first_answer_of("b1", back).is_some()
    })?;
    ensure!(load.disturbed(back, SLOW) == 0, "{}\n{}", load.snapshot(), agent.log());
    ensure!(findings(&agent)? == "[]", "{}", findings(&agent)?);
    ensure!(up_of_all(&agent)? == (3, 3), "{:?}", up_of_all(&agent)?);
    Ok(())
}

#[test]
fn without_a_backend_packets_are_dropped_and_counted_until_one_is_back() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let mut servers = net.serve_http(8080)?;
    let agent = start(&net)?;
    servers[0].stop();
    wait_until("status says that nobody is left", UP_WITHIN, || {
        findings(&agent).is_ok_and(|found| found.contains("no backend gets new flows"))
    })?;
    ensure!(up_of_all(&agent)? == (0, 1), "{:?}", up_of_all(&agent)?);
    let load =
        Load::start(&net.client.netns, Plan::http(net.service.v4(80)).timeout(Duration::from_millis(300)));
    wait_until("drops are counted", UP_WITHIN, || {
        agent.cli_json(&["stats"]).is_ok_and(|stats| {
            let rows = stats["reasons"].as_array().cloned().unwrap_or_default();
            rows.iter().any(|row| row["reason"] == "no_backend" && row["packets"].as_u64() > Some(0))
        })
    })?;
    wait_until("status speaks of the drops", UP_WITHIN, || {
        findings(&agent).is_ok_and(|found| found.contains("packets dropped: no_backend"))
    })?;
    let back = Instant::now();
    servers[0].start()?;
    wait_until("requests are answered again", UP_WITHIN, || load.first_answer_of("b1", back).is_some())?;
    ensure!(up_of_all(&agent)? == (1, 1), "{:?}", up_of_all(&agent)?);
    // Drops are spoken of for ten seconds after the last one.
    wait_until("nothing is left to say", UP_WITHIN, || findings(&agent).is_ok_and(|found| found == "[]"))?;
    Ok(())
}

#[test]
fn a_backend_that_is_not_there_is_down_for_a_reason_that_can_be_acted_upon() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let _servers = net.serve_http(8080)?;
    let addresses = net.backends[0].addresses;
    let cases: [(&str, SocketAddr, SocketAddr, SocketAddr, &str); 2] = [
        ("web4", net.service.v4(80), addresses.v4(8080), "10.10.0.99:8080".parse()?, "ARP"),
        ("web6", net.service.v6(80), addresses.v6(8080), "[2001:db8:10::99]:8080".parse()?, "neighbour"),
    ];
    let services = cases.map(|(name, target, there, missing, _)| {
        service(name, target, "tcp", "full-nat", NO_HEALTH, &[there, missing])
    });
    let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(&services.concat()))?;
    for (name, _, there, missing, protocol) in cases {
        wait_until("the backend is down", UP_WITHIN, || {
            agent.backend(name, missing).is_ok_and(|row| row["health"] == "down")
        })?;
        let row = agent.backend(name, missing)?;
        let reason = row["health_reason"].as_str().unwrap_or_default();
        let begin = format!("{} does not answer {protocol}", missing.ip());
        ensure!(reason.starts_with(&begin) && reason.contains("on eth0"), "{reason}");
        let found = findings(&agent)?;
        ensure!(found.contains(&format!("`ip route get {}`", missing.ip())), "{found}");
        ensure!(agent.backend(name, there)?["share"] == 1.0);
    }
    Ok(())
}

#[test]
fn an_agent_that_is_killed_and_started_again_is_noticed_by_nobody() -> Result<()> {
    let net = Topology::one_arm(3)?;
    let _servers = net.serve_http(8080)?;
    let mut agent = start(&net)?;
    let target = net.service.v4(80);
    let open = LongLived::open(&net.client.netns, target, 30, Duration::from_millis(100))?;
    let load = Load::start(&net.client.netns, Plan::http(target));
    thread::sleep(Duration::from_secs(1));
    for _ in 0..2 {
        agent.kill9();
        thread::sleep(Duration::from_secs(1));
        agent.restart()?;
        thread::sleep(Duration::from_secs(2));
    }
    ensure!(agent.cli_json(&["status"])?["agent"]["adopted"] == true);
    ensure!(open.broken().is_empty() && open.moved() == 0, "{:?}\n{}", open.broken(), agent.log());
    let summary = load.stop();
    ensure!(summary.failed == 0 && summary.answered() > 500, "{summary}\n{}", agent.log());
    Ok(())
}

#[test]
fn sigterm_leaves_the_data_plane_and_detach_takes_it_away() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let servers = net.serve_http(8080)?;
    let mut agent = start(&net)?;
    let status = agent.stop()?;
    ensure!(status.success(), "{status}\n{}", agent.log());
    let load = Load::start(&net.client.netns, Plan::http(net.service.v4(80)));
    thread::sleep(Duration::from_secs(1));
    let summary = load.stop();
    ensure!(summary.failed == 0 && summary.answered() > 50, "{summary}");
    ensure!(has_program(&net)?);

    agent.restart()?;
    agent.cli_ok(&["detach"])?;
    wait_until("the agent has ended", UP_WITHIN, || !agent.is_running())?;
    ensure!(!has_program(&net)?);
    ensure!(!agent.pin_dir().exists(), "{} is left", agent.pin_dir().display());

    let requests = || servers.iter().map(Server::requests).sum::<u64>();
    let before = requests();
    let plan = Plan::http(net.service.v4(80)).timeout(Duration::from_millis(300));
    let load = Load::start(&net.client.netns, plan);
    wait_until("some have asked in vain", UP_WITHIN, || load.snapshot().requests >= 20)?;
    let summary = load.stop();
    ensure!(summary.answered() == 0 && requests() == before, "it is balanced still: {summary}");
    Ok(())
}

#[test]
fn an_interface_that_goes_and_comes_back_is_attached_again() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let balancer = &net.balancer.netns;
    balancer
        .ip("link add spare type veth peer name spare-peer\nlink set spare up\nlink set spare-peer up")?;
    let agent = Agent::start(balancer, Setup::on(&["eth0", "spare"]))?;
    let attached = || {
        let status = agent.cli_json(&["status"])?;
        anyhow::Ok(status["interfaces"][1]["attached"].clone())
    };
    ensure!(attached()? == "native", "{}", attached()?);
    balancer.ip("link del spare")?;
    wait_until("status says that it is gone", UP_WITHIN, || {
        findings(&agent).is_ok_and(|found| found.contains("interface spare is gone"))
    })?;
    balancer
        .ip("link add spare type veth peer name spare-peer\nlink set spare up\nlink set spare-peer up")?;
    wait_until("it is attached again", UP_WITHIN, || attached().is_ok_and(|mode| mode == "native"))?;
    wait_until("nothing is left to say", UP_WITHIN, || findings(&agent).is_ok_and(|found| found == "[]"))?;
    Ok(())
}

#[test]
fn a_state_file_cut_in_half_stops_nothing() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let _servers = net.serve_http(8080)?;
    let mut agent = start(&net)?;
    let backend = "10.10.0.11:8080";
    agent.cli_ok(&["backend", "set", "web", backend, "--weight", "30"])?;
    agent.cli_ok(&["backend", "set", "web", backend, "--weight", "40"])?;
    let state = agent.state_dir().join("state.json");
    agent.kill9();
    let text = fs::read_to_string(&state)?;
    fs::write(&state, &text[..text.len() / 2])?;
    let load = Load::start(&net.client.netns, Plan::http(net.service.v4(80)));
    agent.restart()?;
    let found = findings(&agent)?;
    ensure!(found.contains("state.json"), "{found}");
    // The one before the last change.
    ensure!(agent.backend("web", backend.parse()?)?["weight"] == 30);
    let summary = load.stop();
    ensure!(summary.failed == 0, "{summary}");
    Ok(())
}
