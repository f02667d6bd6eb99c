//! What frames in tunnels must look like, made by a library that the data plane does not share.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, IpDscp, IpEcn, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header,
};

use crate::link::Mac;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// An outer header, but for what a flow's secret hash decides.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// From whom.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// `gue`'s port; none: `ipip`.
    pub gue_port: Option<u16>,
    /// Of IPv4 alone.
    pub dont_fragment: bool,
}

impl Tunnel {
    /// How many bytes it puts in front of a packet.
    #[must_use]
    pub fn overhead(&self) -> usize {
        let ip = if self.destination.is_ipv4() { Ipv4Header::MIN_LEN } else { Ipv6Header::LEN };
        ip + if self.gue_port.is_some() { 8 } else { 0 }
    }

    /// The frame that the packet in `inner` becomes, a frame with the TTL that it has in the tunnel: what is the flow's
    /// own (UDP's source port, IPv6's flow label, IPv4's identification where fragments are allowed) as in `seen`.
    ///
    /// # Panics
    /// Where `seen` is no frame in such a tunnel, or what is the flow's own is out of its range.
    #[must_use]
    pub fn around(&self, macs: (Mac, Mac), inner: &[u8], seen: &[u8]) -> Vec<u8> {
        let packet = &inner[ETHERNET..];
        let is_v4 = inner[12..14] == [0x08, 0x00];
        let class = if is_v4 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 };
        let payload = self.datagram(packet, seen);
        let protocol = match (self.gue_port, is_v4) {
            (Some(_), _) => IpNumber::UDP,
            (None, true) => IpNumber::IPV4,
            (None, false) => IpNumber::IPV6,
        };
        let mut frame = Vec::new();
        let ether_type = if self.destination.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let ethernet = Ethernet2Header { source: macs.0.0, destination: macs.1.0, ether_type };
        frame.extend_from_slice(&ethernet.to_bytes());
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let length = u16::try_from(payload.len()).expect("a packet that fits");
                let mut header = Ipv4Header::new(length, 64, protocol, source.octets(), destination.octets())
                    .expect("a packet that fits");
                header.dscp = IpDscp::try_new(class >> 2).expect("six bits");
                header.ecn = IpEcn::try_new(class & 3).expect("two bits");
                header.dont_fragment = self.dont_fragment;
                header.identification =
                    if self.dont_fragment { 0 } else { u16::from_be_bytes([seen[18], seen[19]]) };
                header.header_checksum = header.calc_header_checksum();
                frame.extend_from_slice(&header.to_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let label = u32::from_be_bytes([0, seen[15] & 0xf, seen[16], seen[17]]);
                let header = Ipv6Header {
                    traffic_class: class,
                    flow_label: Ipv6FlowLabel::try_new(label).expect("twenty bits"),
                    payload_length: u16::try_from(payload.len()).expect("a packet that fits"),
                    next_header: protocol,
                    hop_limit: 64,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                frame.extend_from_slice(&header.to_bytes());
            }
            (source, destination) => panic!("from {source} to {destination}"),
        }
        frame.extend_from_slice(&payload);
        frame
    }

    /// The packet as the outer IP header's payload: for `gue` behind a UDP header without a checksum.
    fn datagram(&self, packet: &[u8], seen: &[u8]) -> Vec<u8> {
        let Some(port) = self.gue_port else { return packet.to_vec() };
        let at = ETHERNET + self.overhead() - 8;
        let source = u16::from_be_bytes([seen[at], seen[at + 1]]);
        assert!(source >= 49_152, "{source} is no dynamic port");
        let length = u16::try_from(packet.len() + 8).expect("a packet that fits");
        [&source.to_be_bytes()[..], &port.to_be_bytes(), &length.to_be_bytes(), &[0, 0], packet].concat()
    }
}
