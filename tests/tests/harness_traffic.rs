//! The harness's servers, load generators and packets, without Flowgate: the kernel routes and bridges in its place.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use harness::{
    checksums::{check, verify_checksums},
    http,
    load::{Load, Plan},
    long_lived::LongLived,
    packets::{Packet, Parsed, flags},
    topology::Topology,
    wait::wait_until,
    wire::Wire,
};

const SECOND: Duration = Duration::from_secs(1);

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
