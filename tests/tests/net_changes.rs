//! What operators change under load, and what must not change with it.

use std::{fs, net::SocketAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use harness::{
    agent::{Agent, Setup},
    config::{HTTP_HEALTH, service},
    load::{Load, Plan},
    long_lived::LongLived,
    topology::Topology,
    wait::wait_until,
};

const UP_WITHIN: Duration = Duration::from_secs(15);

fn backends(net: &Topology) -> Vec<SocketAddr> {
    net.backends.iter().map(|host| host.addresses.v4(8080)).collect()
}

fn web(net: &Topology, port: u16, name: &str) -> String {
    service(name, net.service.v4(port), "tcp", "full-nat", HTTP_HEALTH, &backends(net))
}

fn start(net: &Topology, file: &str) -> Result<Agent> {
    let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(file))?;
    agent.wait_until_all_up(UP_WITHIN)?;
    Ok(agent)
}

#[test]
fn a_drain_under_load_costs_no_request() -> Result<()> {
    let net = Topology::one_arm(3)?;
    let servers = net.serve_http(8080)?;
    let agent = start(&net, &web(&net, 80, "web"))?;
    let load = Load::start(&net.client.netns, Plan::http(net.service.v4(80)));
    thread::sleep(Duration::from_secs(1));
    agent.cli_ok(&["backend", "drain", "web", "10.10.0.11:8080", "--wait", "--timeout", "30s"])?;
    let drained = servers[0].requests();
    thread::sleep(Duration::from_secs(1));
    ensure!(servers[0].requests() == drained, "it still gets requests");
    agent.cli_ok(&["backend", "enable", "web", "10.10.0.11:8080"])?;
    wait_until("it gets requests again", UP_WITHIN, || servers[0].requests() > drained)?;
    let summary = load.stop();
    ensure!(summary.failed == 0, "{summary}\n{}", agent.log());
    Ok(())
}

#[test]
fn a_disabled_backend_gets_nothing_at_all() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let _servers = net.serve_http(8080)?;
    let agent = start(&net, &web(&net, 80, "web"))?;
    let disabled: SocketAddr = "10.10.0.11:8080".parse()?;
    let open = LongLived::open(&net.client.netns, net.service.v4(80), 20, Duration::from_millis(100))?;
    ensure!(open.by_backend().len() == 2, "{:?}", open.by_backend());
    agent.cli_ok(&["backend", "disable", "web", "10.10.0.11:8080"])?;
    let packets = || anyhow::Ok(agent.backend("web", disabled)?["totals"]["packets_in"].clone());
    // A packet may have been under way while the command was answered.
    thread::sleep(Duration::from_millis(20));
    let before = packets()?;
    thread::sleep(Duration::from_secs(1));
    ensure!(packets()? == before, "{before} -> {}", packets()?);

    let load = Load::start(&net.client.netns, Plan::http(net.service.v4(80)));
    agent.cli_ok(&["backend", "enable", "web", "10.10.0.11:8080"])?;
    wait_until("it gets packets again", UP_WITHIN, || packets().is_ok_and(|now| now != before))?;
    wait_until("it answers again", UP_WITHIN, || load.snapshot().answered_by("b1") > 0)?;
    let summary = load.stop();
    ensure!(summary.failed == 0, "{summary}\n{}", agent.log());
    Ok(())
}

#[test]
fn weights_decide_the_shares_of_new_flows() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let servers = net.serve_http(8080)?;
    let agent = start(&net, &web(&net, 80, "web"))?;
    agent.cli_ok(&["backend", "set", "web", "10.10.0.11:8080", "--weight", "90"])?;
    let row = agent.backend("web", "10.10.0.11:8080".parse()?)?;
    ensure!(row["share"] == 0.9 && row["overridden"] == true, "{row}");
    let before: Vec<u64> = servers.iter().map(harness::servers::Server::requests).collect();
    let load = Load::start(&net.client.netns, Plan::http(net.service.v4(80)));
    wait_until("a thousand requests", UP_WITHIN, || load.snapshot().requests >= 1_000)?;
    let summary = load.stop();
    ensure!(summary.failed == 0, "{summary}");
    let counts: Vec<u64> =
        servers.iter().zip(&before).map(|(server, before)| server.requests() - before).collect();
    let share = counts[0] as f64 / counts.iter().sum::<u64>() as f64;
    ensure!((share - 0.9).abs() < 0.05, "{counts:?}");
    Ok(())
}

#[test]
fn a_reload_moves_no_flow_of_a_service_that_it_does_not_change() -> Result<()> {
    let net = Topology::one_arm(3)?;
    let _servers = net.serve_http(8080)?;
    let untouched = web(&net, 80, "one") + &web(&net, 8080, "two");
    let third = |count: usize| {
        service("three", net.service.v4(90), "tcp", "full-nat", HTTP_HEALTH, &backends(&net)[..count])
    };
    let agent = start(&net, &(untouched.clone() + &third(3)))?;
    let client = &net.client.netns;
    let open =
        [80, 8080].map(|port| LongLived::open(client, net.service.v4(port), 20, Duration::from_millis(50)));
    let [one, two] = open;
    let (one, two) = (one?, two?);
    let loads = [80, 8080].map(|port| Load::start(client, Plan::http(net.service.v4(port))));
    for round in 0..6 {
        agent.write_file(&(untouched.clone() + &third(1 + round % 3)))?;
        agent.cli_ok(&["config", "reload"])?;
        thread::sleep(Duration::from_millis(300));
    }
    for open in [&one, &two] {
        ensure!(open.broken().is_empty() && open.moved() == 0, "{:?}", open.broken());
    }
    for load in loads {
        let summary = load.stop();
        ensure!(summary.failed == 0 && summary.answered() > 100, "{summary}\n{}", agent.log());
    }
    Ok(())
}

