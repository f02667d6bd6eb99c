//! Next hops and links, asked of the real kernel. Needs root.
//!
//! ```text
//!   here (this test's namespace)              there (another one)
//!   fgt-here 10.77.0.1/24, fd77::1/64 ─────── fgt-there 10.77.0.2/24, fd77::2/64
//! ```
//!
//! Both namespaces belong to threads of the test and have no name, so they vanish with them, interfaces included,
//! whatever becomes of the test.

use std::{
    collections::BTreeSet,
    future::Future,
    net::IpAddr,
    process::Command,
    sync::mpsc as blocking,
    thread,
    time::{Duration, Instant},
};

use flowgate::neigh::{NextHop, NextHopEvent, Resolver, Unresolved, links};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};
use tokio::{sync::mpsc, time::timeout};

/// What the kernel's own timers need: three questions, one second apart, before it gives up.
const PATIENCE: Duration = Duration::from_secs(12);

/// A network namespace of a thread; it goes when this is dropped.
struct There {
    thread: libc::pid_t,
    commands: Option<blocking::Sender<String>>,
    done: blocking::Receiver<()>,
    handle: Option<thread::JoinHandle<()>>,
}

impl There {
    fn new() -> Self {
        let (commands, todo) = blocking::channel::<String>();
        let (tell, done) = blocking::channel();
        let (tell_id, id) = blocking::channel();
        let handle = thread::spawn(move || {
            enter_new_namespace();
            tell_id.send(gettid().as_raw()).expect("the test waits for it");
            for command in todo {
                ip(&command);
                tell.send(()).expect("the test waits for it");
            }
        });
        let thread = id.recv().expect("a namespace of its own: run this test as root");
        Self { thread, commands: Some(commands), done, handle: Some(handle) }
    }

    /// `ip` with these arguments, in that namespace.
    fn ip(&self, arguments: &str) {
        let commands = self.commands.as_ref().expect("it is there until the drop");
        commands.send(arguments.to_owned()).expect("the thread runs");
        self.done.recv().unwrap_or_else(|_| panic!("`ip {arguments}` failed there"));
    }
}

impl Drop for There {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(handle) = self.handle.take() {
            // A panic there has failed the test already.
            drop(handle.join());
        }
    }
}

fn enter_new_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own: run this test as root");
}

/// `ip` with these arguments, in the namespace of this thread.
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs `test` in a thread with a namespace of its own, and a runtime that stays on that thread.
fn in_namespace<T: Future<Output = ()>>(test: impl FnOnce() -> T + Send + 'static) {
    let running = thread::spawn(|| {
        enter_new_namespace();
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test());
    });
    if let Err(panic) = running.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The two ends of the picture above.
fn connected() -> There {
    let there = There::new();
    ip("link add fgt-here type veth peer name fgt-there");
    ip(&format!("link set fgt-there netns {}", there.thread));
    ip("link set fgt-here address 02:00:00:00:77:01 up");
    ip("addr add 10.77.0.1/24 dev fgt-here");
    ip("addr add fd77::1/64 dev fgt-here nodad");
    there.ip("link set fgt-there address 02:00:00:00:77:02 up");
    there.ip("addr add 10.77.0.2/24 dev fgt-there");
    there.ip("addr add fd77::2/64 dev fgt-there nodad");
    there
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| address(text)).collect()
}

/// The first event that `wanted` takes; all must be of `of`.
async fn until(
    events: &mut mpsc::Receiver<NextHopEvent>,
    of: &str,
    wanted: impl Fn(&Result<NextHop, Unresolved>) -> bool,
) -> Result<NextHop, Unresolved> {
    let mut seen = Vec::new();
    let search = async {
        loop {
            let event = events.recv().await.expect("the resolver runs");
            assert_eq!(event.address, address(of));
            if wanted(&event.result) {
                return event.result;
            }
            seen.push(event.result);
        }
    };
    let found = timeout(PATIENCE, search).await;
    found.unwrap_or_else(|_| panic!("not in time for {of}; seen: {seen:?}"))
}

async fn resolved(events: &mut mpsc::Receiver<NextHopEvent>, of: &str) -> NextHop {
    until(events, of, Result::is_ok).await.expect("it is one that is ok")
}

/// Why there is no next hop, once the kernel does not ask any more.
async fn refused(events: &mut mpsc::Receiver<NextHopEvent>, of: &str) -> String {
    let settled = |result: &Result<NextHop, Unresolved>| result.as_ref().is_err_and(|reason| !reason.pending);
    until(events, of, settled).await.expect_err("it is one that is not ok").reason
}

