//! Frames read as the RFCs say, by code that has nothing in common with the data plane's: what the model decides by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where the IP header begins.
pub(super) const ETHERNET: usize = 14;
/// TCP's number.
pub(super) const TCP: u8 = 6;
/// UDP's number.
pub(super) const UDP: u8 = 17;
const ICMP: [u8; 2] = [1, 58];

/// How far into a frame ports are looked for, and behind how many extension headers (docs/fragments.md).
const PORTS_BEFORE: usize = 255;
const EXTENSIONS: usize = 5;

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing that a balancer has to do with, or something that contradicts itself.
    Foreign,
    /// An ICMP message.
    Icmp,
    /// A TCP or UDP packet, whole or the first of several parts.
    Packet(Datagram),
    /// A part of a packet that is not the first.
    Later(Datagram),
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    /// Where it is from; port 0 in later parts.
    pub(super) source: SocketAddr,
    /// Where it is to.
    pub(super) destination: SocketAddr,
    /// TCP or UDP; of later parts whatever is said.
    pub(super) protocol: u8,
    /// TTL or hop limit.
    pub(super) hops: u8,
    /// Where the transport header begins.
    pub(super) transport: usize,
    /// Where the packet ends; padding may follow.
    pub(super) end: usize,
    /// Of a part: its identification, and where that is in the frame.
    pub(super) part: Option<(u32, usize)>,
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

/// Reads a frame.
#[must_use]
pub(super) fn read(frame: &[u8]) -> Seen {
    match word(frame, 12) {
        Some(0x0800) => v4(frame).unwrap_or(Seen::Foreign),
        Some(0x86dd) => v6(frame).unwrap_or(Seen::Foreign),
        _ => Seen::Foreign,
    }
}

/// RFC 791, 3.1.
fn v4(frame: &[u8]) -> Option<Seen> {
    let header = frame.get(ETHERNET..ETHERNET + 20)?;
    let (version, words) = (header[0] >> 4, usize::from(header[0] & 15));
    let total = usize::from(word(header, 2)?);
    if version != 4 || words < 5 || total < words * 4 || ETHERNET + total > frame.len() {
        return None;
    }
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let place = word(header, 6)?;
    let (more, offset) = (place & 0x2000 != 0, place & 0x1fff);
    let mut datagram = Datagram {
        source: SocketAddr::new(address(12).into(), 0),
        destination: SocketAddr::new(address(16).into(), 0),
        protocol: header[9],
        hops: header[8],
        transport: ETHERNET + words * 4,
        end: ETHERNET + total,
        part: (more || offset > 0).then_some((word(header, 4)?.into(), ETHERNET + 4)),
    };
    if offset > 0 {
        return Some(Seen::Later(datagram));
    }
    if ICMP.contains(&datagram.protocol) {
        return Some(Seen::Icmp);
    }
    ports(frame, &mut datagram)?;
    Some(Seen::Packet(datagram))
}

/// RFC 8200, 3 and 4.
fn v6(frame: &[u8]) -> Option<Seen> {
    let header = frame.get(ETHERNET..ETHERNET + 40)?;
    let end = ETHERNET + 40 + usize::from(word(header, 4)?);
    let address =
        |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).expect("sixteen bytes"));
    let (source, destination) = (address(8), address(24));
    // Addresses of sockets, and never of packets (RFC 4942, 2.2).
    let is_mapped = source.to_ipv4_mapped().or(destination.to_ipv4_mapped()).is_some();
    if header[0] >> 4 != 6 || end > frame.len() || is_mapped {
        return None;
    }
    let mut datagram = Datagram {
        source: SocketAddr::new(source.into(), 0),
        destination: SocketAddr::new(destination.into(), 0),
        protocol: header[6],
        hops: header[7],
        transport: ETHERNET + 40,
        end,
        part: None,
    };
    let mut walked = 0;
    while ![TCP, UDP].contains(&datagram.protocol) {
        if ICMP.contains(&datagram.protocol) && walked == 0 {
            return Some(Seen::Icmp);
        }
        let at = datagram.transport;
        let extension = frame.get(at..at + 8)?;
        let mut bytes = (usize::from(extension[1]) + 1) * 8;
        match datagram.protocol {
            0 if walked == 0 => (),
            43 if extension[3] == 0 => (),
            60 => (),
            44 if datagram.part.is_none() && !walked_fragment(frame, walked) => {
                bytes = 8;
                let place = word(extension, 2)?;
                let identification =
                    u32::from_be_bytes([extension[4], extension[5], extension[6], extension[7]]);
                if place >> 3 != 0 || place & 1 != 0 {
                    datagram.part = Some((identification, at + 4));
                }
                if place >> 3 != 0 {
                    datagram.protocol = extension[0];
                    datagram.transport += 8;
                    return (datagram.transport <= end.min(PORTS_BEFORE)).then_some(Seen::Later(datagram));
                }
            }
            _ => return None,
        }
        datagram.protocol = extension[0];
        datagram.transport += bytes;
        walked += 1;
        if walked > EXTENSIONS || datagram.transport > PORTS_BEFORE {
            return None;
        }
    }
    if datagram.transport > end {
        return None;
    }
    ports(frame, &mut datagram)?;
    Some(Seen::Packet(datagram))
}

/// Whether one of the first `count` extension headers is a fragment header.
fn walked_fragment(frame: &[u8], count: usize) -> bool {
    let (mut next, mut at) = (frame[ETHERNET + 6], ETHERNET + 40);
    for _ in 0..count {
        if next == 44 {
            return true;
        }
        let bytes = (usize::from(frame[at + 1]) + 1) * 8;
        next = frame[at];
        at += bytes;
    }
    false
}

/// Reads the ports of a packet whose header is whole and does not contradict the packet (RFC 9293, 3.1; RFC 768).
fn ports(frame: &[u8], datagram: &mut Datagram) -> Option<()> {
    let (at, payload) = (datagram.transport, datagram.end.checked_sub(datagram.transport)?);
    match datagram.protocol {
        TCP => {
            let bytes = usize::from(*frame.get(at + 12)? >> 4) * 4;
            if bytes < 20 || bytes > payload {
                return None;
            }
        }
        UDP => {
            let bytes = usize::from(word(frame, at + 4)?);
            // The length is that of all parts together.
            let is_longer = bytes > payload && datagram.part.is_none();
            if bytes < 8 || payload < 8 || is_longer {
                return None;
            }
        }
        _ => return None,
    }
    datagram.source.set_port(word(frame, at)?);
    datagram.destination.set_port(word(frame, at + 2)?);
    Some(())
}

/// The sum of 16-bit words, folded, with an odd last byte as the upper half of one (RFC 1071).
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
}

/// What the checksums in a packet amount to: of IPv4's header, and of the segment with its pseudo-header. Whoever changes
/// what they cover and brings them up to date leaves both as they are, right or wrong (RFC 1624).
#[must_use]
pub(super) fn residues(frame: &[u8], datagram: &Datagram) -> (u64, u64) {
    let addresses = |address: IpAddr| match address {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    };
    let header = if datagram.source.is_ipv4() {
        sum(&frame[ETHERNET..ETHERNET + usize::from(frame[ETHERNET] & 15) * 4])
    } else {
        0
    };
    let pseudo = addresses(datagram.source.ip()) + addresses(datagram.destination.ip());
    let segment = pseudo + sum(&frame[datagram.transport..datagram.end]);
    (header % 0xffff, segment % 0xffff)
}
