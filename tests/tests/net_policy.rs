//! Who gets new flows: policies of services under real traffic, on both IP versions.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use harness::{
    agent::{Agent, Setup},
    config::{HTTP_HEALTH, NO_HEALTH, service},
    load::{Load, Plan, Summary},
    long_lived::LongLived,
    topology::Topology,
    wait::wait_until,
};

const UP_WITHIN: Duration = Duration::from_secs(15);

/// The services of a test: one on each IP version, of the first `count` backends, with these options.
fn both(net: &Topology, count: usize, options: &str, last_backend: &str) -> String {
    let of = |name, v6: bool| {
        let at = |addresses: &harness::topology::Addresses, port| {
            if v6 { addresses.v6(port) } else { addresses.v4(port) }
        };
        let backends: Vec<_> = net.backends[..count].iter().map(|host| at(&host.addresses, 8080)).collect();
        let text = service(name, at(&net.service, 80), "tcp", "full-nat", HTTP_HEALTH, &backends);
        text.replacen("[[service.backend]]", &format!("{options}\n[[service.backend]]"), 1) + last_backend
    };
    of("web4", false) + &of("web6", true)
}

fn targets(net: &Topology) -> [(&'static str, SocketAddr); 2] {
    [("web4", net.service.v4(80)), ("web6", net.service.v6(80))]
}

fn start(net: &Topology, file: &str) -> Result<Agent> {
    let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(file))?;
    agent.wait_until_all_up(UP_WITHIN)?;
    Ok(agent)
}

fn health(agent: &Agent, service: &str, backend: SocketAddr) -> Result<String> {
    Ok(agent.backend(service, backend)?["health"].as_str().context("a word")?.to_owned())
}

/// Each service's address of a backend.
fn backend_of(net: &Topology, at: usize) -> [(&'static str, SocketAddr); 2] {
    let addresses = &net.backends[at].addresses;
    [("web4", addresses.v4(8080)), ("web6", addresses.v6(8080))]
}

fn wait_for_health(agent: &Agent, net: &Topology, at: usize, wanted: &str) -> Result<()> {
    for (service, backend) in backend_of(net, at) {
        wait_until(&format!("{service} {backend} is {wanted}"), UP_WITHIN, || {
            health(agent, service, backend).is_ok_and(|health| health == wanted)
        })?;
    }
    Ok(())
}

#[test]
fn the_next_priority_is_used_while_the_first_is_down() -> Result<()> {
    let net = Topology::one_arm(3)?;
    let servers = net.serve_http(8080)?;
    let agent = start(&net, &both(&net, 3, "", "priority = 1\n"))?;
    let loads = targets(&net).map(|(_, target)| Load::start(&net.client.netns, Plan::http(target)));
    thread::sleep(Duration::from_millis(500));
    for load in &loads {
        ensure!(load.snapshot().answered_by("b3") == 0, "the second priority is spared");
    }
    servers[..2].iter().for_each(|server| server.set_healthy(false));
    for load in &loads {
        wait_until("b3 answers", UP_WITHIN, || load.snapshot().answered_by("b3") > 20)?;
    }
    let status = agent.cli_ok(&["status"])?;
    ensure!(status.contains("priority 1 is in use"), "{status}");
    servers[..2].iter().for_each(|server| server.set_healthy(true));
    wait_for_health(&agent, &net, 0, "up")?;
    wait_for_health(&agent, &net, 1, "up")?;
    let before = loads.each_ref().map(|load| load.snapshot().answered_by("b3"));
    thread::sleep(Duration::from_millis(500));
    for (load, before) in loads.iter().zip(before) {
        // A request may have been under way.
        ensure!(load.snapshot().answered_by("b3") <= before + 4, "{}", load.snapshot());
    }
    for load in loads {
        let summary = load.stop();
        ensure!(summary.failed == 0, "{summary}\n{}", agent.log());
    }
    Ok(())
}

#[test]
fn a_backend_that_recovers_starts_slowly() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let servers = net.serve_http(8080)?;
    let agent = start(&net, &both(&net, 2, "slow_start = \"6s\"", ""))?;
    for (service, backend) in backend_of(&net, 0) {
        ensure!(agent.backend(service, backend)?["slow_start"] == 1.0, "none starts slowly with the agent");
    }
    servers[0].set_healthy(false);
    wait_for_health(&agent, &net, 0, "down")?;
    let loads = targets(&net).map(|(_, target)| Load::start(&net.client.netns, Plan::http(target)));
    servers[0].set_healthy(true);
    wait_for_health(&agent, &net, 0, "up")?;
    let up = Instant::now();
    let shown = agent.cli_ok(&["backend", "list", "web4"])?;
    ensure!(shown.contains("starts slowly"), "{shown}");
    wait_until("the start is over", UP_WITHIN, || {
        backend_of(&net, 0).iter().all(|(service, backend)| {
            agent.backend(service, *backend).is_ok_and(|row| row["slow_start"] == 1.0)
        })
    })?;
    let whole = Instant::now();
    ensure!(whole - up > Duration::from_secs(4), "it took {:?}", whole - up);
    thread::sleep(Duration::from_millis(1_500));
    for load in loads {
        let share = |from, to| {
            let summary = load.between(from, to);
            summary.answered_by("b1") as f64 / summary.answered().max(1) as f64
        };
        let early = share(up, up + Duration::from_millis(1_500));
        let late = share(whole, Instant::now());
        ensure!(early < 0.3, "{early} at first");
        ensure!((late - 0.5).abs() < 0.12, "{late} in the end");
        let summary = load.stop();
        ensure!(summary.failed == 0, "{summary}\n{}", agent.log());
    }
    Ok(())
}

