//! What is wrong, and what is said of it: the exit code and the words that name the thing and the way out.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
    process::Output,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use harness::{
    agent::{Agent, Setup, binary, mount_bpffs},
    config::{NO_HEALTH, service},
    load::{Load, Plan},
    netns::Namespace,
    scratch::Scratch,
    servers::Server,
    shell,
    topology::Topology,
    xdp::{Attached, PASS},
};

const WEB: &str = "[[service]]\nname = \"web\"\naddress = \"10.1.0.10\"\nport = 80\nprotocol = \"tcp\"\n";

const UP_WITHIN: Duration = Duration::from_secs(15);

fn says(output: &Output, code: i32, parts: &[&str]) -> Result<()> {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(code), "exit {:?}, not {code}: {error}", output.status.code());
    for part in parts {
        ensure!(error.contains(part), "{part:?} is not in: {error}");
    }
    Ok(())
}

/// The XDP program on `eth0`: none, or its number.
fn program(netns: &Namespace) -> Result<Option<u64>> {
    let mut command = netns.command("ip");
    let text = shell::run(command.args(["-json", "-details", "link", "show", "dev", "eth0"]))?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    Ok(links[0]["xdp"]["prog"]["id"].as_u64())
}

/// A service with one backend, and load on it: whatever else happens, nobody may notice.
struct Undisturbed {
    load: Load,
    agent: Agent,
    web: String,
    _servers: Vec<Server>,
    net: Topology,
}

impl Undisturbed {
    fn start() -> Result<Self> {
        let net = Topology::one_arm(1)?;
        let servers = net.serve_http(8080)?;
        let backends = [net.backends[0].addresses.v4(8080)];
        let web = service("web", net.service.v4(80), "tcp", "full-nat", NO_HEALTH, &backends);
        let agent = Agent::start(&net.balancer.netns, Setup::on(&["eth0"]).file(&web))?;
        agent.wait_until_all_up(UP_WITHIN)?;
        let load = Load::start(&net.client.netns, Plan::http(net.service.v4(80)));
        Ok(Self { load, agent, web, _servers: servers, net })
    }

    /// Requests are still answered, and none has failed since the start.
    fn check(&self) -> Result<()> {
        let before = self.load.snapshot().answered();
        thread::sleep(Duration::from_millis(500));
        let summary = self.load.snapshot();
        ensure!(summary.failed == 0, "{summary}\n{}", self.agent.log());
        ensure!(summary.answered() > before + 20, "{before} before, {summary}\n{}", self.agent.log());
        Ok(())
    }
}

/// An agent in a namespace with one veth interface, `eth0`; it is expected to end by itself.
struct Bench {
    netns: Namespace,
    scratch: Scratch,
}

impl Bench {
    fn new() -> Result<Self> {
        let netns = Namespace::new("bad")?;
        netns.ip("link add eth0 type veth peer name peer\nlink set eth0 up\nlink set peer up")?;
        Self::inside(netns)
    }

    fn inside(netns: Namespace) -> Result<Self> {
        mount_bpffs()?;
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
        let version = format!("v{}", lb_common::abi::VERSION);
        let maps = Path::new(&pins).join(version).join("maps");
        let left = fs::read_dir(&maps).is_ok_and(|mut entries| entries.next().is_some());
        flowgate::datapath::pin::detach(pins.as_ref(), true)?;
        ensure!(!left, "an agent that has not started has left its data plane");
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
        (WEB.replace("port = 80", "port = 80\nmode = \"l4\""), &["l4", "full-nat", "gue"]),
        (format!("{WEB}idle_timeout = \"5\"\n"), &["idle_timeout", "unit"]),
    ];
    for (text, parts) in cases {
        says(&bench.check(text)?, 1, parts)?;
        let whole = format!("[agent]\ninterfaces = [\"eth0\"]\n{text}");
        says(&bench.agent(&whole)?, 1, parts)?;
    }
    says(&bench.check("[agent\n")?, 1, &["lb.toml:1"])?;
    ensure!(program(&bench.netns)?.is_none(), "an agent that did not start has attached");
    Ok(())
}

