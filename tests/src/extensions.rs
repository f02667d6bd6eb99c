//! IPv6 extension headers (RFC 8200, 4), put into frames by hand.

const ETHERNET: usize = 14;
const IPV6: usize = ETHERNET + 40;

/// Hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Destination options.
pub const DESTINATION: u8 = 60;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;

/// Its number, and what it is made of without its first byte, which says what comes next.
pub type Extension = (u8, Vec<u8>);

/// Options, or what has their form: `units` of eight bytes, all of them padding (RFC 8200, 4.2).
#[must_use]
pub fn options(kind: u8, units: u8) -> Extension {
    let padding = units * 8 - 4;
    let mut header = vec![units - 1, 1, padding];
    header.resize(usize::from(units) * 8 - 1, 0);
    (kind, header)
}

/// A routing header of an unknown type with so many nodes still to be visited.
#[must_use]
pub fn routing(left: u8) -> Extension {
    (ROUTING, vec![0, 4, left, 0, 0, 0, 0])
}

/// The fragment header of a packet that is whole all the same (RFC 6946).
#[must_use]
pub fn atomic() -> Extension {
    (FRAGMENT, vec![0, 0, 0, 1, 2, 3, 4])
}

/// The frame with extension headers between its IPv6 header and what follows.
///
/// # Panics
/// For frames that are too short, or become too long.
#[must_use]
pub fn extended(frame: &[u8], extensions: &[Extension]) -> Vec<u8> {
    let mut headers: Vec<u8> = Vec::new();
    let last = frame[ETHERNET + 6];
    for (n, (_, rest)) in extensions.iter().enumerate() {
        headers.push(extensions.get(n + 1).map_or(last, |(kind, _)| *kind));
        headers.extend_from_slice(rest);
    }
    let mut frame = [&frame[..IPV6], &headers, &frame[IPV6..]].concat();
    frame[ETHERNET + 6] = extensions.first().map_or(last, |(kind, _)| *kind);
    let length = u16::try_from(frame.len() - IPV6).expect("a packet that fits");
    frame[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&length.to_be_bytes());
    frame
}
