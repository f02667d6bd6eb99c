use std::{io, net::Ipv4Addr};

use tokio::{io::AsyncWriteExt, net::TcpListener, time::timeout};

use super::*;
use crate::model::HttpCheck;

const INTERVAL: Duration = Duration::from_millis(40);

fn check(probe: Probe) -> HealthCheck {
    // The timeout is long, so that a busy machine does not make a failure of an answer that is late.
    HealthCheck { probe, interval: INTERVAL, timeout: Duration::from_secs(1), rise: 2, fall: 3, port: None }
}

fn target(service: &str, backend: SocketAddr, check: HealthCheck) -> Target {
    Target { service: service.parse().expect("a valid name"), backend, check, initial: Health::Checking }
}

/// A backend that nothing listens on.
async fn closed_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()
}

/// The next event, as (health, reason).
async fn next(events: &mut mpsc::Receiver<HealthEvent>) -> (Health, String) {
    let event = timeout(Duration::from_secs(2), events.recv()).await.expect("an event in time");
    let event = event.expect("the monitor runs");
    (event.health, event.reason)
}

/// Nothing is told for some intervals.
async fn quiet(events: &mut mpsc::Receiver<HealthEvent>) {
    let event = timeout(INTERVAL * 5, events.recv()).await;
    assert!(event.is_err(), "{event:?}");
}

fn refused() -> String {
    "connection refused".to_owned()
}

fn not_probed() -> String {
    NOT_PROBED.to_owned()
}

#[tokio::test]
async fn a_backend_that_answers_is_up_after_one_probe() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (monitor, mut events) = Monitor::spawn(Prober::default());
    monitor.set_targets(vec![target("web", listener.local_addr()?, check(Probe::Tcp))]);
    assert_eq!(next(&mut events).await, (Health::Checking, not_probed()));
    assert_eq!(next(&mut events).await, (Health::Up, String::new()));
    quiet(&mut events).await;
    Ok(())
}

#[tokio::test]
async fn a_backend_goes_and_comes_back() -> io::Result<()> {
    let backend = closed_port().await?;
    let (monitor, mut events) = Monitor::spawn(Prober::default());
    monitor.set_targets(vec![target("web", backend, check(Probe::Tcp))]);
    assert_eq!(next(&mut events).await, (Health::Checking, not_probed()));
    assert_eq!(next(&mut events).await, (Health::Checking, refused()), "the reason changed");
    assert_eq!(next(&mut events).await, (Health::Down, refused()));
    let listener = TcpListener::bind(backend).await?;
    assert_eq!(next(&mut events).await, (Health::Up, String::new()));
    drop(listener);
    assert_eq!(next(&mut events).await, (Health::Down, refused()));
    Ok(())
}

#[tokio::test]
async fn an_adopted_backend_keeps_its_verdict_until_fall_probes_failed() -> io::Result<()> {
    let backend = closed_port().await?;
    let (monitor, mut events) = Monitor::spawn(Prober::default());
    let started = now();
    monitor.set_targets(vec![Target { initial: Health::Up, ..target("web", backend, check(Probe::Tcp)) }]);
    assert_eq!(next(&mut events).await, (Health::Up, String::new()));
    assert_eq!(next(&mut events).await, (Health::Down, refused()));
    // The first two may be close together; the third is a whole interval after the second.
    assert!(started.elapsed() >= INTERVAL);
    Ok(())
}

#[tokio::test]
async fn without_a_probe_a_backend_is_up_at_once() {
    let (monitor, mut events) = Monitor::spawn(Prober::default());
    let backend = (Ipv4Addr::LOCALHOST, 9).into();
    monitor.set_targets(vec![Target { initial: Health::Down, ..target("web", backend, check(Probe::None)) }]);
    assert_eq!(next(&mut events).await, (Health::Up, String::new()));
    quiet(&mut events).await;
}

#[tokio::test]
async fn targets_that_stay_keep_their_state_whatever_the_order() -> io::Result<()> {
    let one = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (monitor, mut events) = Monitor::spawn(Prober::default());
    let one = target("web", one.local_addr()?, check(Probe::Tcp));
    let other = target("web", other.local_addr()?, check(Probe::Tcp));
    monitor.set_targets(vec![one.clone(), other.clone()]);
    for _ in 0..4 {
        next(&mut events).await;
    }
    monitor.set_targets(vec![other.clone(), one.clone(), other]);
    quiet(&mut events).await;
    monitor.set_targets(vec![]);
    monitor.set_targets(vec![one]);
    // Both sets may be seen as one change; where they are not, the backend is new.
    quiet_or_new(&mut events).await;
    Ok(())
}