#[test]
fn agents_that_cannot_start() -> Result<()> {
    let bench = Bench::new()?;
    bench.netns.ip("link add link peer name mac0 type macvlan\nlink set mac0 up\n\
         link add br0 type bridge\nlink set br0 up")?;
    let cases: &[(&str, &[&str])] = &[
        ("[agent]\ninterfaces = [\"eth7\"]\n", &["eth7", "eth0", "peer"]),
        ("[agent]\n", &["no interface to attach to", "--interface eth0"]),
        (
            "[agent]\ninterfaces = [{ name = \"mac0\", mode = \"native\" }]\n",
            &["mac0", "refused", "mode = \"generic\""],
        ),
        (
            "[agent]\ninterfaces = [{ name = \"br0\", mode = \"native\" }]\n",
            &["br0", "refused", "mode = \"generic\""],
        ),
    ];
    for (text, parts) in cases {
        says(&bench.agent(text)?, 1, parts)?;
    }
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
fn another_program_on_the_interface_is_named_and_left_alone() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let _servers = net.serve_http(8080)?;
    let balancer = &net.balancer.netns;
    let bench = Bench::inside(balancer.clone())?;
    let foreign = Attached::new(balancer, "eth0", &PASS)?;
    let before = program(balancer)?;
    ensure!(before.is_some(), "there is no program on eth0");
    for mode in ["auto", "native", "generic"] {
        let text = format!("[agent]\ninterfaces = [{{ name = \"eth0\", mode = \"{mode}\" }}]\n");
        let parts = ["eth0", "another XDP program", "ip link set dev eth0 xdp off", "bpftool link detach id"];
        says(&bench.agent(&text)?, 1, &parts).context(mode)?;
        ensure!(program(balancer)? == before, "{mode}: the program that was there is gone");
    }
    drop(foreign);
    let backends = [net.backends[0].addresses.v4(8080)];
    let web = service("web", net.service.v4(80), "tcp", "full-nat", NO_HEALTH, &backends);
    let agent = Agent::start(balancer, Setup::on(&["eth0"]).file(&web))?;
    agent.wait_until_all_up(UP_WITHIN)?;
    let load = Load::start(&net.client.netns, Plan::http(net.service.v4(80)));
    thread::sleep(Duration::from_millis(300));
    let summary = load.stop();
    ensure!(summary.failed == 0 && summary.answered() > 0, "{summary}\n{}", agent.log());
    Ok(())
}

#[test]
fn a_second_agent_is_refused_and_harms_nobody() -> Result<()> {
    let mut scene = Undisturbed::start()?;
    let balancer = scene.net.balancer.netns.clone();
    let before = program(&balancer)?;
    ensure!(before.is_some(), "there is no program on eth0");
    let file = scene.agent.config_path().to_string_lossy().into_owned();
    let output = balancer.command(binary()?).args(["agent", "--config", &file]).output()?;
    says(&output, 1, &["another agent is running", "--socket"])?;
    ensure!(program(&balancer)? == before, "the program was replaced");
    ensure!(scene.agent.is_running(), "{}", scene.agent.log());
    scene.agent.cli_ok(&["status"])?;
    scene.check()
}

/// A second agent with a socket and pins of its own finds the first one's program, held by a link: `ip` is
/// refused, and the way out that is named works.
#[test]
fn another_flowgate_on_the_interface_is_named_and_left_alone() -> Result<()> {
    let mut scene = Undisturbed::start()?;
    let balancer = scene.net.balancer.netns.clone();
    let before = program(&balancer)?;
    let bench = Bench::inside(balancer.clone())?;
    let text = "[agent]\ninterfaces = [\"eth0\"]\n";
    says(&bench.agent(text)?, 1, &["another XDP program", "flowgate detach --all --pin-dir"])?;
    ensure!(program(&balancer)? == before, "the program was replaced");
    scene.check()?;
    let off = balancer.command("ip").args(["link", "set", "dev", "eth0", "xdp", "off"]).output()?;
    ensure!(!off.status.success() && program(&balancer)? == before, "ip takes links away: say so again");
    scene.agent.stop()?;
    let pins = scene.agent.pin_dir().to_string_lossy().into_owned();
    let output = bench.run(&["detach", "--all", "--pin-dir", &pins])?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(program(&balancer)?.is_none(), "the program is still there");
    Ok(())
}

