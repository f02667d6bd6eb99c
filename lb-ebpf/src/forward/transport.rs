//! The transport header of a translated packet.

use lb_common::checksum::Delta;
use network_types::udp::UdpHdr;

use crate::packet::TcpHdr;

/// Replaces both ports and brings the checksum up to date with them and with the `addresses` that it covers.
#[inline(always)]
pub fn readdress_tcp(header: &mut TcpHdr, source_port: [u8; 2], destination_port: [u8; 2], addresses: Delta) {
    let delta = addresses.change16(header.source, source_port).change16(header.destination, destination_port);
    header.source = source_port;
    header.destination = destination_port;
    header.checksum = delta.apply(header.checksum);
}

/// The same for UDP, where no checksum stays none.
#[inline(always)]
pub fn readdress_udp(header: &mut UdpHdr, source_port: [u8; 2], destination_port: [u8; 2], addresses: Delta) {
    let delta = addresses.change16(header.src, source_port).change16(header.dst, destination_port);
    header.src = source_port;
    header.dst = destination_port;
    header.check = delta.apply_udp(header.check);
}
