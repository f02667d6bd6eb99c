//! `--keep`, and how to get rid of it again.

use std::{
    env, fs,
    net::{Ipv6Addr, SocketAddr},
    path::Path,
    process::Stdio,
    thread,
};

use anyhow::{Context as _, Result};
use harness::{
    agent,
    netns::Namespace,
    servers::Server,
    sweep::{self, BPFFS},
};

use super::{
    screen::Screen,
    stage::{DIRECT_PORT, ECHO_PORT, Stage, WEB_PORT},
};

/// Leaves the stage standing when this process ends, and says what to do with it.
pub(super) fn leave_running(mut stage: Stage, screen: &mut Screen) -> Result<()> {
    let myself = env::current_exe().context("path of this program")?;
    for (backend, servers) in stage.net.backends.iter().zip(&mut stage.servers) {
        // The servers so far are threads of this process.
        servers.clear();
        let mut command = backend.netns.command(&myself);
        command.args(["serve", &backend.name]);
        command.args([format!("--http={WEB_PORT}"), format!("--http={DIRECT_PORT}")]);
        for address in backend.addresses.both() {
            command.arg(format!("--udp={}", SocketAddr::new(address, ECHO_PORT)));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().with_context(|| format!("servers of {}", backend.name))?;
    }
    explain(&stage, screen)?;

    let pins = Path::new(BPFFS).join(format!("{}topology", sweep::own_prefix()));
    fs::create_dir(&pins).with_context(|| format!("make {}", pins.display()))?;
    stage.net.keep(&pins)?;
    stage.agent.keep();
    Ok(())
}

fn explain(stage: &Stage, screen: &mut Screen) -> Result<()> {
    let binary = agent::binary()?;
    let (flowgate, socket) = (binary.display(), stage.agent.socket());
    let socket = socket.display();
    let client = stage.net.client.netns.name();
    let balancer = stage.net.balancer.netns.name();
    let (v4, v6, service) = (stage.net.service.v4, stage.net.service.v6, stage.web().name);
    let backend = stage.backend_address(stage.web(), 0);
    screen.heading("Everything is left running. Try:");
    screen.say(&format!(
        "ip netns exec {client} curl -s http://{v4}/
ip netns exec {client} curl -s http://[{v6}]/
{flowgate} status --socket {socket}
{flowgate} backend list --socket {socket}
{flowgate} backend drain {service} {backend} --socket {socket}
{flowgate} backend enable {service} {backend} --socket {socket}
ip -n {balancer} link show eth0

To remove it all:  cargo xtask demo --clean"
    ));
    Ok(())
}

/// A backend's servers, until this process is killed. It runs in the backend's namespace.
pub(crate) fn serve(name: &str, http: &[u16], udp: &[SocketAddr]) -> Result<()> {
    let here = Namespace::of_this_process()?;
    let everywhere = |port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let web = http.iter().map(|&port| Server::http(&here, name, everywhere(port)));
    let echo = udp.iter().map(|&address| Server::udp_echo(&here, name, address));
    let _servers = web.chain(echo).collect::<Result<Vec<_>>>()?;
    loop {
        thread::park();
    }
}

/// Removes what demos and tests that have ended left behind. False where something would not go.
pub(crate) fn clean() -> Result<bool> {
    let swept = sweep::sweep_all();
    for path in &swept.removed {
        println!("removed {}", path.display());
    }
    for (path, reason) in &swept.failed {
        println!("cannot remove {}: {reason}", path.display());
    }
    for pid in &swept.in_use_by {
        println!("process {pid} is still running and using its own: end it first");
    }
    if swept.removed.is_empty() && swept.failed.is_empty() && swept.in_use_by.is_empty() {
        println!("nothing to remove");
    }
    Ok(swept.failed.is_empty() && swept.in_use_by.is_empty())
}