#[test]
fn bad_reloads_change_nothing_and_harm_nobody() -> Result<()> {
    let scene = Undisturbed::start()?;
    let (agent, web) = (&scene.agent, &scene.web);
    let before = agent.cli_ok(&["config", "show"])?;
    // Good ones around the bad one: they must not come in either.
    let other = |name, port| service(name, scene.net.service.v4(port), "tcp", "full-nat", NO_HEALTH, &[]);
    let bad = other("bad", 82);
    let cases: &[(String, &[&str])] = &[
        (bad.replace("address", "adress"), &["adress", "did you mean `address`"]),
        (bad.replace("protocol = \"tcp\"\n", ""), &["\"bad\"", "protocol"]),
        (bad.replace("\"bad\"", "\"web\""), &["\"web\"", "choose another"]),
        (bad.replace("port = 82", "port = 80"), &["\"bad\"", "\"web\"", "80"]),
        ("[[service]\n".to_owned(), &["flowgate.toml:"]),
    ];
    for (text, parts) in cases {
        agent.write_file(&format!("{}{web}{text}{}", other("first", 81), other("last", 83)))?;
        says(&agent.cli(&["config", "reload"])?, 1, parts)?;
        ensure!(agent.cli_ok(&["config", "show"])? == before, "changed by {text}");
    }
    scene.check()?;
    agent.write_file(web)?;
    agent.cli_ok(&["config", "reload"])?;
    ensure!(agent.cli_ok(&["config", "show"])? == before);
    scene.check()
}

/// The one before it takes its place, and `status` says so.
#[test]
fn a_state_file_cut_in_half_is_a_warning() -> Result<()> {
    let mut scene = Undisturbed::start()?;
    let backend = scene.net.backends[0].addresses.v4(8080);
    for weight in ["30", "40"] {
        scene.agent.cli_ok(&["backend", "set", "web", &backend.to_string(), "--weight", weight])?;
    }
    scene.agent.kill9();
    cut_in_half(&scene.agent, "state.json")?;
    scene.agent.restart()?;
    let status = scene.agent.cli_json(&["status"])?;
    let findings = status["findings"].as_array().context("status has no findings")?;
    let about = findings.iter().find(|finding| finding.to_string().contains("state.json"));
    let about = about.with_context(|| format!("nothing about the state file: {status}"))?;
    ensure!(about.to_string().contains("warning"), "{about}");
    ensure!(scene.agent.backend("web", backend)?["weight"] == 30);
    scene.check()
}

/// With nothing to go on with, it is not guessed what was there: the agent says what to do, the data plane
/// goes on without it, and what it says helps.
#[test]
fn without_a_state_file_that_can_be_read_traffic_goes_on() -> Result<()> {
    let mut scene = Undisturbed::start()?;
    let backend = scene.net.backends[0].addresses.v4(8080).to_string();
    for weight in ["30", "40"] {
        scene.agent.cli_ok(&["backend", "set", "web", &backend, "--weight", weight])?;
    }
    scene.agent.kill9();
    let files = ["state.json", "state.json.previous"];
    for file in files {
        cut_in_half(&scene.agent, file)?;
    }
    let file = scene.agent.config_path().to_string_lossy().into_owned();
    let mut command = scene.net.balancer.netns.command(binary()?);
    let output = command.args(["agent", "--config", &file]).output()?;
    says(&output, 1, &["state.json", "damaged", "remove it"])?;
    scene.check()?;
    fs::remove_file(scene.agent.state_dir().join("state.json"))?;
    scene.agent.restart()?;
    scene.agent.wait_until_all_up(UP_WITHIN)?;
    scene.check()
}

fn cut_in_half(agent: &Agent, file: &str) -> Result<()> {
    let path = agent.state_dir().join(file);
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(fs::write(&path, &text[..text.len() / 2])?)
}

/// Another socket is not another data plane: its maps have one owner, and `detach` asks that owner.
#[test]
fn a_data_plane_has_one_agent_whatever_the_socket() -> Result<()> {
    let scene = Undisturbed::start()?;
    let bench = Bench::inside(scene.net.balancer.netns.clone())?;
    let pins = scene.agent.pin_dir().to_string_lossy().into_owned();
    let socket = bench.scratch.path().join("other.sock").to_string_lossy().into_owned();
    let file = scene.agent.config_path().to_string_lossy().into_owned();
    let second = bench.run(&["agent", "--config", &file, "--socket", &socket])?;
    says(&second, 1, &["another agent is running the data plane", &pins, "--pin-dir"])?;
    let detach = bench.run(&["detach", "--pin-dir", &pins, "--socket", &socket])?;
    says(&detach, 1, &["another agent is running the data plane", "--socket"])?;
    scene.check()
}