#[test]
fn a_reload_with_one_bad_service_changes_nothing() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let _servers = net.serve_http(8080)?;
    let good = web(&net, 80, "web");
    let agent = start(&net, &good)?;
    let before = agent.cli_ok(&["config", "show"])?;
    let bad = good.clone()
        + &web(&net, 81, "another")
        + "[[service]]\nname = \"bad\"\naddress = \"10.10.0.300\"\nport = 82\nprotocol = \"tcp\"\n";
    agent.write_file(&bad)?;
    let text = fs::read_to_string(agent.config_path())?;
    let at = text.lines().position(|line| line.contains("10.10.0.300")).context("the bad line")? + 1;
    let place = format!("{}:{at}", agent.config_path().display());
    let output = agent.cli(&["config", "reload"])?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{output:?}");
    for part in [&*place, "\"bad\"", "10.10.0.300", "address"] {
        ensure!(error.contains(part), "{part} is not in {error}");
    }
    ensure!(agent.cli_ok(&["config", "show"])? == before);
    Ok(())
}

#[test]
fn a_hangup_reloads_the_file_and_leaves_everything_where_the_file_is_bad() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let _servers = net.serve_http(8080)?;
    let one = web(&net, 80, "one");
    let agent = start(&net, &one)?;
    let names = || -> Result<Vec<String>> {
        let services = agent.cli_json(&["service", "list"])?;
        let rows = services.as_array().context("an array")?;
        Ok(rows.iter().filter_map(|row| row["name"].as_str().map(str::to_owned)).collect())
    };
    agent.write_file(&(one.clone() + &web(&net, 90, "two")))?;
    agent.hang_up()?;
    wait_until("the file's second service is there", UP_WITHIN, || {
        names().is_ok_and(|now| now == ["one", "two"])
    })?;
    agent.wait_until_all_up(UP_WITHIN)?;
    let load = Load::start(&net.client.netns, Plan::http(net.service.v4(90)));
    agent.write_file(&(one + "[[service]]\nnam = \"three\"\n"))?;
    agent.hang_up()?;
    wait_until("it says that it has not reloaded", UP_WITHIN, || agent.log().contains("not reloaded"))?;
    ensure!(names()? == ["one", "two"], "{:?}", names()?);
    let answered = load.snapshot().answered();
    wait_until("requests go on", UP_WITHIN, || load.snapshot().answered() > answered + 50)?;
    let summary = load.stop();
    ensure!(summary.failed == 0, "{summary}\n{}", agent.log());
    Ok(())
}

#[test]
fn what_the_command_line_makes_survives_and_what_the_file_owns_stays_the_file_s() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let _servers = net.serve_http(8080)?;
    let mut agent = start(&net, &web(&net, 80, "web"))?;
    let backend = "10.10.0.11:8080";
    agent.cli_ok(&[
        "service",
        "add",
        "extra",
        "--address",
        "10.10.0.100",
        "--port",
        "90",
        "--protocol",
        "tcp",
        "--backend",
        backend,
    ])?;
    agent.cli_ok(&["backend", "set", "web", backend, "--weight", "70"])?;
    agent.cli_ok(&["backend", "drain", "extra", backend])?;

    let file = agent.config_path();
    let text = fs::read_to_string(&file)?;
    let at = text.lines().position(|line| line == "[[service]]").context("the service's line")? + 1;
    let owner = format!("{} line {at}", file.display());
    for args in [
        &["service", "set", "web", "--idle-timeout", "1m"][..],
        &["service", "remove", "web"],
        &["backend", "add", "web", "10.10.0.13:8080"],
        &["backend", "remove", "web", backend],
    ] {
        let output = agent.cli(args)?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{args:?}: {output:?}");
        ensure!(error.contains(&owner), "{owner} is not in {error}");
    }

    agent.kill9();
    agent.restart()?;
    ensure!(agent.backend("web", backend.parse()?)?["weight"] == 70);
    ensure!(agent.backend("extra", backend.parse()?)?["admin_state"] == "draining");
    agent.cli_ok(&["backend", "reset", "web", backend])?;
    let row = agent.backend("web", backend.parse()?)?;
    ensure!(row["weight"] == 10 && row["overridden"] == false, "{row}");
    agent.cli_ok(&["service", "remove", "extra"])?;
    ensure!(agent.cli_json(&["service", "list"])?.as_array().map(Vec::len) == Some(1));
    Ok(())
}

/// What was counted a moment ago knows nothing of connections that were opened since.
#[test]
fn a_drain_waits_for_connections_that_have_just_been_opened() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let _servers = net.serve_http(8080)?;
    let agent = start(&net, &web(&net, 80, "web"))?;
    for _ in 0..3 {
        agent.cli_ok(&["backend", "list"])?;
        let open = LongLived::open(&net.client.netns, net.service.v4(80), 16, Duration::from_millis(100))?;
        let drain = ["backend", "drain", "web", "10.10.0.11:8080", "--wait", "--timeout", "1s"];
        let output = agent.cli(&drain)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && said.contains("left after"), "{output:?}");
        ensure!(open.broken().is_empty() && open.moved() == 0, "{:?}", open.broken());
        drop(open);
        agent.cli_ok(&["backend", "enable", "web", "10.10.0.11:8080"])?;
        wait_until("the connections are forgotten", UP_WITHIN, || {
            agent.backend("web", backends(&net)[0]).is_ok_and(|row| row["flows"] == 0)
        })?;
    }
    Ok(())
}
