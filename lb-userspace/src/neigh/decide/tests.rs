use super::*;
use crate::neigh::tables::{InterfaceAddress, Prefix};

const OWN: Mac = [2, 0, 0, 0, 0, 1];
const MAC: Mac = [2, 0, 0, 0, 0, 2];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn eth1() -> Link {
    Link { index: 3, name: "eth1".to_owned(), mac: Some(OWN), mtu: 1500, up: true, carrier: true }
}

fn on_link() -> Route {
    Route { kind: RouteKind::Unicast, ifindex: 3, gateway: None, source: Some(ip("10.2.0.1")), mtu: None }
}

fn neighbour(state: NeighbourState, mac: Option<Mac>) -> Neighbour {
    Neighbour { state, mac, kept: false }
}

/// eth1 with 10.2.0.1/24, and what is known of `neighbour`.
fn tables(link: Link, of: &str, entry: Option<Neighbour>) -> Tables {
    let network = Prefix { address: ip("10.2.0.1"), length: 24 };
    Tables {
        addresses: [InterfaceAddress { ifindex: link.index, network }].into(),
        neighbours: entry.into_iter().map(|entry| ((link.index, ip(of)), entry)).collect(),
        links: [(link.index, link)].into(),
    }
}

fn hop(mac: Mac) -> NextHop {
    NextHop {
        ifindex: 3,
        interface: "eth1".to_owned(),
        gateway: ip("10.2.0.11"),
        on_link: true,
        mac,
        source_mac: OWN,
        source: Some(ip("10.2.0.1")),
        mtu: 1500,
    }
}

#[test]
fn which_neighbours_can_be_used() {
    use NeighbourState::{
        Delay, Failed, Incomplete, NoArp, None as Unasked, Permanent, Probe, Reachable, Stale,
    };
    let waiting = "waiting for 10.2.0.11 to answer ARP on eth1";
    let silent = "10.2.0.11 does not answer ARP on eth1: check that it is running and on that network";
    let table = [
        (None, Err(waiting)),
        (Some(neighbour(Unasked, None)), Err(waiting)),
        (Some(neighbour(Incomplete, None)), Err(waiting)),
        (Some(neighbour(Reachable, Some(MAC))), Ok(MAC)),
        (Some(neighbour(Stale, Some(MAC))), Ok(MAC)),
        (Some(neighbour(Delay, Some(MAC))), Ok(MAC)),
        (Some(neighbour(Probe, Some(MAC))), Ok(MAC)),
        (Some(neighbour(Failed, Some(MAC))), Err(silent)),
        (Some(neighbour(Failed, None)), Err(silent)),
        (Some(neighbour(Permanent, Some(MAC))), Ok(MAC)),
        (Some(neighbour(Permanent, None)), Err(silent)),
        (Some(neighbour(NoArp, Some(MAC))), Ok(MAC)),
        (Some(neighbour(NoArp, Some(OWN))), Err(silent)),
        (Some(neighbour(NoArp, None)), Err(silent)),
    ];
    for (entry, expected) in table {
        let tables = tables(eth1(), "10.2.0.11", entry);
        let decision = decide(ip("10.2.0.11"), &Ok(on_link()), &tables, None);
        let expected = expected
            .map(hop)
            .map_err(|reason| Unresolved { reason: reason.to_owned(), pending: reason == waiting });
        assert_eq!(decision.result, expected, "{entry:?}");
        assert_eq!(decision.neighbour, Some((3, ip("10.2.0.11"))), "{entry:?}");
    }
}

/// While the kernel asks, what was said before holds, if it was of the same neighbour.
#[test]
fn an_open_question_takes_nothing_away() {
    let silent = Unresolved::settled(silent(ip("10.2.0.11"), ip("10.2.0.11"), &eth1()));
    let pending = Unresolved::pending(pending(ip("10.2.0.11"), ip("10.2.0.11"), &eth1()));
    let elsewhere = NextHop { ifindex: 4, ..hop(MAC) };
    let behind = NextHop { gateway: ip("10.2.0.254"), ..hop(MAC) };
    let other = Unresolved::settled("no route".to_owned());
    let small = NextHop { mtu: 1400, ..hop(MAC) };
    let table = [
        (None, Err(pending.clone())),
        (Some(Ok(hop(MAC))), Ok(hop(MAC))),
        // The rest is of this moment.
        (Some(Ok(small)), Ok(hop(MAC))),
        (Some(Ok(elsewhere)), Err(pending.clone())),
        (Some(Ok(behind)), Err(pending.clone())),
        (Some(Err(silent.clone())), Err(silent)),
        (Some(Err(other)), Err(pending.clone())),
        (Some(Err(pending.clone())), Err(pending)),
    ];
    for entry in [None, Some(neighbour(NeighbourState::Incomplete, None))] {
        let tables = tables(eth1(), "10.2.0.11", entry);
        for (before, expected) in &table {
            let decision = decide(ip("10.2.0.11"), &Ok(on_link()), &tables, before.as_ref());
            assert_eq!(decision.result, *expected, "{before:?}");
        }
    }
}

