//! Whether what became of a frame is what must have become of it; and what is known from then on.

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lb_common::{Mode, tunnel::GUE_PORT};

use super::{
    datagram::{Datagram, ETHERNET, Seen, read, residues},
    model::{self, Expect, Route, part_key},
    world::World,
};
use crate::dataplane::{Action, Fate};

/// What came out as it must, in one word, for counting.
pub(super) type Kind = &'static str;

/// Judges, and learns.
///
/// # Errors
/// Says what is wrong.
pub(super) fn judge(world: &mut World, frame: &[u8], fate: &Fate) -> Result<Kind, String> {
    let (expected, seen) = model::expect(world, frame);
    let untouched = || {
        if fate.frame == frame { Ok(()) } else { Err(format!("{:?}, and not as it came", fate.action)) }
    };
    match (expected, fate.action) {
        (Expect::Pass | Expect::MayForward(_) | Expect::MayDie | Expect::Icmp, Action::Pass) => {
            untouched().map(|()| "passed")
        }
        (Expect::Dies | Expect::MayDie, Action::Drop) => untouched().map(|()| "expired"),
        (Expect::Dies, Action::Tx) => is_icmp_error(frame, fate).map(|()| "told of its end"),
        (Expect::Icmp, Action::Drop) => untouched().map(|()| "icmp dropped"),
        (Expect::Icmp, Action::Tx) => is_right_still(frame, fate).map(|()| "icmp sent on"),
        (Expect::Forward(route) | Expect::MayForward(route), Action::Tx) => {
            let (packet, is_later) = match &seen {
                Seen::Packet(packet) => (packet, false),
                Seen::Later(packet) => (packet, true),
                Seen::Foreign | Seen::Icmp => unreachable!("nothing is sent on"),
            };
            let out = sent(&route, frame, (packet, is_later), fate)?;
            learn(world, &route, packet, &out, is_later);
            Ok(if is_later { "part sent on" } else { "sent on" })
        }
        (expected, action) => Err(format!("{action:?} where this was expected: {expected:?}")),
    }
}

/// Whether an ICMP message whose checksums were right has right ones.
fn is_right_still(frame: &[u8], fate: &Fate) -> Result<(), String> {
    match crate::checksums::check(frame) {
        Ok(()) => crate::checksums::check(&fate.frame),
        Err(_) => Ok(()),
    }
}

fn is_icmp_error(frame: &[u8], fate: &Fate) -> Result<(), String> {
    crate::checksums::check(&fate.frame)?;
    let answer = crate::packets::Parsed::try_of(&fate.frame)?;
    let quote = &answer.payload;
    if quote.len() >= 28 && frame[ETHERNET..].starts_with(quote) {
        Ok(())
    } else {
        Err(format!("an answer that does not quote what it is about: {answer:?}"))
    }
}

/// Whether a packet was sent on as it must be; the packet that has come out.
fn sent(
    route: &Route,
    frame: &[u8],
    (packet, is_later): (&Datagram, bool),
    fate: &Fate,
) -> Result<Datagram, String> {
    let macs = [route.macs.1.0, route.macs.0.0].concat();
    if !route.is_answer && fate.frame[..12] != macs {
        return Err(format!("MAC addresses: {:02x?}, expected {macs:02x?}", &fate.frame[..12]));
    }
    let inside = if route.place.kind.is_tunnel() {
        tunnelled(route, frame, packet, &fate.frame)?
    } else {
        fate.frame[ETHERNET..].to_vec()
    };
    let whole = [&frame[..ETHERNET], &inside].concat();
    let out = match read(&whole) {
        Seen::Packet(out) | Seen::Later(out) => out,
        other => return Err(format!("no packet has come out: {other:?}")),
    };
    let mut expected = model::written(route, frame, packet, &out, is_later);
    let mut found = inside;
    let in_residues = residues(frame, packet);
    let out_residues = residues(&whole, &out);
    for at in model::checksums(packet, is_later) {
        // No checksum stays none, and one does not become none.
        let is_none = |bytes: &[u8]| bytes[at..at + 2] == [0, 0];
        let is_udp = at != 10 && packet.protocol == super::datagram::UDP;
        if is_udp && is_none(&expected) != is_none(&found) {
            return Err("a UDP checksum has come or gone".to_owned());
        }
        if is_udp && is_none(&expected) {
            continue;
        }
        expected[at..at + 2].fill(0);
        found[at..at + 2].fill(0);
    }
    if expected != found {
        return Err(format!("bytes\n {found:02x?}\nwhere expected\n {expected:02x?}"));
    }
    let has_sum = !is_later && !is_udp_without_sum(frame, packet);
    if in_residues.0 != out_residues.0 {
        return Err("the IPv4 header's checksum does not follow".to_owned());
    }
    if has_sum && in_residues.1 != out_residues.1 {
        return Err("the transport's checksum does not follow".to_owned());
    }
    if route.place.kind.is_full_nat() && !route.is_answer {
        check_source(route, &out, is_later)?;
    }
    Ok(out)
}