/// Gives b1 and b2 of both services these weights, each service in one command, and checks what share b2 is said to get.
fn set_weights(net: &Topology, agent: &Agent, weights: [u64; 2]) -> Result<()> {
    for (index, (service, _)) in targets(net).iter().enumerate() {
        let backends = [0, 1].map(|at| backend_of(net, at)[index].1);
        let set = [0, 1].map(|at| format!("{}={}", backends[at], weights[at]));
        agent.cli_ok(&["backend", "set", service, &set[0], &set[1]])?;
        let row = agent.backend(service, backends[1])?;
        let share = weights[1] as f64 / weights.iter().sum::<u64>() as f64;
        ensure!((row["share"].as_f64().context("a share")? - share).abs() < 1e-9, "{row}");
    }
    Ok(())
}

/// At least so many requests to each service, each on a connection of its own; none fails.
fn ask_both(net: &Topology, requests: u64) -> Result<Vec<(&'static str, Summary)>> {
    let plan = |target| Plan::http(target).workers(8).pause(Duration::from_millis(1));
    let loads = targets(net).map(|(service, target)| (service, Load::start(&net.client.netns, plan(target))));
    for (_, load) in &loads {
        wait_until("the requests are made", UP_WITHIN, || load.snapshot().requests >= requests)?;
    }
    let summaries = loads.map(|(service, load)| (service, load.stop()));
    for (service, summary) in &summaries {
        ensure!(summary.failed == 0, "{service}: {summary}");
    }
    Ok(summaries.into())
}

/// The share of new connections follows the weights: closely at 10 and 50 %, a few at 1 %, and at 100 % not one goes to
/// the old backend. Connections that were open before stay where they are.
#[test]
fn a_canary_grows_by_one_command_a_step_and_no_connection_notices() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let _servers = net.serve_http(8080)?;
    let agent = start(&net, &both(&net, 2, "", ""))?;
    let open = targets(&net)
        .map(|(_, target)| LongLived::open(&net.client.netns, target, 20, Duration::from_millis(50)));
    let [one, two] = open;
    let open = [one?, two?];
    // Each bound is more than four standard deviations from what is expected.
    for (canary, requests, least, most) in
        [(1, 2_000, 0.000_1, 0.03), (10, 2_000, 0.06, 0.14), (50, 4_000, 0.46, 0.54), (100, 2_000, 1.0, 1.0)]
    {
        set_weights(&net, &agent, [100 - canary, canary])?;
        for (service, summary) in ask_both(&net, requests)? {
            let measured = summary.answered_by("b2") as f64 / summary.answered() as f64;
            ensure!((least..=most).contains(&measured), "{service} at {canary} %: {measured}, {summary}");
            ensure!(canary < 100 || summary.answered_by("b1") == 0, "{service}: {summary}");
        }
        for open in &open {
            open.all_ask_again(UP_WITHIN)?;
            ensure!(open.broken().is_empty() && open.moved() == 0, "{:?}", open.broken());
        }
    }
    Ok(())
}

#[test]
fn one_wrong_backend_of_several_changes_nothing() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let _servers = net.serve_http(8080)?;
    let agent = start(&net, &both(&net, 2, "", ""))?;
    let output = agent.cli(&["backend", "set", "web4", "10.10.0.11:8080=1", "10.10.0.99:8080=2"])?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(String::from_utf8_lossy(&output.stderr).contains("has no backend 10.10.0.99:8080"), "{output:?}");
    ensure!(agent.backend("web4", "10.10.0.11:8080".parse()?)?["weight"] == 10);
    Ok(())
}