#[test]
fn a_neighbour_is_found_and_its_new_mac_is_noticed() {
    in_namespace(|| async {
        let there = connected();
        let (resolver, mut events) = Resolver::spawn().expect("rtnetlink works");
        // IPv6 asks from the link-local address, which a new interface has only after a second or two.
        for (of, source, seconds) in [("10.77.0.2", "10.77.0.1", 1), ("fd77::2", "fd77::1", 5)] {
            resolver.watch(addresses(&[of]));
            let asked = Instant::now();
            let hop = resolved(&mut events, of).await;
            assert!(asked.elapsed() < Duration::from_secs(seconds), "{:?}", asked.elapsed());
            assert_eq!(hop.interface, "fgt-here");
            assert_eq!(hop.gateway, address(of));
            assert!(hop.on_link);
            assert_eq!(hop.mac, [2, 0, 0, 0, 0x77, 2]);
            assert_eq!(hop.source_mac, [2, 0, 0, 0, 0x77, 1]);
            assert_eq!(hop.source, Some(address(source)));
            assert_eq!(hop.mtu, 1500);
        }
        resolver.watch(addresses(&["10.77.0.2"]));
        resolved(&mut events, "10.77.0.2").await;
        // The machine is replaced, and says so as every operating system does: with a gratuitous ARP.
        there.ip("link set fgt-there address 02:00:00:00:77:22");
        ip("neigh replace 10.77.0.2 dev fgt-here lladdr 02:00:00:00:77:22 nud reachable");
        assert_eq!(resolved(&mut events, "10.77.0.2").await.mac, [2, 0, 0, 0, 0x77, 0x22]);
    });
}

#[test]
fn a_stale_entry_is_confirmed_and_a_permanent_one_left_alone() {
    in_namespace(|| async {
        let _there = connected();
        ip("neigh add 10.77.0.2 dev fgt-here lladdr 02:00:00:00:77:99 nud stale");
        ip("neigh add 10.77.0.3 dev fgt-here lladdr 02:00:00:00:77:03 nud permanent");
        let (resolver, mut events) = Resolver::spawn().expect("rtnetlink works");
        resolver.watch(addresses(&["10.77.0.3"]));
        assert_eq!(resolved(&mut events, "10.77.0.3").await.mac, [2, 0, 0, 0, 0x77, 3]);
        resolver.watch(addresses(&["10.77.0.2"]));
        // Wrong, but usable; the kernel confirms it without a packet of anyone's, and learns better.
        assert_eq!(resolved(&mut events, "10.77.0.2").await.mac, [2, 0, 0, 0, 0x77, 0x99]);
        let right = |result: &Result<NextHop, Unresolved>| {
            result.as_ref().is_ok_and(|hop| hop.mac == [2, 0, 0, 0, 0x77, 2])
        };
        until(&mut events, "10.77.0.2", right).await.expect("it is one that is ok");
        let entries = Command::new("ip").args(["neigh", "show", "10.77.0.3"]).output().expect("iproute2");
        assert!(String::from_utf8_lossy(&entries.stdout).contains("PERMANENT"), "{entries:?}");
    });
}

#[test]
fn an_address_behind_a_gateway() {
    in_namespace(|| async {
        let there = connected();
        let (resolver, mut events) = Resolver::spawn().expect("rtnetlink works");
        resolver.watch(addresses(&["10.99.0.5"]));
        let reason = refused(&mut events, "10.99.0.5").await;
        assert_eq!(reason, "no route to 10.99.0.5: add one, or give an interface an address in its network");
        ip("route add 10.99.0.0/16 via 10.77.0.2 mtu 1400");
        let hop = resolved(&mut events, "10.99.0.5").await;
        assert_eq!(hop.gateway, address("10.77.0.2"));
        assert!(!hop.on_link);
        assert_eq!(hop.mac, [2, 0, 0, 0, 0x77, 2]);
        assert_eq!(hop.mtu, 1400);
        // A more specific route, through another neighbour.
        there.ip("addr add 10.77.0.9/24 dev fgt-there");
        ip("route add 10.99.0.5/32 via 10.77.0.9");
        let moved = |result: &Result<NextHop, Unresolved>| {
            result.as_ref().is_ok_and(|hop| hop.gateway == address("10.77.0.9"))
        };
        assert_eq!(until(&mut events, "10.99.0.5", moved).await.map(|hop| hop.mtu), Ok(1500));
        ip("route replace blackhole 10.99.0.5/32");
        let reason = refused(&mut events, "10.99.0.5").await;
        assert!(reason.starts_with("the route to 10.99.0.5 is of type blackhole"), "{reason}");
    });
}

#[test]
fn a_silent_neighbour_comes_back() {
    in_namespace(|| async {
        let there = connected();
        let (resolver, mut events) = Resolver::spawn().expect("rtnetlink works");
        resolver.watch(addresses(&["10.77.0.50"]));
        let reason = refused(&mut events, "10.77.0.50").await;
        assert_eq!(
            reason,
            "10.77.0.50 does not answer ARP on fgt-here: check that it is running and on that network"
        );
        there.ip("addr add 10.77.0.50/24 dev fgt-there");
        assert_eq!(resolved(&mut events, "10.77.0.50").await.mac, [2, 0, 0, 0, 0x77, 2]);
    });
}

