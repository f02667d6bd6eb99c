//! The harness itself, without Flowgate: the kernel routes and bridges in its place.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use harness::{
    checksums::{check, verify_checksums},
    http,
    link::Mac,
    load::{Load, Plan},
    long_lived::LongLived,
    netns::Namespace,
    packets::{Packet, Parsed, flags},
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
fn servers_stop_and_start_as_machines_do() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let client = &net.client.netns;
    let mut server = net.serve_http(8080)?.remove(0);
    let target = net.backends[0].addresses.v4(8080);
    let get = |path: &str| client.run_in(|| http::get(target, path, SECOND));

    assert_eq!(get("/healthz")?.status, 200);
    server.set_healthy(false);
    assert_eq!(get("/healthz")?.status, 503);
    assert_eq!(get("/nothing")?.status, 404);
    let begun = Instant::now();
    assert_eq!(get("/slow/120")?.body, b"b1\n");
    assert!(begun.elapsed() >= Duration::from_millis(120));
    assert_eq!((server.requests(), server.health_requests(), server.connections()), (2, 2, 4));

    let mut open = client.run_in(|| http::Connection::open(target, SECOND))?;
    open.get("/")?;
    assert_eq!(open.get("/")?.backend, "b1", "a connection takes more than one request");
    let in_the_middle = client.spawn_thread("slow", move || http::get(target, "/slow/5000", 9 * SECOND));
    wait_until("it is asked", SECOND, || server.requests() == 5)?;
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < SECOND, "stopping took {:?}", begun.elapsed());
    let reset = format!("{:#}", open.get("/").unwrap_err());
    assert!(reset.contains("reset"), "{reset}");
    let reset = format!("{:#}", in_the_middle.join().unwrap().unwrap_err());
    assert!(reset.contains("reset"), "{reset}");
    let refused = format!("{:#}", get("/").unwrap_err());
    assert!(refused.contains("refused"), "{refused}");

    server.start()?;
    assert_eq!(get("/")?.backend, "b1");
    Ok(())
}

#[test]
fn echo_servers_say_who_they_are() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let tcp = net.serve_tcp_echo(7)?;
    let mut udp = net.serve_udp_echo(7)?;
    let backend = &net.backends[1];
    for target in [backend.addresses.v4(7), backend.addresses.v6(7)] {
        let mut stream = net.client.netns.run_in(|| TcpStream::connect_timeout(&target, SECOND))?;
        stream.write_all(b"one\ntwo\n")?;
        let lines: Vec<_> = BufReader::new(stream).lines().take(2).collect::<Result<_, _>>()?;
        assert_eq!(lines, ["b2 one", "b2 two"]);
    }
    assert_eq!((tcp[0].requests(), tcp[1].requests()), (0, 4));

    let target = backend.addresses.v4(7);
    let load = Load::start(&net.client.netns, Plan::udp_one_socket(target).workers(2));
    wait_until("datagrams are answered", SECOND, || load.snapshot().answered_by("b2") > 10)?;
    udp.clear();
    wait_until("they are refused", SECOND, || load.snapshot().failed > 2)?;
    let report = load.stop();
    // A datagram that was in the socket's queue when it was closed is lost without a word.
    let expected = |error: &String| error.contains("refused") || error.contains("no answer");
    assert!(report.errors.keys().all(expected), "{report}");
    Ok(())
}

#[test]
fn load_counts_what_servers_count() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let mut server = net.serve_http(8080)?.remove(0);
    let target = net.backends[0].addresses.v6(8080);
    for plan in [Plan::http(target), Plan::http_keep_alive(target)] {
        let (requests, connections) = (server.requests(), server.connections());
        let keep_alive = plan.traffic == harness::load::Traffic::HttpKeepAlive;
        let load = Load::start(&net.client.netns, plan);
        thread::sleep(SECOND / 2);
        let half_time = Instant::now();
        let so_far = load.between(half_time - SECOND, half_time);
        thread::sleep(SECOND / 4);
        let rest = load.since(half_time);
        assert!(so_far.requests > rest.requests && rest.requests > 10, "{so_far} / {rest}");
        let report = load.stop();
        assert_eq!((report.failed, report.answered_by("b1")), (0, report.requests), "{report}");
        assert_eq!(server.requests() - requests, report.requests);
        let connections = server.connections() - connections;
        assert_eq!(connections, if keep_alive { 4 } else { report.requests });
    }

    // A break in the middle is seen where it was.
    let load = Load::start(&net.client.netns, Plan::http(target));
    thread::sleep(SECOND / 5);
    let stopped = Instant::now();
    server.stop();
    thread::sleep(SECOND / 5);
    server.start()?;
    let started = Instant::now();
    wait_until("it answers", SECOND, || load.first_answer_of("b1", started).is_some())?;
    let last = load.last_disturbed(stopped, SECOND).expect("failures were recorded");
    let outage = last.begun - stopped;
    assert!(outage > SECOND / 8 && outage < SECOND / 2, "{outage:?}");
    assert!(load.last_disturbed(started + SECOND / 10, SECOND).is_none());
    let report = load.stop();
    assert!(report.failed > 10 && report.errors.keys().any(|error| error.contains("refused")), "{report}");
    Ok(())
}