#[test]
fn in_panic_all_are_used_or_none() -> Result<()> {
    for (action, answered) in [("all", true), ("none", false)] {
        let net = Topology::one_arm(3)?;
        let servers = net.serve_http(8080)?;
        let options = format!("refuse = \"reject\"\npanic_threshold = 50\npanic_action = \"{action}\"");
        let agent = start(&net, &both(&net, 3, &options, ""))?;
        servers[..2].iter().for_each(|server| server.set_healthy(false));
        wait_for_health(&agent, &net, 0, "down")?;
        wait_for_health(&agent, &net, 1, "down")?;
        wait_until("status says so", UP_WITHIN, || {
            agent.cli_ok(&["status"]).is_ok_and(|status| status.contains("panic: fewer than 50 %"))
        })?;
        for (service, target) in targets(&net) {
            let load = Load::start(&net.client.netns, Plan::http(target));
            wait_until("a hundred requests", UP_WITHIN, || load.snapshot().requests >= 100)?;
            let summary = load.stop();
            if answered {
                // Their probes fail, and they serve.
                let all = ["b1", "b2", "b3"].iter().all(|backend| summary.answered_by(backend) > 10);
                ensure!(summary.failed == 0 && all, "{service}: {summary}");
            } else {
                ensure!(summary.answered() == 0, "{service}: {summary}");
            }
        }
    }
    Ok(())
}

#[test]
fn ports_that_run_out_are_spoken_of_with_the_number_of_addresses_that_would_do() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let _servers = net.serve_http(8080)?;
    // Leaves 1024 to 2059 to full-nat.
    net.balancer.netns.sysctl("net.ipv4.ip_local_port_range", "2060 65535")?;
    let agent = start(&net, &both(&net, 1, "", ""))?;
    let open = LongLived::open(&net.client.netns, net.service.v4(80), 800, Duration::from_secs(2))?;
    // A count is a second old at most.
    thread::sleep(Duration::from_millis(1_100));
    let status = agent.cli_ok(&["status"])?;
    for words in [
        "800 of the 1036 ports that it can be spoken to from are in use",
        "name 2 agent.source_addresses (there is 1)",
    ] {
        ensure!(status.contains(words), "{status}");
    }
    ensure!(open.broken().is_empty(), "{:?}", open.broken());
    Ok(())
}

fn connect(net: &Topology, target: SocketAddr) -> std::io::Result<TcpStream> {
    net.client.netns.run_in(|| TcpStream::connect_timeout(&target, Duration::from_secs(5)))
}

#[test]
fn a_full_service_refuses_at_once_and_takes_flows_again() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let _servers = net.serve_http(8080)?;
    let agent =
        start(&net, &both(&net, 1, "refuse = \"reject\"\nclosing_timeout = \"1s\"", "max_flows = 8\n"))?;
    for (service, target) in targets(&net) {
        let mut open = LongLived::open(&net.client.netns, target, 8, Duration::from_millis(100))?;
        let asked = Instant::now();
        let refused = connect(&net, target).err().context("one too many")?;
        ensure!(refused.kind() == ErrorKind::ConnectionRefused, "{refused}");
        ensure!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
        wait_until("the status says so", UP_WITHIN, || {
            agent
                .cli_ok(&["status"])
                .is_ok_and(|status| status.contains(&format!("service {service}: every backend is full")))
        })?;
        ensure!(open.broken().is_empty(), "{:?}", open.broken());
        ensure!(open.close_some("b1", 8) == 8);
        wait_until("there is room again", UP_WITHIN, || connect(&net, target).is_ok())?;
    }
    Ok(())
}

#[test]
fn without_a_backend_datagrams_are_answered_by_an_error() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let addresses = [net.service.v4(53), net.service.v6(53)];
    let [one, two] = addresses.map(|address| {
        let name = if address.is_ipv4() { "dns4" } else { "dns6" };
        service(name, address, "udp", "full-nat", NO_HEALTH, &[]) + "refuse = \"reject\"\n"
    });
    let _agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(&(one + &two)))?;
    for address in addresses {
        let unspecified = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let refused = net.client.netns.run_in(|| -> std::io::Result<bool> {
            let socket = UdpSocket::bind(unspecified)?;
            socket.connect(address)?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            socket.send(b"question")?;
            let answer = socket.recv(&mut [0; 64]);
            Ok(answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
        })?;
        ensure!(refused, "{address}");
    }
    Ok(())
}
