//! The harness itself, without Flowgate: the kernel routes and bridges in its place.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use harness::{
    checksums::verify_checksums,
    http,
    link::Mac,
    load::{Load, Plan},
    netns::Namespace,
    packets::Parsed,
    servers::Server,
    shell,
    sweep::NETNS_DIR,
    topology::{Host, Topology},
    wait::{wait_for, wait_until},
    wire::Wire,
    xdp::{Attached, BPF_REDIRECT, Insn, PASS, Reg, XDP_PASS, XDP_TX},
};

const SECOND: Duration = Duration::from_secs(1);

fn exists(namespace: &str) -> bool {
    Path::new(NETNS_DIR).join(namespace).exists()
}

#[test]
fn a_namespace_goes_with_its_last_handle_and_its_processes_with_it() -> Result<()> {
    let namespace = Namespace::new("gone")?;
    let name = namespace.name().to_owned();
    let other = namespace.clone();
    let stray = namespace.command("sleep").arg("1000").spawn()?;
    drop(namespace);
    assert!(exists(&name), "a handle is left");
    drop(other);
    assert!(!exists(&name));
    let mut stray = stray;
    assert!(!stray.wait()?.success(), "what ran in it was killed");
    Ok(())
}

#[test]
fn a_namespace_goes_when_its_owner_panics() {
    let name = thread::spawn(|| {
        let namespace = Namespace::new("panic").unwrap();
        std::panic::panic_any(namespace.name().to_owned());
    })
    .join()
    .unwrap_err()
    .downcast::<String>()
    .unwrap();
    assert!(name.starts_with("fgt-") && !exists(&name), "{name}");
}

