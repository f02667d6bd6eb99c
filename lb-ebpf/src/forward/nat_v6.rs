//! The IPv6 header of a translated packet.

use lb_common::checksum::Delta;
use network_types::ip::Ipv6Hdr;

/// Replaces both addresses and takes one from the hop limit; what the transport checksum, which covers the
/// addresses (RFC 8200, 8.1), must be changed by.
#[inline(always)]
pub fn readdress(header: &mut Ipv6Hdr, source: [u8; 16], destination: [u8; 16]) -> Delta {
    let addresses = Delta::NONE.change128(header.src_addr, source).change128(header.dst_addr, destination);
    header.src_addr = source;
    header.dst_addr = destination;
    header.hop_limit = header.hop_limit.wrapping_sub(1);
    addresses
}
