//! Frames to throw at the data plane: sense with nonsense in it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder};
use proptest::{prelude::*, sample::Index};

use super::{
    datagram::ETHERNET,
    world::{Place, World},
};
use crate::{
    dataplane::{BALANCER_MACS, CLIENT_MAC},
    extensions::{DESTINATION, Extension, HOP_BY_HOP, atomic, extended, options, routing},
    packets::Packet,
};

/// A frame, before it is made.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    place: Index,
    way: Way,
    client: u8,
    flags: u8,
    hops: u8,
    class: u8,
    payload: Vec<u8>,
    /// IPv4 options in words; IPv6 extension headers, each by its number here.
    headers: Vec<u8>,
    part: Part,
    identification: u16,
    vlans: Vec<u16>,
    padding: u8,
    damage: Vec<Damage>,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug)]
enum Way {
    Request,
    /// To a client, of whatever flows there are.
    Answer(u16),
    /// To a port that is nobody's.
    Stranger(u16),
    /// An ICMP error of this type about what the service may have sent to the client.
    Error(u8),
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Whole,
    First,
    Later,
    Last,
}

/// What goes wrong with it on the way.
#[derive(Clone, Debug)]
enum Damage {
    /// Another byte among the headers.
    Byte(Index, u8),
    /// Another bit.
    Bit(Index),
    /// Cut short.
    Cut(Index),
}

/// Any frame.
pub(super) fn any_shape() -> impl Strategy<Value = Shape> {
    let way = prop_oneof![
        6 => Just(Way::Request),
        3 => any::<u16>().prop_map(Way::Answer),
        1 => any::<u16>().prop_map(Way::Stranger),
        1 => (0..16u8).prop_map(Way::Error),
    ];
    let part = prop_oneof![
        12 => Just(Part::Whole),
        2 => Just(Part::First),
        2 => Just(Part::Later),
        1 => Just(Part::Last),
    ];
    let damage = prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Damage::Byte(at, value)),
        3 => any::<Index>().prop_map(Damage::Bit),
        1 => any::<Index>().prop_map(Damage::Cut),
    ];
    let what =
        (any::<Index>(), way, 0..8u8, any::<u8>(), prop_oneof![8 => Just(64u8), 1 => 0..4u8], any::<u8>());
    let headers = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(0..7u8, 1..7)];
    let rest = (
        prop::collection::vec(any::<u8>(), 0..48),
        headers,
        part,
        0..8u16,
        prop_oneof![20 => Just(Vec::new()), 1 => prop::collection::vec(0..4095u16, 1..3)],
        prop_oneof![4 => Just(0u8), 1 => 1..32u8],
        prop_oneof![2 => Just(Vec::new()), 3 => prop::collection::vec(damage, 1..4)],
    );
    (what, rest).prop_map(
        |(
            (place, way, client, flags, hops, class),
            (payload, headers, part, identification, vlans, padding, damage),
        )| Shape {
            place,
            way,
            client,
            flags,
            hops,
            class,
            payload,
            headers,
            part,
            identification,
            vlans,
            padding,
            damage,
        },
    )
}

impl Shape {
    /// The frame.
    #[must_use]
    pub(super) fn frame(&self, world: &World) -> Vec<u8> {
        let place = world.places[self.place.index(world.places.len())];
        let mut frame = self.whole(place, world);
        frame.resize(frame.len() + usize::from(self.padding), 0);
        for damage in &self.damage {
            damage.happen(&mut frame);
        }
        frame
    }

    fn whole(&self, place: Place, world: &World) -> Vec<u8> {
        let client = place.kind.client(self.client.into());
        let (from, to) = match self.way {
            Way::Request => (client, place.address()),
            Way::Answer(which) => world.answer(place, client, which),
            Way::Stranger(port) => (client, SocketAddr::new(place.address().ip(), port)),
            Way::Error(_) => (place.address(), client),
        };
        let mut packet =
            if place.kind.udp { Packet::udp(from, to) } else { Packet::tcp(from, to).flags(self.flags) };
        packet = packet
            .macs(CLIENT_MAC, BALANCER_MACS[0])
            .ttl(self.hops)
            .traffic_class(self.class)
            .identification(self.identification)
            .payload(&self.payload);
        if !place.kind.v6 && !self.headers.is_empty() {
            packet = packet.ip_options(&vec![1; self.headers.len() * 4]);
        }
        let frame = match self.part {
            Part::Whole => packet.vlans(&self.vlans).frame(),
            Part::First => packet.payload(&[3; 64]).fragments(32).swap_remove(0),
            Part::Later => packet.payload(&[3; 64]).fragments(32).swap_remove(1),
            Part::Last => packet.payload(&[3; 64]).fragments(32).pop().unwrap_or_default(),
        };
        let extensions: Vec<_> = self.headers.iter().map(|number| extension(*number)).collect();
        let frame =
            if place.kind.v6 && self.vlans.is_empty() { extended(&frame, &extensions) } else { frame };
        match self.way {
            Way::Error(kind) if self.vlans.is_empty() => icmp_error(kind, place.address().ip(), &frame),
            _ => frame,
        }
    }
}

/// What a router tells the sender of a packet, which is at `to`.
fn icmp_error(kind: u8, to: IpAddr, about: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(CLIENT_MAC.0, BALANCER_MACS[0].0);
    let (quote, rest) = (&about[ETHERNET..], [0, 0, 5, 0x78]);
    let mut frame = Vec::new();
    let written = match to {
        IpAddr::V4(to) => {
            let header = Icmpv4Type::Unknown { type_u8: kind, code_u8: 4, bytes5to8: rest };
            ethernet.ipv4([203, 0, 113, 1], to.octets(), 60).icmpv4(header).write(&mut frame, quote)
        }
        IpAddr::V6(to) => {
            let header = Icmpv6Type::Unknown { type_u8: kind % 5, code_u8: 0, bytes5to8: rest };
            let router = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
            ethernet.ipv6(router.octets(), to.octets(), 60).icmpv6(header).write(&mut frame, quote)
        }
    };
    written.expect("a packet that fits");
    frame
}

fn extension(number: u8) -> Extension {
    match number {
        0 => options(HOP_BY_HOP, 1),
        1 => options(DESTINATION, 1),
        2 => options(DESTINATION, 4),
        3 => routing(0),
        4 => routing(2),
        5 => atomic(),
        _ => options(51, 1),
    }
}

impl Damage {
    fn happen(&self, frame: &mut Vec<u8>) {
        // Most of what decides anything is at the front.
        let front = frame.len().min(90);
        match self {
            Self::Byte(at, value) => frame[at.index(front)] = *value,
            Self::Bit(at) => {
                let bit = at.index(front * 8);
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            // The kernel runs no frame without an Ethernet header.
            Self::Cut(at) => frame.truncate(14 + at.index(frame.len() - 13)),
        }
    }
}