#[test]
fn long_lived_connections_notice_when_they_break() -> Result<()> {
    let net = Topology::one_arm(2)?;
    let mut servers = net.serve_http(8080)?;
    let every = Duration::from_millis(20);
    let held = |n: usize| LongLived::open(&net.client.netns, net.backends[n].addresses.v4(8080), 5, every);
    let (mut first, second) = (held(0)?, held(1)?);
    assert_eq!(first.by_backend().get("b1"), Some(&5));
    assert_eq!(first.close_some("b1", 2), 2);
    assert_eq!(first.by_backend().get("b1"), Some(&3));
    servers[0].stop();
    wait_until("the breaks are seen", SECOND, || first.broken().len() == 3)?;
    assert!(first.by_backend().is_empty());
    assert_eq!((second.broken().len(), second.moved(), second.by_backend()["b2"]), (0, 0, 5));
    assert!(second.states().iter().all(|state| state.answers > 0 && state.local.is_some()));
    let gone = LongLived::open(&net.client.netns, net.backends[0].addresses.v4(8080), 2, every);
    assert!(format!("{:#}", gone.unwrap_err()).contains("refused"));
    Ok(())
}

#[test]
fn frames_are_sent_and_captured_as_they_are() -> Result<()> {
    let net = Topology::two_arm(0)?;
    let (here, there) = (Wire::open(&net.client.netns, "eth0")?, Wire::open(&net.balancer.netns, "eth0")?);
    let (source, target) = (net.client.addresses.v4(1234), net.service.v4(80));
    let packet = Packet::tcp(source, target).macs(net.client.mac, net.balancer.mac).flags(flags::SYN);
    for packet in [packet.clone(), packet.clone().payload(&[7; 1400]), packet.ip_options(&[1; 40]).ttl(1)] {
        let sent = packet.frame();
        here.send(&sent)?;
        let same = |frame: &harness::wire::Frame| frame.bytes == sent;
        let seen = there.find(SECOND, same)?.expect("it arrives");
        assert!(!seen.outgoing);
    }
    Ok(())
}

#[test]
fn what_the_stack_sends_has_whole_checksums() -> Result<()> {
    let net = Topology::one_arm(1)?;
    let _servers = net.serve_http(8080)?;
    let wire = Wire::open(&net.backends[0].netns, "eth0")?;
    for target in [net.backends[0].addresses.v4(8080), net.backends[0].addresses.v6(8080)] {
        net.client.netns.run_in(|| http::get(target, "/bytes/50000", SECOND))?;
    }
    let frames = wire.drain()?;
    let tcp =
        frames.iter().filter(|frame| Parsed::try_of(&frame.bytes).is_ok_and(|frame| frame.protocol == 6));
    let mut checked = 0;
    for frame in tcp {
        verify_checksums(&frame.bytes);
        let mut corrupted = frame.bytes.clone();
        *corrupted.last_mut().unwrap() ^= 0x10;
        assert!(check(&corrupted).is_err());
        checked += 1;
    }
    assert!(checked > 60, "{checked}");
    Ok(())
}

#[test]
fn fragments_arrive_whole_at_a_socket() -> Result<()> {
    let net = Topology::two_arm(0)?;
    let wire = Wire::open(&net.client.netns, "eth0")?;
    let balancer = net.balancer.addresses;
    let client = net.client.addresses;
    let payload: Vec<u8> = (0..3000u16).map(|n| n.to_be_bytes()[1]).collect();
    for (source, target) in [(client.v4(99), balancer.v4(99)), (client.v6(99), balancer.v6(99))] {
        let socket = net.balancer.netns.run_in(|| std::net::UdpSocket::bind(target))?;
        socket.set_read_timeout(Some(SECOND))?;
        let packet = Packet::udp(source, target).macs(net.client.mac, net.balancer.mac).payload(&payload);
        let fragments = packet.fragments(1008);
        assert_eq!(fragments.len(), 3);
        assert_eq!(
            Parsed::of(&fragments[2]).fragment.map(|part| (part.offset, part.more)),
            Some((2016, false))
        );
        for fragment in &fragments {
            wire.send(fragment)?;
        }
        let mut buffer = vec![0; 4096];
        let (length, from) = socket.recv_from(&mut buffer)?;
        assert_eq!((&buffer[..length], from), (payload.as_slice(), source));
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