#[test]
fn closures_and_programs_run_inside() -> Result<()> {
    let namespace = Namespace::new("inside")?;
    namespace.ip("link add veth0 type veth peer name veth1")?;
    assert!(namespace.interface_index("veth1").is_ok());
    assert!(namespace.interface_index("eth0").is_err());
    let inside = shell::run(namespace.command("ip").args(["-brief", "link"]))?;
    assert!(inside.contains("veth0"), "{inside}");
    let error = namespace.ip("link set lo up\nlink set nothing up").unwrap_err();
    assert!(format!("{error:#}").contains("nothing"), "{error:#}");

    let listener = namespace.run_in(|| TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    assert!(TcpStream::connect(address).is_err(), "the listener is not outside");
    assert!(namespace.run_in(|| TcpStream::connect(address)).is_ok());
    Ok(())
}

#[test]
fn a_process_is_killed_with_its_children_and_its_words_are_kept() -> Result<()> {
    let namespace = Namespace::new("process")?;
    let mut process = namespace.spawn("sh", &["-c", "echo out; echo err >&2; sleep 1000 & sleep 1000"])?;
    wait_until("it has spoken", SECOND, || process.log() == "out\nerr\n")?;
    assert!(process.exit_status().is_none());
    let pids = || shell::run(std::process::Command::new("ip").args(["netns", "pids", namespace.name()]));
    wait_until("its children run", SECOND, || pids().is_ok_and(|pids| pids.lines().count() == 3))?;
    process.kill9();
    wait_until("they are gone", SECOND, || pids().is_ok_and(|pids| pids.is_empty()))?;

    let mut process = namespace.spawn("sh", &["-c", "exit 3"])?;
    assert_eq!(process.wait(SECOND)?.code(), Some(3));
    Ok(())
}

#[test]
fn waiting_in_vain_says_for_what() {
    let limit = Duration::from_millis(20);
    let error = wait_until("pigs fly", limit, || false).unwrap_err();
    assert!(format!("{error:#}").contains("pigs fly"));
    let error = wait_for("pigs fly", limit, || Err::<(), _>(anyhow::anyhow!("no wings"))).unwrap_err();
    assert!(format!("{error:#}").contains("no wings"));
}

/// A client asks every backend itself, over IPv4 and IPv6, by our own client and by curl.
fn every_backend_answers(net: &Topology) -> Result<()> {
    let servers = net.serve_http(8080)?;
    let _udp = net.serve_udp_echo(5300)?;
    for (backend, server) in net.backends.iter().zip(&servers) {
        for target in [backend.addresses.v4(8080), backend.addresses.v6(8080)] {
            let answer = net.client.netns.run_in(|| http::get(target, "/", SECOND))?;
            assert_eq!((answer.status, answer.backend.as_str()), (200, backend.name.as_str()));
            let url = format!("http://{target}/");
            let by_curl =
                shell::run(net.client.netns.command("curl").args(["-sS", "--max-time", "2", &url]))?;
            assert_eq!(by_curl, format!("{}\n", backend.name));
            // More than a window of full frames.
            let much = net.client.netns.run_in(|| http::get(target, "/bytes/300000", SECOND))?;
            assert_eq!(much.body.len(), 300_000);
        }
        for target in [backend.addresses.v4(5300), backend.addresses.v6(5300)] {
            let load = Load::start(&net.client.netns, Plan::udp(target).workers(1));
            wait_until("some datagrams are answered", SECOND, || load.snapshot().requests > 3)?;
            let report = load.stop();
            assert_eq!((report.failed, report.answered_by(&backend.name)), (0, report.requests), "{report}");
        }
        assert_eq!(server.requests(), 6);
    }
    Ok(())
}

#[test]
fn one_arm_carries_traffic() -> Result<()> {
    let net = Topology::one_arm(2)?;
    every_backend_answers(&net)?;

    // Through the port with the XDP program, in both directions.
    let _own = Server::http(&net.balancer.netns, "balancer", "[::]:80".parse()?)?;
    for target in [net.service.v4(80), net.service.v6(80), net.dsr_service.v4(80), net.dsr_service.v6(80)] {
        let answer = net.client.netns.run_in(|| http::get(target, "/bytes/100000", SECOND))?;
        assert_eq!((answer.backend.as_str(), answer.body.len()), ("balancer", 100_000));
    }
    Ok(())
}

#[test]
fn two_arms_carry_traffic() -> Result<()> {
    let net = Topology::two_arm(2)?;
    let target = net.backends[0].addresses.v4(8080);
    let refused = net.client.netns.run_in(|| http::get(target, "/", SECOND / 5));
    ensure!(refused.is_err(), "the balancer's kernel does not route by itself");
    net.balancer.netns.set_forwarding(true)?;
    every_backend_answers(&net)
}

#[test]
fn two_arms_behind_a_router_carry_traffic() -> Result<()> {
    let net = Topology::two_arm_routed(1)?;
    net.balancer.netns.set_forwarding(true)?;
    every_backend_answers(&net)
}

/// A program that sends IPv4 packets for `service` on to one backend, as `dsr` does; the rest passes.
fn steer(service: Ipv4Addr, from: Mac, to: Mac, leave: &[Insn]) -> Vec<Insn> {
    use Reg::{R0, R1, R2, R3, R4, R5};
    const IPV4: u16 = 0x0800;
    let split = |mac: Mac| {
        let [a, b, c, d, e, f] = mac.0;
        ([a, b, c, d], [e, f])
    };
    let ((from_high, from_low), (to_high, to_low)) = (split(from), split(to));
    let mut forward = vec![
        Insn::store32(R2, 0, to_high),
        Insn::store16(R2, 4, to_low),
        Insn::store32(R2, 6, from_high),
        Insn::store16(R2, 10, from_low),
    ];
    forward.extend_from_slice(leave);
    forward.push(Insn::exit());
    let over = i16::try_from(forward.len()).unwrap();
    let mut program = vec![
        Insn::load32(R2, R1, 0),
        Insn::load32(R3, R1, 4),
        Insn::copy(R4, R2),
        Insn::add(R4, 34),
        Insn::if_greater(R4, R3, over + 4),
        Insn::load16(R5, R2, 12),
        Insn::if_not_equal32(R5, i32::from(IPV4.to_be()), over + 2),
        Insn::load32(R5, R2, 30),
        Insn::if_not_equal32(R5, i32::from_ne_bytes(service.octets()), over),
    ];
    program.extend(forward);
    program.extend([Insn::set(R0, XDP_PASS), Insn::exit()]);
    program
}

fn answers_as(net: &Topology, target: SocketAddr, backend: &Host) -> Result<()> {
    let wire = Wire::open(&backend.netns, "eth0")?;
    let answer = net.client.netns.run_in(|| http::get(target, "/bytes/100000", SECOND))?;
    assert_eq!((answer.backend.as_str(), answer.body.len()), (backend.name.as_str(), 100_000));
    let frames = wire.drain()?;
    let of_service = frames.iter().filter(|frame| {
        Parsed::try_of(&frame.bytes).is_ok_and(|parsed| {
            parsed.protocol == 6 && (parsed.destination() == target || parsed.source() == target)
        })
    });
    let mut seen = [0, 0];
    for frame in of_service {
        verify_checksums(&frame.bytes);
        assert!(frame.bytes.len() <= 1514, "{} bytes", frame.bytes.len());
        seen[usize::from(frame.outgoing)] += 1;
    }
    assert!(seen[0] > 3 && seen[1] > 60, "{seen:?}");
    Ok(())
}

#[test]
fn one_arm_delivers_what_xdp_sends_back_out() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let _servers = net.serve_http(80)?;
    let target = net.dsr_service.v4(80);
    assert!(net.client.netns.run_in(|| http::get(target, "/", SECOND)).is_err(), "nobody serves it yet");
    for backend in &net.backends {
        let leave = [Insn::set(Reg::R0, XDP_TX)];
        let program = steer(net.dsr_service.v4, net.balancer.mac, backend.mac, &leave);
        let _steering = Attached::new(&net.balancer.netns, "eth0", &program)?;
        answers_as(&net, target, backend)?;
    }
    Ok(())
}