async fn quiet_or_new(events: &mut mpsc::Receiver<HealthEvent>) {
    if let Ok(Some(event)) = timeout(INTERVAL * 5, events.recv()).await {
        assert_eq!(event.health, Health::Checking);
    }
}

#[tokio::test]
async fn another_check_keeps_the_verdict_until_it_has_its_own() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let backend = listener.local_addr()?;
    let (monitor, mut events) = Monitor::spawn(Prober::default());
    monitor.set_targets(vec![target("web", backend, check(Probe::Tcp))]);
    next(&mut events).await;
    assert_eq!(next(&mut events).await.0, Health::Up);
    // Same backend, a port that refuses: no event says `checking`, the next one is the new check's verdict.
    let elsewhere = HealthCheck { port: Some(closed_port().await?.port()), ..check(Probe::Tcp) };
    monitor.set_targets(vec![target("web", backend, elsewhere)]);
    assert_eq!(next(&mut events).await, (Health::Down, refused()));
    monitor.set_targets(vec![target("web", backend, check(Probe::None))]);
    assert_eq!(next(&mut events).await, (Health::Up, String::new()));
    Ok(())
}

#[tokio::test]
async fn a_backend_that_is_gone_is_not_probed_any_more() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (monitor, mut events) = Monitor::spawn(Prober::default());
    monitor.set_targets(vec![target("web", listener.local_addr()?, check(Probe::Tcp))]);
    next(&mut events).await;
    next(&mut events).await;
    monitor.set_targets(vec![]);
    tokio::time::sleep(INTERVAL).await;
    while timeout(Duration::from_millis(1), listener.accept()).await.is_ok() {}
    assert!(timeout(INTERVAL * 4, listener.accept()).await.is_err(), "still probed");
    drop(monitor);
    assert_eq!(events.recv().await, None, "the monitor has ended");
    Ok(())
}

#[tokio::test]
async fn a_dead_backend_is_out_within_the_promised_time() -> io::Result<()> {
    // Silent: the kernel accepts, nothing answers.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let http = Probe::Http(HttpCheck { path: "/".to_owned(), host: None, expect_status: (200, 399) });
    let check = HealthCheck { interval: INTERVAL * 2, timeout: INTERVAL, ..check(http) };
    let (monitor, mut events) = Monitor::spawn(Prober::default());
    let silent = target("web", listener.local_addr()?, check.clone());
    monitor.set_targets(vec![Target { initial: Health::Up, ..silent }]);
    assert_eq!(next(&mut events).await.0, Health::Up);
    let started = now();
    assert_eq!(next(&mut events).await, (Health::Down, "no answer within 40ms".to_owned()));
    let promised = check.interval * check.fall + check.timeout;
    // What is left over is for a busy machine.
    assert!(started.elapsed() < promised + Duration::from_millis(150), "{:?}", started.elapsed());
    Ok(())
}

#[tokio::test]
async fn the_reason_is_told_when_it_changes() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let backend = listener.local_addr()?;
    let http = Probe::Http(HttpCheck { path: "/".to_owned(), host: None, expect_status: (200, 200) });
    let (monitor, mut events) = Monitor::spawn(Prober::default());
    monitor.set_targets(vec![Target { initial: Health::Down, ..target("web", backend, check(http)) }]);
    assert_eq!(next(&mut events).await, (Health::Down, ADOPTED_DOWN.to_owned()));
    for status in [500, 503, 200, 200] {
        let (mut stream, _) = listener.accept().await?;
        stream.write_all(format!("HTTP/1.1 {status} X\r\n\r\n").as_bytes()).await?;
        let mut rest = Vec::new();
        drop(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await);
    }
    let status = |status| (Health::Down, format!("HTTP status {status}, expected 200"));
    assert_eq!(next(&mut events).await, status(500));
    assert_eq!(next(&mut events).await, status(503));
    assert_eq!(next(&mut events).await, (Health::Up, String::new()));
    Ok(())
}