fn is_udp_without_sum(frame: &[u8], packet: &Datagram) -> bool {
    packet.protocol == super::datagram::UDP && frame[packet.transport + 6..packet.transport + 8] == [0, 0]
}

/// full-nat speaks from its own address, and from its own ports.
fn check_source(route: &Route, out: &Datagram, is_later: bool) -> Result<(), String> {
    let is_own = out.source.ip() == route.place.kind.source();
    let is_allocated = is_later || !(32_768..=60_999).contains(&out.source.port());
    if is_own && is_allocated { Ok(()) } else { Err(format!("from {}", out.source)) }
}

/// What is inside of a tunnel's packet, the header outside of which is right; padding behind it as it was.
fn tunnelled(route: &Route, frame: &[u8], packet: &Datagram, out: &[u8]) -> Result<Vec<u8>, String> {
    let kind = route.place.kind;
    let outer = SlicedPacket::from_ethernet(out).map_err(|error| error.to_string())?;
    let class = if kind.v6 { frame[ETHERNET] << 4 | frame[ETHERNET + 1] >> 4 } else { frame[ETHERNET + 1] };
    let (addresses, header_bytes, hops, outer_class) = match &outer.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let addresses = (IpAddr::V4(header.source_addr()), IpAddr::V4(header.destination_addr()));
            (addresses, 20, header.ttl(), header.slice()[1])
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let addresses = (header.source_addr().into(), header.destination_addr().into());
            (addresses, 40, header.hop_limit(), header.traffic_class())
        }
        _ => return Err("no outer packet".to_owned()),
    };
    if addresses != (kind.source(), route.place.backend().ip()) || hops != 64 || outer_class != class {
        return Err(format!("the outer header: {addresses:?}, {hops} hops, class {outer_class:#x}"));
    }
    let mut inner_at = ETHERNET + header_bytes;
    if kind.mode == Mode::Gue {
        let Some(TransportSlice::Udp(udp)) = &outer.transport else {
            return Err("no UDP outside".to_owned());
        };
        if udp.destination_port() != GUE_PORT {
            return Err(format!("to port {}", udp.destination_port()));
        }
        inner_at += 8;
    }
    let payload = outer.ip_payload().ok_or("nothing inside")?.payload.len();
    if payload != packet.end - ETHERNET + inner_at - ETHERNET - header_bytes {
        return Err(format!("{payload} bytes in the outer packet"));
    }
    Ok(out[inner_at..].to_vec())
}

fn learn(world: &mut World, route: &Route, packet: &Datagram, out: &Datagram, is_later: bool) {
    if !is_later && !route.is_answer {
        learn_flow(world, route, packet.source, out.source);
    }
    if let (Some(key), false) = (part_key(packet), is_later) {
        let identification = if route.translates() { out.part.map(|(number, _)| number) } else { None };
        let route = Route { source: Some(out.source), identification, ..route.clone() };
        world.parts.insert(key, route);
    }
}

fn learn_flow(world: &mut World, route: &Route, client: SocketAddr, known_as: SocketAddr) {
    let place = route.place;
    match place.kind.mode {
        Mode::FullNat => {
            world.translated.insert((place.protocol(), place.backend(), known_as), (client, place));
        }
        Mode::Nat => {
            world.steered.insert((client, place.port));
        }
        Mode::Dsr | Mode::Ipip | Mode::Gue => (),
    }
}