#[test]
fn two_arms_deliver_what_xdp_redirects() -> Result<()> {
    let net = Topology::two_arm(2)?;
    let _servers = net.serve_http(80)?;
    let redirect = |device: &str| -> Result<[Insn; 3]> {
        let index = net.balancer.netns.interface_index(device)?;
        let index = i32::try_from(index)?;
        Ok([Insn::set(Reg::R1, index), Insn::set(Reg::R2, 0), Insn::call(BPF_REDIRECT)])
    };
    let target = net.dsr_service.v4(80);
    let backend = &net.backends[1];
    let inwards = steer(net.dsr_service.v4, net.balancer_inside_mac, backend.mac, &redirect("eth1")?);
    let outwards = steer(net.client.addresses.v4, net.balancer.mac, net.client.mac, &redirect("eth0")?);
    let _in = Attached::new(&net.balancer.netns, "eth0", &inwards)?;
    let _out = Attached::new(&net.balancer.netns, "eth1", &outwards)?;
    answers_as(&net, target, backend)
}

#[test]
fn an_xdp_program_is_attached_while_its_guard_lives() -> Result<()> {
    let namespace = Namespace::new("xdp")?;
    namespace.ip("link add veth0 type veth peer name veth1")?;
    let shown = || namespace.ip("link show veth0");
    assert!(!shown()?.contains("prog/xdp"));
    let pass = Attached::new(&namespace, "veth0", &PASS)?;
    assert!(shown()?.contains("prog/xdp"), "{}", shown()?);
    drop(pass);
    wait_until("it is gone", SECOND, || shown().is_ok_and(|text| !text.contains("prog/xdp")))?;

    // The verifier's words are in the error.
    let error = Attached::new(&namespace, "veth0", &[Insn::exit()]).unwrap_err();
    assert!(format!("{error:#}").contains("R0 !read_ok"), "{error:#}");
    Ok(())
}

#[test]
fn a_frozen_backend_is_silent_until_it_thaws() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let _servers = net.serve_http(8080)?;
    let addresses = net.backends[0].addresses;
    for target in [addresses.v4(8080), addresses.v6(8080)] {
        let ask = || net.client.netns.run_in(|| http::get(target, "/", SECOND / 4));
        ask()?;
        net.freeze(0)?;
        let begun = Instant::now();
        ensure!(ask().is_err(), "frozen, but it answers");
        ensure!(begun.elapsed() > SECOND / 5, "it timed out, and was not refused");
        net.thaw(0)?;
        wait_for("it answers again", 3 * SECOND, ask)?;
    }
    Ok(())
}

#[test]
fn nothing_of_a_topology_is_left() -> Result<()> {
    let names: Vec<String> = {
        let net = Topology::one_arm(2)?;
        net.namespaces().iter().map(|namespace| namespace.name().to_owned()).collect()
    };
    assert_eq!(names.len(), 5);
    for name in names {
        assert!(!exists(&name), "{name}");
    }
    let prefix = harness::sweep::own_prefix();
    let scratch = harness::scratch::Scratch::new()?;
    let path = scratch.path().to_owned();
    assert!(path.file_name().unwrap().to_str().unwrap().starts_with(&prefix) && path.is_dir());
    fs::write(path.join("file"), "x")?;
    drop(scratch);
    assert!(!path.exists());
    Ok(())
}

#[test]
fn hosts_speak_with_their_own_addresses() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let backend = &net.backends[0];
    for (target, from) in [
        (backend.addresses.v4(9), net.balancer.addresses.v4(0)),
        (backend.addresses.v6(9), net.balancer.addresses.v6(0)),
    ] {
        let local = net.balancer.netns.run_in(|| {
            let any = if from.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let unbound = std::net::UdpSocket::bind(any)?;
            unbound.connect(target)?;
            unbound.local_addr()
        })?;
        assert_eq!(local.ip(), from.ip(), "and not a service's");
    }
    Ok(())
}

#[test]
fn a_pinned_program_stays_until_its_pin_is_removed() -> Result<()> {
    harness::agent::mount_bpffs()?;
    let namespace = Namespace::new("pin")?;
    namespace.ip("link add veth0 type veth peer name veth1")?;
    let attached = || namespace.ip("link show veth0").is_ok_and(|text| text.contains("prog/xdp"));
    let pins = Path::new(harness::sweep::BPFFS).join(format!("{}pin", harness::sweep::own_prefix()));
    fs::create_dir(&pins)?;
    let pass = Attached::new(&namespace, "veth0", &PASS)?;
    pass.pin(&pins.join("pass"))?;
    drop(pass);
    assert!(attached());
    fs::remove_dir_all(&pins)?;
    wait_until("it is gone", SECOND, || !attached())?;
    Ok(())
}
