//! Headers that are written anew: of answers, and in front of packets in tunnels.

use lb_common::{Addr, checksum::Delta};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::packet::{EthernetHdr, Packet};

/// ICMP's number (RFC 792).
pub const PROTOCOL_ICMP: u8 = 1;
/// ICMPv6's number (RFC 4443).
pub const PROTOCOL_ICMPV6: u8 = 58;

/// What routers and hosts give their own packets.
pub const HOP_LIMIT: u8 = 64;

/// A checksum over nothing.
const NO_SUM: [u8; 2] = [0xff; 2];

/// The first eight bytes of an ICMP message.
#[repr(C)]
pub struct IcmpHdr {
    /// Type and code.
    pub kind: [u8; 2],
    pub checksum: [u8; 2],
    pub rest: [u8; 4],
}

/// The MAC addresses of a frame, to be sent back.
#[inline(always)]
pub fn ethernet(header: &mut EthernetHdr, from: [u8; 6], to: [u8; 6], ether_type: [u8; 2]) {
    header.destination = to;
    header.source = from;
    header.ether_type = ether_type;
}

/// What an IPv4 header without options says.
pub struct Ipv4Fields {
    pub from: [u8; 4],
    pub to: [u8; 4],
    pub protocol: u8,
    pub total_bytes: u16,
    /// DSCP and ECN.
    pub traffic_class: u8,
    pub hop_limit: u8,
    /// What fragments of it have in common; none: "don't fragment", and then it is nobody's business (RFC 6864, 4.1).
    pub identification: Option<u16>,
}

impl Ipv4Fields {
    /// Of an answer to a packet.
    #[inline(always)]
    pub fn answer(packet: &Packet, protocol: u8, total_bytes: u16) -> Self {
        Self {
            from: packet.destination.addr.v4_octets(),
            to: packet.source.v4_octets(),
            protocol,
            total_bytes,
            traffic_class: 0,
            hop_limit: HOP_LIMIT,
            identification: None,
        }
    }
}

/// Writes an IPv4 header.
#[inline(always)]
pub fn ipv4(header: &mut Ipv4Hdr, fields: &Ipv4Fields) {
    const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
    let (identification, fragments) = match fields.identification {
        Some(number) => (number.to_be_bytes(), [0; 2]),
        None => ([0; 2], DONT_FRAGMENT),
    };
    header.vihl = 0x45;
    header.tos = fields.traffic_class;
    header.tot_len = fields.total_bytes.to_be_bytes();
    header.id = identification;
    header.frags = fragments;
    header.ttl = fields.hop_limit;
    header.proto = fields.protocol;
    header.src_addr = fields.from;
    header.dst_addr = fields.to;
    let sum = new(Delta::NONE, [0x45, fields.traffic_class]);
    let sum = new(new(sum, header.tot_len), identification);
    let sum = new(new(sum, fragments), [fields.hop_limit, fields.protocol]);
    header.check = finish(sum.change32([0; 4], fields.from).change32([0; 4], fields.to));
}

/// What an IPv6 header says.
pub struct Ipv6Fields {
    pub from: [u8; 16],
    pub to: [u8; 16],
    pub next_header: u8,
    pub payload_bytes: u16,
    /// DSCP and ECN.
    pub traffic_class: u8,
    pub hop_limit: u8,
    /// 20 bits.
    pub flow_label: u32,
}

impl Ipv6Fields {
    /// Of an answer to a packet.
    #[inline(always)]
    pub fn answer(packet: &Packet, next_header: u8, payload_bytes: u16) -> Self {
        Self {
            from: packet.destination.addr.0,
            to: packet.source.0,
            next_header,
            payload_bytes,
            traffic_class: 0,
            hop_limit: HOP_LIMIT,
            flow_label: 0,
        }
    }
}

/// Writes an IPv6 header (RFC 8200, 3).
#[inline(always)]
pub fn ipv6(header: &mut Ipv6Hdr, fields: &Ipv6Fields) {
    let class = u32::from(fields.traffic_class) << 20;
    header.vcf = (6 << 28 | class | fields.flow_label).to_be_bytes();
    header.payload_len = fields.payload_bytes.to_be_bytes();
    header.next_hdr = fields.next_header;
    header.hop_limit = fields.hop_limit;
    header.src_addr = fields.from;
    header.dst_addr = fields.to;
}

/// The sum of what a transport checksum covers besides the segment (RFC 9293, 3.1; RFC 8200, 8.1).
#[inline(always)]
pub fn pseudo_header(from: &Addr, to: &Addr, protocol: u8, bytes: u16) -> Delta {
    let sum = new(new(Delta::NONE, [0, protocol]), bytes.to_be_bytes());
    if from.is_v4() {
        sum.change32([0; 4], from.v4_octets()).change32([0; 4], to.v4_octets())
    } else {
        sum.change128([0; 16], from.0).change128([0; 16], to.0)
    }
}

/// The sum with two more bytes.
#[inline(always)]
pub fn new(sum: Delta, bytes: [u8; 2]) -> Delta {
    sum.change16([0; 2], bytes)
}

/// The checksum of a sum.
#[inline(always)]
pub fn finish(sum: Delta) -> [u8; 2] {
    sum.apply(NO_SUM)
}
