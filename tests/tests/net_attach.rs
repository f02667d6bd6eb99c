//! How the program is attached, and what it says there.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{
    agent::{Agent, Setup},
    config::{NO_HEALTH, service},
    load::{Load, Plan},
    topology::Topology,
    wait::wait_until,
};

const UP_WITHIN: Duration = Duration::from_secs(15);

fn services(net: &Topology) -> String {
    let at = |name, target, backend| service(name, target, "tcp", "full-nat", NO_HEALTH, &[backend]);
    let backend = net.backends[0].addresses;
    at("web4", net.service.v4(80), backend.v4(8080)) + &at("web6", net.service.v6(80), backend.v6(8080))
}

/// Requests on both IP versions, none of which fails.
fn some_requests(net: &Topology, agent: &Agent) -> Result<()> {
    for target in [net.service.v4(80), net.service.v6(80)] {
        let load = Load::start(&net.client.netns, Plan::http(target));
        wait_until("some requests are answered", UP_WITHIN, || load.snapshot().requests >= 100)?;
        let summary = load.stop();
        ensure!(summary.failed == 0, "{target}: {summary}\n{}", agent.log());
    }
    Ok(())
}

#[test]
fn packets_pass_in_generic_mode_too() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let _servers = net.serve_http(8080)?;
    let interface = "interfaces = [{ name = \"eth0\", mode = \"generic\" }]";
    let setup = Setup::on(&[]).agent(interface).file(&services(&net));
    let agent = Agent::start(&net.balancer.netns, setup)?;
    agent.wait_until_all_up(UP_WITHIN)?;
    let status = agent.cli_json(&["status"])?;
    ensure!(status["interfaces"][0]["attached"] == "generic", "{status}");
    some_requests(&net, &agent)
}

/// Each packet's fate is in the log where that is switched on, also after a restart that takes over what runs, and
/// nowhere else.
#[test]
fn debug_lines_are_in_the_log_when_they_are_on() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let _servers = net.serve_http(8080)?;
    for on in [true, false] {
        let setup = Setup::on(&["eth0"]).agent(&format!("debug_packets = {on}")).file(&services(&net));
        let mut agent = Agent::start(&net.balancer.netns, setup)?;
        for _ in 0..2 {
            agent.wait_until_all_up(UP_WITHIN)?;
            let lines = |agent: &Agent, reason: &str| agent.log().matches(reason).count();
            let before = [lines(&agent, "reason forwarded"), lines(&agent, "reason replied")];
            some_requests(&net, &agent)?;
            if on {
                wait_until("both directions are in the log", UP_WITHIN, || {
                    lines(&agent, "reason forwarded") > before[0]
                        && lines(&agent, "reason replied") > before[1]
                })?;
            } else {
                ensure!(!agent.log().contains("reason forwarded"), "{}", agent.log());
            }
            agent.restart()?;
        }
    }
    Ok(())
}
