//! Checksums worked out anew, by code that the data plane does not share.

use std::fmt::Write as _;

use lb_common::tunnel::GUE_PORT;

use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice, checksum::Sum16BitWords};

/// Checks every checksum of a frame: IPv4 header, TCP, UDP, ICMP, and those of a packet inside of it (IP in
/// IP). Of a fragment only the IPv4 header can be checked.
///
/// # Panics
/// With the checksum found, the one expected and the frame, where one is wrong or the frame contradicts itself.
pub fn verify_checksums(frame: &[u8]) {
    if let Err(error) = check(frame) {
        panic!("{error}\n{}", dump(frame));
    }
}

/// As [`verify_checksums`].
///
/// # Errors
/// Says which checksum is wrong.
pub fn check(frame: &[u8]) -> Result<(), String> {
    check_sliced(&SlicedPacket::from_ethernet(frame).map_err(|error| error.to_string())?)
}

fn check_sliced(packet: &SlicedPacket<'_>) -> Result<(), String> {
    let pseudo = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            compare("IPv4 header", Sum16BitWords::new(), header.slice(), 10)?;
            Sum16BitWords::new().add_4bytes(header.source()).add_4bytes(header.destination())
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            Sum16BitWords::new().add_16bytes(header.source()).add_16bytes(header.destination())
        }
        Some(NetSlice::Arp(_)) | None => return Ok(()),
    };
    let of = |protocol: IpNumber, segment: &[u8]| {
        let length = u32::try_from(segment.len()).unwrap_or_default();
        pseudo.add_2bytes([0, protocol.0]).add_4bytes(length.to_be_bytes())
    };
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => compare("TCP", of(IpNumber::TCP, tcp.slice()), tcp.slice(), 16),
        Some(TransportSlice::Udp(udp)) => {
            if udp.checksum() == 0 {
                // Tunnels may, over IPv6, too (RFC 6935).
                let allowed =
                    matches!(packet.net, Some(NetSlice::Ipv4(_))) || udp.destination_port() == GUE_PORT;
                return if allowed { Ok(()) } else { Err("UDP over IPv6 without a checksum".to_owned()) };
            }
            compare("UDP", of(IpNumber::UDP, udp.slice()), udp.slice(), 6)
        }
        Some(TransportSlice::Icmpv4(icmp)) => compare("ICMP", Sum16BitWords::new(), icmp.slice(), 2),
        Some(TransportSlice::Icmpv6(icmp)) => {
            compare("ICMPv6", of(IpNumber::IPV6_ICMP, icmp.slice()), icmp.slice(), 2)
        }
        Some(TransportSlice::Igmp(_)) => Ok(()),
        None => check_inner(packet),
    }
}

/// A packet in a packet.
fn check_inner(packet: &SlicedPacket<'_>) -> Result<(), String> {
    let Some(ip) = packet.ip_payload() else { return Ok(()) };
    if ip.fragmented || !matches!(ip.ip_number, IpNumber::IPV4 | IpNumber::IPV6) {
        return Ok(());
    }
    let inner = SlicedPacket::from_ip(ip.payload).map_err(|error| format!("inner packet: {error}"))?;
    check_sliced(&inner).map_err(|error| format!("inner packet: {error}"))
}

/// `pseudo` is the sum of what is not in `bytes`, `place` where the checksum is in them.
fn compare(what: &str, pseudo: Sum16BitWords, bytes: &[u8], place: usize) -> Result<(), String> {
    let found = u16::from_be_bytes([bytes[place], bytes[place + 1]]);
    let mut cleared = bytes.to_vec();
    cleared[place..place + 2].fill(0);
    let expected = pseudo.add_slice(&cleared).ones_complement().to_be();
    // 0 and 0xffff are the same number in one's complement, and receivers take either.
    if found % 0xffff == expected % 0xffff {
        Ok(())
    } else {
        Err(format!("{what} checksum is {found:#06x}, should be {expected:#06x}"))
    }
}

fn dump(frame: &[u8]) -> String {
    let mut text = format!("frame of {} bytes:", frame.len());
    for (n, byte) in frame.iter().enumerate() {
        let space = match n % 16 {
            0 => format!("\n  {n:04x} "),
            8 => " ".to_owned(),
            _ => String::new(),
        };
        let _ = write!(text, "{space} {byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::packets::Packet;

    fn both(make: fn(SocketAddr, SocketAddr) -> Packet) -> [Packet; 2] {
        let pair = |a: &str, b: &str| make(a.parse().unwrap(), b.parse().unwrap()).payload(b"odd");
        [pair("10.0.0.1:1000", "10.0.0.2:80"), pair("[2001:db8::1]:1000", "[2001:db8::2]:80")]
    }

    #[test]
    fn frames_made_here_are_right() {
        for packet in both(Packet::tcp).into_iter().chain(both(Packet::udp)) {
            verify_checksums(&packet.frame());
            verify_checksums(&packet.clone().vlans(&[7]).frame());
            verify_checksums(&packet.clone().vlans(&[7, 8]).frame());
            verify_checksums(&packet.clone().traffic_class(0xb9).frame());
            for fragment in packet.payload(&[1; 1000]).fragments(496) {
                verify_checksums(&fragment);
            }
        }
        let [v4, _] = both(Packet::tcp);
        verify_checksums(&v4.ip_options(&[1; 8]).tcp_options(&[1; 12]).frame());
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_a_checksum_covers_it() {
        const ETHERNET: usize = 14;
        for packet in both(Packet::tcp).into_iter().chain(both(Packet::udp)) {
            let frame = packet.frame();
            let addresses = if frame[12] == 0x08 { ETHERNET + 12 } else { ETHERNET + 8 };
            for byte in addresses..frame.len() {
                let mut corrupted = frame.clone();
                corrupted[byte] ^= 0x04;
                assert!(check(&corrupted).is_err(), "byte {byte} of {frame:02x?}");
            }
        }
    }

    #[test]
    fn udp_without_a_checksum_is_for_ipv4() {
        let [v4, v6] = both(Packet::udp).map(|packet| packet.without_checksum().frame());
        assert_eq!(check(&v4), Ok(()));
        assert!(check(&v6).unwrap_err().contains("without a checksum"));
    }

    #[test]
    #[should_panic(expected = "TCP checksum is")]
    fn the_verifier_panics_with_detail() {
        let [mut frame, _] = both(Packet::tcp).map(|packet| packet.frame());
        *frame.last_mut().unwrap() ^= 1;
        verify_checksums(&frame);
    }
}