#[test]
fn an_interface_goes_down_and_comes_up() {
    in_namespace(|| async {
        let there = connected();
        let (resolver, mut events) = Resolver::spawn().expect("rtnetlink works");
        resolver.watch(addresses(&["10.77.0.2"]));
        resolved(&mut events, "10.77.0.2").await;
        there.ip("link set fgt-there down");
        let reason = refused(&mut events, "10.77.0.2").await;
        assert!(reason.starts_with("interface fgt-here has no carrier"), "{reason}");
        there.ip("link set fgt-there up");
        resolved(&mut events, "10.77.0.2").await;
        ip("link set fgt-here down");
        let reason = refused(&mut events, "10.77.0.2").await;
        assert_eq!(
            reason,
            "no route to 10.77.0.2: interface fgt-here, which has 10.77.0.1/24, is down: `ip link set fgt-here up`"
        );
        ip("link set fgt-here up");
        resolved(&mut events, "10.77.0.2").await;
    });
}

#[test]
fn a_flushed_entry_is_asked_for_again_and_nothing_is_told() {
    in_namespace(|| async {
        let _there = connected();
        let (resolver, mut events) = Resolver::spawn().expect("rtnetlink works");
        resolver.watch(addresses(&["10.77.0.2"]));
        resolved(&mut events, "10.77.0.2").await;
        ip("neigh flush all");
        let told = timeout(Duration::from_secs(2), events.recv()).await;
        assert!(told.is_err(), "{told:?}");
        let entries = Command::new("ip").args(["neigh", "show", "10.77.0.2"]).output().expect("iproute2");
        assert!(String::from_utf8_lossy(&entries.stdout).contains("lladdr"), "asked for again: {entries:?}");
    });
}

#[test]
fn addresses_that_are_no_other_machine() {
    in_namespace(|| async {
        let _there = connected();
        let (resolver, mut events) = Resolver::spawn().expect("rtnetlink works");
        for (of, beginning) in [
            ("10.77.0.1", "the route to 10.77.0.1 is local"),
            ("fd77::1", "the route to fd77::1 is local"),
            ("127.0.0.1", "the route to 127.0.0.1 is local"),
            ("10.77.0.255", "10.77.0.255 is not the address of one machine"),
            ("fe80::1", "fe80::1 is link-local"),
            ("2001:db8::1", "no route to 2001:db8::1"),
        ] {
            resolver.watch(addresses(&[of]));
            let reason = refused(&mut events, of).await;
            assert!(reason.starts_with(beginning), "{reason}");
        }
    });
}

#[test]
fn links_come_change_and_go() {
    in_namespace(|| async {
        let mut events = links::watch().expect("rtnetlink works");
        let mut next = async || {
            let event =
                timeout(PATIENCE, events.recv()).await.expect("an event in time").expect("it is watched");
            (event.name, event.up, event.gone)
        };
        assert_eq!(next().await, ("lo".to_owned(), true, false));
        let there = There::new();
        ip("link add fgt-here type veth peer name fgt-there");
        let mut made = [next().await, next().await];
        made.sort();
        assert_eq!(made, [("fgt-here".to_owned(), false, false), ("fgt-there".to_owned(), false, false)]);
        ip(&format!("link set fgt-there netns {}", there.thread));
        assert_eq!(next().await, ("fgt-there".to_owned(), false, true));
        there.ip("link set fgt-there up");
        ip("link set fgt-here up");
        assert_eq!(next().await, ("fgt-here".to_owned(), true, false));

        let link = links::by_name("fgt-here").await.expect("rtnetlink works").expect("it is there");
        assert!(link.running());
        assert_eq!(link.mtu, 1500);
        assert_eq!(links::by_index(link.index).await.expect("rtnetlink works"), Some(link));
        assert_eq!(links::by_name("fgt-none").await.expect("rtnetlink works"), None);

        there.ip("link set fgt-there down");
        assert_eq!(next().await, ("fgt-here".to_owned(), false, false));
        ip("link del fgt-here");
        assert_eq!(next().await, ("fgt-here".to_owned(), false, true));
    });
}

#[test]
fn a_storm_of_events_loses_nothing() {
    in_namespace(|| async {
        let _there = connected();
        let (resolver, mut events) = Resolver::spawn().expect("rtnetlink works");
        resolver.watch(addresses(&["10.99.3.5"]));
        refused(&mut events, "10.99.3.5").await;
        // More routes than the socket's buffer holds events, added while this thread reads none.
        let batch: String = (0..20_000).fold(String::new(), |batch, n| {
            batch
                + &format!(
                    "route add 10.{}.{}.{}/32 via 10.77.0.2\n",
                    100 + n / 10_000,
                    n / 100 % 100,
                    n % 100
                )
        });
        let file = std::env::temp_dir().join(format!("fgt-routes-{}", std::process::id()));
        std::fs::write(&file, batch + "route add 10.99.0.0/16 via 10.77.0.2\n").expect("a temporary file");
        ip(&format!("-batch {}", file.display()));
        std::fs::remove_file(&file).expect("it was there");
        let begun = Instant::now();
        resolved(&mut events, "10.99.3.5").await;
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    });
}
