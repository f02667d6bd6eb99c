//! What must become of a frame, by the modes' description and the RFCs.

use std::net::SocketAddr;

use lb_common::Mode;

use super::{
    datagram::{Datagram, ETHERNET, Seen, read},
    world::{PartKey, Place, World},
};
use crate::{
    dataplane::{BALANCER_MACS, CLIENT_MAC, backend_mac},
    link::Mac,
};

/// What must become of it.
#[derive(Clone, Debug)]
pub(super) enum Expect {
    /// The kernel gets it as it came.
    Pass,
    /// It is sent on.
    Forward(Route),
    /// It is sent on, if the data plane remembers what it follows; else the kernel gets it as it came.
    MayForward(Route),
    /// Its last hop was here: it is dropped, or its sender is told.
    Dies,
    /// The same if the data plane remembers what it follows; else the kernel gets it as it came.
    MayDie,
    /// An ICMP message: it may be a ping, or an error about a packet that is known.
    Icmp,
}

/// How a packet is sent on.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// The service.
    pub(super) place: Place,
    /// Whether it goes to a client.
    pub(super) is_answer: bool,
    /// Ethernet's source and destination.
    pub(super) macs: (Mac, Mac),
    /// What its addresses and ports become, where they change: none where the data plane has a choice.
    pub(super) source: Option<SocketAddr>,
    /// See `source`.
    pub(super) destination: SocketAddr,
    /// Of a later part: the identification that its first one has got, where it has got another.
    pub(super) identification: Option<u32>,
}

impl Route {
    /// Whether addresses and ports change.
    #[must_use]
    pub(super) fn translates(&self) -> bool {
        self.place.kind.rewrites()
    }
}

/// What parts of the same packet have in common.
#[must_use]
pub(super) fn part_key(packet: &Datagram) -> Option<PartKey> {
    let (identification, _) = packet.part?;
    let protocol = if packet.source.is_ipv4() { packet.protocol } else { 0 };
    Some((packet.source.ip(), packet.destination.ip(), identification, protocol))
}

/// What must become of a frame.
#[must_use]
pub(super) fn expect(world: &World, frame: &[u8]) -> (Expect, Seen) {
    let seen = read(frame);
    let expected = match &seen {
        Seen::Foreign => Expect::Pass,
        Seen::Icmp => Expect::Icmp,
        Seen::Packet(packet) => of_packet(world, packet),
        Seen::Later(packet) => of_part(world, packet),
    };
    (expected, seen)
}

fn of_packet(world: &World, packet: &Datagram) -> Expect {
    if let Some(place) = world.service_of(packet) {
        // dsr is a switch, everything else a router (RFC 1812, 5.3.1; RFC 8200, 3).
        if place.kind.mode != Mode::Dsr && packet.hops <= 1 {
            return Expect::Dies;
        }
        return Expect::Forward(request(place, packet));
    }
    match answered(world, packet) {
        Some(_) if packet.hops <= 1 => Expect::MayDie,
        Some((place, client)) => Expect::MayForward(Route {
            place,
            is_answer: true,
            macs: (BALANCER_MACS[0], CLIENT_MAC),
            source: Some(place.address()),
            destination: client,
            identification: None,
        }),
        None => Expect::Pass,
    }
}

fn request(place: Place, packet: &Datagram) -> Route {
    let source = match place.kind.mode {
        Mode::FullNat => None,
        Mode::Nat | Mode::Dsr | Mode::Ipip | Mode::Gue => Some(packet.source),
    };
    Route {
        place,
        is_answer: false,
        macs: (BALANCER_MACS[0], backend_mac(place.backend())),
        source,
        destination: if place.kind.rewrites() { place.backend() } else { place.address() },
        identification: None,
    }
}

/// The flow that a packet answers, and its client.
fn answered(world: &World, packet: &Datagram) -> Option<(Place, SocketAddr)> {
    let key = (packet.protocol, packet.source, packet.destination);
    if let Some((client, place)) = world.translated.get(&key) {
        return Some((*place, *client));
    }
    let place = world.places.iter().find(|place| {
        place.kind.mode == Mode::Nat
            && place.protocol() == packet.protocol
            && place.backend() == packet.source
            && world.steered.contains(&(packet.destination, place.port))
    })?;
    Some((*place, packet.destination))
}

fn of_part(world: &World, packet: &Datagram) -> Expect {
    match part_key(packet).and_then(|key| world.parts.get(&key)) {
        Some(route) if route.place.kind.mode != Mode::Dsr && packet.hops <= 1 => Expect::MayDie,
        Some(route) => Expect::MayForward(route.clone()),
        None => Expect::Pass,
    }
}

/// The bytes behind the Ethernet header as they must be, but for checksums: of the packet inside, if it goes into a tunnel.
#[must_use]
pub(super) fn written(
    route: &Route,
    frame: &[u8],
    packet: &Datagram,
    out: &Datagram,
    is_later: bool,
) -> Vec<u8> {
    let mut expected = frame.to_vec();
    let mode = route.place.kind.mode;
    if mode == Mode::Dsr {
        return expected.split_off(ETHERNET);
    }
    let hops = if packet.source.is_ipv4() { ETHERNET + 8 } else { ETHERNET + 7 };
    expected[hops] -= 1;
    if route.translates() {
        let source = route.source.unwrap_or(out.source);
        write_addresses(&mut expected, source, route.destination);
        if let (Some((_, at)), Some((identification, _))) = (packet.part, out.part) {
            let identification = route.identification.unwrap_or(identification);
            let bytes = identification.to_be_bytes();
            let bytes = if packet.source.is_ipv4() { &bytes[2..] } else { &bytes[..] };
            expected[at..at + bytes.len()].copy_from_slice(bytes);
        }
        if !is_later {
            let at = packet.transport;
            expected[at..at + 2].copy_from_slice(&source.port().to_be_bytes());
            expected[at + 2..at + 4].copy_from_slice(&route.destination.port().to_be_bytes());
        }
    }
    expected.split_off(ETHERNET)
}

fn write_addresses(frame: &mut [u8], source: SocketAddr, destination: SocketAddr) {
    let (at, bytes) = match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            (12, [source.ip().octets(), destination.ip().octets()].concat())
        }
        (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
            (8, [source.ip().octets(), destination.ip().octets()].concat())
        }
        (source, destination) => panic!("from {source} to {destination}"),
    };
    frame[ETHERNET + at..ETHERNET + at + bytes.len()].copy_from_slice(&bytes);
}

/// Where the checksums of a packet are, counted from its IP header: IPv4's, and TCP's or UDP's.
#[must_use]
pub(super) fn checksums(packet: &Datagram, is_later: bool) -> Vec<usize> {
    let mut places = Vec::new();
    if packet.source.is_ipv4() {
        places.push(10);
    }
    if !is_later {
        let inside = if packet.protocol == super::datagram::TCP { 16 } else { 6 };
        places.push(packet.transport - ETHERNET + inside);
    }
    places
}
