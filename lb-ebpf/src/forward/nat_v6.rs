//! The IPv6 header of a translated packet.

use lb_common::checksum::Delta;
use network_types::ip::Ipv6Hdr;

/// The bytes of an address, of which two words are given.
#[inline(always)]
pub fn bytes_of(words: [u64; 2]) -> [u8; 16] {
    let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) =
        (words[0].to_ne_bytes(), words[1].to_ne_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// Replaces both addresses and takes one from the hop limit; what the transport checksum, which covers the
/// addresses (RFC 8200, 8.1), must be changed by.
#[inline(always)]
pub fn readdress(header: &mut Ipv6Hdr, source: [u64; 2], destination: [u64; 2]) -> Delta {
    let [source, destination] = [source, destination].map(bytes_of);
    let addresses = Delta::NONE.change128(header.src_addr, source).change128(header.dst_addr, destination);
    header.src_addr = source;
    header.dst_addr = destination;
    header.hop_limit = header.hop_limit.wrapping_sub(1);
    addresses
}
