//! What is wrong, and what is said of it: the exit code and the words that name the thing and the way out.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
    process::Output,
    time::Duration,
};

use anyhow::{Result, ensure};
use harness::{
    agent::{Agent, Setup, binary, mount_bpffs},
    config::{NO_HEALTH, service},
    load::{Load, Plan},
    netns::Namespace,
    scratch::Scratch,
    topology::Topology,
    wait::wait_until,
    xdp::{Attached, PASS},
};

const WEB: &str = "[[service]]\nname = \"web\"\naddress = \"10.1.0.10\"\nport = 80\nprotocol = \"tcp\"\n";

fn says(output: &Output, code: i32, parts: &[&str]) -> Result<()> {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(code), "exit {:?}, not {code}: {error}", output.status.code());
    for part in parts {
        ensure!(error.contains(part), "{part:?} is not in: {error}");
    }
    Ok(())
}

/// An agent in a namespace with one veth interface, `eth0`; it is expected to end by itself.
struct Bench {
    netns: Namespace,
    scratch: Scratch,
}

impl Bench {
    fn new() -> Result<Self> {
        mount_bpffs()?;
        let netns = Namespace::new("bad")?;
        netns.ip("link add eth0 type veth peer name peer\nlink set eth0 up\nlink set peer up")?;
        Ok(Self { netns, scratch: Scratch::new()? })
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.netns.command(binary()?);
        Ok(command.args(args).output()?)
    }

    fn agent(&self, text: &str) -> Result<Output> {
        let directory = self.scratch.path();
        let pins = format!("/sys/fs/bpf/{}", directory.file_name().unwrap_or_default().to_string_lossy());
        let file = directory.join("lb.toml");
        let agent = format!(
            "socket = {:?}\nstate_dir = {:?}\npin_dir = {pins:?}\n",
            directory.join("socket"),
            directory.join("state")
        );
        fs::write(&file, text.replace("[agent]\n", &format!("[agent]\n{agent}")))?;
        let output = self.run(&["agent", "--config", &file.to_string_lossy()])?;
        let _ = flowgate::datapath::pin::detach(pins.as_ref(), true);
        Ok(output)
    }

    fn check(&self, text: &str) -> Result<Output> {
        let file = self.scratch.path().join("lb.toml");
        fs::write(&file, text)?;
        self.run(&["config", "check", &file.to_string_lossy()])
    }
}

#[test]
fn files_that_are_wrong() -> Result<()> {
    let bench = Bench::new()?;
    let cases: &[(String, &[&str])] = &[
        (WEB.replace("address", "adress"), &["adress", "did you mean `address`"]),
        (WEB.replace("10.1.0.10", "10.1.0"), &["\"web\"", "address", "10.1.0"]),
        (WEB.replace("\"tcp\"", "\"tpc\""), &["tpc", "tcp"]),
        (WEB.replace("protocol = \"tcp\"\n", ""), &["\"web\"", "protocol"]),
        (WEB.repeat(2), &["\"web\"", "choose another"]),
        (format!("{WEB}{}", WEB.replace("web", "again")), &["\"again\"", "\"web\""]),
        (WEB.replace("port = 80", "port = 0"), &["port = 0"]),
        (WEB.replace("port = 80", "port = 80\nmode = \"ipip\""), &["ipip", "full-nat", "dsr"]),
        (format!("{WEB}idle_timeout = \"5\"\n"), &["idle_timeout", "unit"]),
        ("[agent\n".to_owned(), &["lb.toml:1"]),
    ];
    for (text, parts) in cases {
        says(&bench.check(text)?, 1, parts)?;
    }
    Ok(())
}

#[test]
fn agents_that_cannot_start() -> Result<()> {
    let bench = Bench::new()?;
    bench.netns.ip("link add link peer name mac0 type macvlan\nlink set mac0 up")?;
    let cases: &[(&str, &[&str])] = &[
        ("[agent]\ninterfaces = [\"eth7\"]\n", &["eth7", "eth0", "peer"]),
        ("[agent]\n", &["no interface to attach to", "--interface eth0"]),
        (
            "[agent]\ninterfaces = [{ name = \"mac0\", mode = \"native\" }]\n",
            &["mac0", "refused", "mode = \"generic\""],
        ),
    ];
    for (text, parts) in cases {
        says(&bench.agent(text)?, 1, parts)?;
    }
    let foreign = Attached::new(&bench.netns, "eth0", &PASS)?;
    let output = bench.agent("[agent]\ninterfaces = [\"eth0\"]\n")?;
    says(&output, 1, &["another XDP program", "ip link set dev eth0 xdp off"])?;
    drop(foreign);
    Ok(())
}

