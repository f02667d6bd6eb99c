//! The IPv4 header of a translated packet.

use lb_common::checksum::Delta;
use network_types::ip::Ipv4Hdr;

/// Replaces both addresses, given as the last words of their IPv4-mapped form, and takes one from the TTL; what the transport checksum, which covers the addresses
/// (RFC 9293, 3.1), must be changed by.
#[inline(always)]
pub fn readdress(header: &mut Ipv4Hdr, source: u64, destination: u64) -> Delta {
    let [source, destination] = [source, destination].map(|word| ((word >> 32) as u32).to_ne_bytes());
    let addresses = Delta::NONE.change32(header.src_addr, source).change32(header.dst_addr, destination);
    let old_hops = [header.ttl, header.proto];
    let new_hops = [header.ttl.wrapping_sub(1), header.proto];
    header.src_addr = source;
    header.dst_addr = destination;
    header.ttl = new_hops[0];
    header.check = addresses.change16(old_hops, new_hops).apply(header.check);
    addresses
}