#[test]
fn a_gateway_is_the_neighbour() {
    for (address, gateway) in
        [("10.9.0.1", "10.2.0.254"), ("2001:db8::9", "fe80::1"), ("10.9.0.1", "fe80::1")]
    {
        let route = Route { gateway: Some(ip(gateway)), ..on_link() };
        let reachable = Some(neighbour(NeighbourState::Reachable, Some(MAC)));
        let tables = tables(eth1(), gateway, reachable);
        let decision = decide(ip(address), &Ok(route), &tables, None);
        let expected = NextHop { gateway: ip(gateway), on_link: false, ..hop(MAC) };
        assert_eq!(decision.result, Ok(expected));
        assert_eq!(decision.neighbour, Some((3, ip(gateway))));
    }
}

#[test]
fn the_smaller_mtu_counts() {
    for (link, route, expected) in [(1500, None, 1500), (1500, Some(1400), 1400), (1500, Some(9000), 1500)] {
        let reachable = Some(neighbour(NeighbourState::Reachable, Some(MAC)));
        let tables = tables(Link { mtu: link, ..eth1() }, "10.2.0.11", reachable);
        let decision = decide(ip("10.2.0.11"), &Ok(Route { mtu: route, ..on_link() }), &tables, None);
        assert_eq!(decision.result.map(|hop| hop.mtu), Ok(expected));
    }
}

#[test]
fn reasons_name_the_thing_and_the_way_out() {
    let address = "10.2.0.11";
    let down = Link { up: false, carrier: false, ..eth1() };
    let no_carrier = Link { carrier: false, ..eth1() };
    let tunnel = Link { name: "tun0".to_owned(), mac: None, ..eth1() };
    let elsewhere = Link { index: 4, ..eth1() };
    let failed = Some(neighbour(NeighbourState::Failed, None));
    let kind = |kind| Ok(Route { kind, ..on_link() });
    let table = [
        (
            address,
            Err(NoRoute::None),
            eth1(),
            "no route to 10.2.0.11: add one, or give an interface an address in its network",
        ),
        (
            address,
            Err(NoRoute::None),
            down.clone(),
            "no route to 10.2.0.11: interface eth1, which has 10.2.0.1/24, is down: `ip link set eth1 up`",
        ),
        (
            "10.3.0.11",
            Err(NoRoute::None),
            down.clone(),
            "no route to 10.3.0.11: add one, or give an interface an address in its network",
        ),
        (
            address,
            Err(NoRoute::Forbidden("blackhole")),
            eth1(),
            "the route to 10.2.0.11 is of type blackhole: see `ip route get 10.2.0.11`",
        ),
        (
            address,
            Err(NoRoute::Failed("why".to_owned())),
            eth1(),
            "the kernel's route to 10.2.0.11 could not be looked up: why",
        ),
        (
            address,
            kind(RouteKind::Local),
            eth1(),
            "the route to 10.2.0.11 is local (the address is this machine's own): a backend is another machine",
        ),
        (
            address,
            kind(RouteKind::Broadcast),
            eth1(),
            "10.2.0.11 is not the address of one machine: a backend has a unicast address",
        ),
        (
            address,
            kind(RouteKind::Other),
            eth1(),
            "10.2.0.11 is not the address of one machine: a backend has a unicast address",
        ),
        (address, Ok(on_link()), down, "interface eth1 is down: `ip link set eth1 up`"),
        (address, Ok(on_link()), no_carrier, "interface eth1 has no carrier: check its cable, or its peer"),
        (
            address,
            Ok(on_link()),
            tunnel,
            "interface tun0 is not an Ethernet interface: backends must be reached through one that is",
        ),
        (address, Ok(on_link()), elsewhere, "the interface that leads to 10.2.0.11 (index 3) is gone"),
        (
            "10.9.0.1",
            Ok(Route { gateway: Some(ip(address)), ..on_link() }),
            eth1(),
            "10.2.0.11, the gateway to 10.9.0.1, does not answer ARP on eth1: check that it is running, or the route",
        ),
        (
            "fe80::1",
            Ok(on_link()),
            eth1(),
            "fe80::1 is link-local, so it names no interface: use a global or unique-local address",
        ),
    ];
    for (address, route, link, reason) in table {
        let tables = tables(link, "10.2.0.11", failed);
        let decision = decide(ip(address), &route, &tables, None);
        assert_eq!(decision.result, Err(Unresolved::settled(reason.to_owned())), "{route:?}");
    }
}

#[test]
fn whom_the_kernel_should_ask_for() {
    use NeighbourState::{
        Delay, Failed, Incomplete, NoArp, None as Unasked, Permanent, Probe, Reachable, Stale,
    };
    assert_eq!(ask_after(None), Some(Duration::from_secs(1)));
    let table = [
        (Unasked, Some(1)),
        (Incomplete, None),
        (Reachable, None),
        (Stale, Some(10)),
        (Delay, None),
        (Probe, None),
        (Failed, Some(4)),
        (NoArp, None),
        (Permanent, None),
    ];
    for (state, seconds) in table {
        let entry = neighbour(state, Some(MAC));
        assert_eq!(ask_after(Some(&entry)), seconds.map(Duration::from_secs), "{state:?}");
        assert_eq!(ask_after(Some(&Neighbour { kept: true, ..entry })), None, "{state:?}, kept by another");
    }
}