#[test]
fn commands_without_an_agent_and_with_wrong_words() -> Result<()> {
    let bench = Bench::new()?;
    let socket = bench.scratch.path().join("nobody").to_string_lossy().into_owned();
    for args in
        [&["status"][..], &["service", "list"], &["backend", "list"], &["stats"], &["config", "reload"]]
    {
        let args: Vec<_> = args.iter().copied().chain(["--socket", &socket]).collect();
        says(&bench.run(&args)?, 3, &[&socket, "start it with `flowgate agent"])?;
    }
    for args in
        [&["statsu"][..], &["service", "add"], &["backend", "set", "web", "10.2.0.11:80", "--weight", "2000"]]
    {
        says(&bench.run(args)?, 2, &["--help"])?;
    }
    Ok(())
}

#[test]
fn who_is_not_root_is_told_so() -> Result<()> {
    let bench = Bench::new()?;
    let bare = Scratch::new()?;
    let directory = bare.path();
    // The build's directories may be root's alone, so the binary is copied to where anybody may run it.
    fs::set_permissions(directory, Permissions::from_mode(0o777))?;
    let copy = directory.join("flowgate");
    fs::copy(binary()?, &copy)?;
    fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
    let pins = format!("/sys/fs/bpf/{}", directory.file_name().unwrap_or_default().to_string_lossy());
    let run = |args: &[&str]| -> Result<Output> {
        let mut command = bench.netns.command("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&copy).args(args);
        Ok(command.output()?)
    };
    let agent = |base: &Path| {
        let (socket, state) = (base.join("socket"), base.join("state"));
        let (socket, state) = (socket.to_string_lossy(), state.to_string_lossy());
        let files = ["--socket", &socket, "--state-dir", &state, "--pin-dir", &pins];
        run(&[&["agent", "--interface", "eth0"], &files[..]].concat())
    };
    // Where it may not write, and where it may but the kernel refuses.
    let closed = agent(&bench.scratch.path().join("closed"))?;
    let open = agent(directory);
    let _ = flowgate::datapath::pin::detach(pins.as_ref(), true);
    says(&closed, 1, &["Permission denied", "run the agent as root"])?;
    says(&open?, 1, &["needs root", "Operation not permitted"])?;

    // A socket such as an agent's: root's and its group's.
    let socket = bench.scratch.path().join("socket");
    let _listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, Permissions::from_mode(0o660))?;
    let socket = socket.to_string_lossy();
    says(&run(&["status", "--socket", &socket])?, 3, &[&socket, "run this as root"])
}

#[test]
fn a_driver_without_native_xdp_gets_generic_and_a_warning() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let balancer = &net.balancer.netns;
    balancer
        .ip("link add plain type veth peer name plain-peer\nlink set plain up\nlink set plain-peer up\n\
         link add link plain-peer name mac0 type macvlan\nlink set mac0 up")?;
    let agent = Agent::start(balancer, Setup::on(&["mac0"]))?;
    let status = agent.cli_json(&["status"])?;
    ensure!(status["interfaces"][0]["attached"] == "generic", "{status}");
    let found = status["findings"].to_string();
    ensure!(found.contains("no native XDP") && found.contains("warning"), "{found}");
    Ok(())
}

#[test]
fn a_second_agent_is_refused_and_harms_nobody() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let _servers = net.serve_http(8080)?;
    let backends = [net.backends[0].addresses.v4(8080)];
    let web = service("web", net.service.v4(80), "tcp", "full-nat", NO_HEALTH, &backends);
    let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(&web))?;
    agent.wait_until_all_up(Duration::from_secs(15))?;
    let pid = agent.cli_json(&["status"])?["agent"]["pid"].clone();
    let load = Load::start(&net.client.netns, Plan::http(net.service.v4(80)));
    let file = agent.config_path().to_string_lossy().into_owned();
    let output = net.balancer.netns.command(binary()?).args(["agent", "--config", &file]).output()?;
    says(&output, 1, &["another agent is running", &pid.to_string(), "--socket"])?;
    let refused = load.snapshot().requests;
    wait_until("a hundred more requests", Duration::from_secs(15), || {
        load.snapshot().requests >= refused + 100
    })?;
    ensure!(agent.cli_json(&["status"])?["agent"]["pid"] == pid);
    let summary = load.stop();
    ensure!(summary.failed == 0, "{summary}\n{}", agent.log());
    Ok(())
}
