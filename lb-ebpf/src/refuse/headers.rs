//! Headers of a frame that goes back to where it came from.

use lb_common::{Addr, checksum::Delta};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::packet::EthernetHdr;

/// What routers and hosts give their own packets.
const HOP_LIMIT: u8 = 64;

/// A checksum over nothing.
const NO_SUM: [u8; 2] = [0xff; 2];

/// The MAC addresses of a frame, to be sent back.
#[inline(always)]
pub fn ethernet(header: &mut EthernetHdr, from: [u8; 6], to: [u8; 6], ether_type: [u8; 2]) {
    header.destination = to;
    header.source = from;
    header.ether_type = ether_type;
}

/// An IPv4 header without options; atomic, so its identification is nobody's business (RFC 6864, 4.1).
#[inline(always)]
pub fn ipv4(header: &mut Ipv4Hdr, from: [u8; 4], to: [u8; 4], protocol: u8, total_bytes: u16) {
    const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
    header.vihl = 0x45;
    header.tos = 0;
    header.tot_len = total_bytes.to_be_bytes();
    header.id = [0; 2];
    header.frags = DONT_FRAGMENT;
    header.ttl = HOP_LIMIT;
    header.proto = protocol;
    header.src_addr = from;
    header.dst_addr = to;
    let sum = new(Delta::NONE, [0x45, 0]);
    let sum = new(new(sum, header.tot_len), DONT_FRAGMENT);
    let sum = new(sum, [HOP_LIMIT, protocol]).change32([0; 4], from).change32([0; 4], to);
    header.check = finish(sum);
}

/// An IPv6 header.
#[inline(always)]
pub fn ipv6(header: &mut Ipv6Hdr, from: &Addr, to: &Addr, next_header: u8, payload_bytes: u16) {
    header.vcf = [0x60, 0, 0, 0];
    header.payload_len = payload_bytes.to_be_bytes();
    header.next_hdr = next_header;
    header.hop_limit = HOP_LIMIT;
    header.src_addr = from.0;
    header.dst_addr = to.0;
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
