//! Frames taken apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{Ipv6ExtensionSlice, LinkSlice, NetSlice, SlicedPacket, TransportSlice};

use crate::link::Mac;

/// What is in a frame with an IP packet. Fields that its protocol does not have are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The sender's MAC address.
    pub source_mac: Mac,
    /// The receiver's MAC address.
    pub destination_mac: Mac,
    /// VLAN tags, the outer one first.
    pub vlans: Vec<u16>,
    /// The sender.
    pub source_address: IpAddr,
    /// The receiver.
    pub destination_address: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DSCP and ECN as one byte.
    pub traffic_class: u8,
    /// IPv4's identification.
    pub identification: u16,
    /// IPv4's "don't fragment".
    pub dont_fragment: bool,
    /// Its place among the fragments, if it is one: then ports are 0 and the payload begins behind the IP
    /// headers.
    pub fragment: Option<Fragment>,
    /// What follows the IP headers: 6 for TCP, 17 for UDP, 4 or 41 for IP in IP.
    pub protocol: u8,
    /// TCP's or UDP's source port.
    pub source_port: u16,
    /// TCP's or UDP's destination port.
    pub destination_port: u16,
    /// TCP's flags.
    pub flags: u8,
    /// TCP's sequence number.
    pub sequence: u32,
    /// TCP's acknowledgment number.
    pub acknowledgment: u32,
    /// ICMP's type and code.
    pub icmp: (u8, u8),
    /// What follows the transport's header; of ICMP all behind its first 8 bytes.
    pub payload: Vec<u8>,
}

/// The place of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Bytes before it.
    pub offset: usize,
    /// Whether others follow it.
    pub more: bool,
    /// What the fragments of one packet have in common.
    pub identification: u32,
}

impl Parsed {
    /// Takes a frame apart.
    ///
    /// # Panics
    /// Where it is cut short, contradicts itself or has no IP packet; [`Parsed::try_of`] does not.
    #[must_use]
    pub fn of(frame: &[u8]) -> Self {
        Self::try_of(frame).unwrap_or_else(|error| panic!("{error}: {frame:02x?}"))
    }

    /// Takes a frame apart.
    ///
    /// # Errors
    /// Where it is cut short, contradicts itself or has no IP packet.
    pub fn try_of(frame: &[u8]) -> Result<Self, String> {
        let sliced = SlicedPacket::from_ethernet(frame).map_err(|error| error.to_string())?;
        let Some(LinkSlice::Ethernet2(ethernet)) = &sliced.link else {
            return Err("no Ethernet header".to_owned());
        };
        let mut parsed = match &sliced.net {
            Some(NetSlice::Ipv4(ip)) => {
                let header = ip.header();
                let offset = usize::from(header.fragments_offset().value()) * 8;
                Self {
                    source_address: header.source_addr().into(),
                    destination_address: header.destination_addr().into(),
                    ttl: header.ttl(),
                    traffic_class: header.slice()[1],
                    identification: header.identification(),
                    dont_fragment: header.dont_fragment(),
                    fragment: (offset > 0 || header.more_fragments()).then(|| Fragment {
                        offset,
                        more: header.more_fragments(),
                        identification: header.identification().into(),
                    }),
                    ..Self::nothing()
                }
            }
            Some(NetSlice::Ipv6(ip)) => {
                let header = ip.header();
                Self {
                    source_address: Ipv6Addr::from(header.source()).into(),
                    destination_address: Ipv6Addr::from(header.destination()).into(),
                    ttl: header.hop_limit(),
                    traffic_class: header.traffic_class(),
                    fragment: ip.extensions().clone().into_iter().find_map(|extension| match extension {
                        Ipv6ExtensionSlice::Fragment(fragment) => Some(Fragment {
                            offset: usize::from(fragment.fragment_offset().value()) * 8,
                            more: fragment.more_fragments(),
                            identification: fragment.identification(),
                        }),
                        _ => None,
                    }),
                    ..Self::nothing()
                }
            }
            Some(NetSlice::Arp(_)) | None => return Err("no IP packet".to_owned()),
        };
        parsed.source_mac = Mac(ethernet.source());
        parsed.destination_mac = Mac(ethernet.destination());
        parsed.vlans = sliced.vlan_ids().iter().map(|id| id.value()).collect();
        if let Some(ip) = sliced.ip_payload() {
            parsed.protocol = ip.ip_number.0;
            parsed.payload = ip.payload.to_vec();
        }
        if let Some(transport) = &sliced.transport {
            parsed.add_transport(transport);
        }
        Ok(parsed)
    }

    /// Source address and port.
    #[must_use]
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.source_address, self.source_port)
    }

    /// Destination address and port.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.destination_address, self.destination_port)
    }

    fn add_transport(&mut self, transport: &TransportSlice<'_>) {
        match transport {
            TransportSlice::Tcp(tcp) => {
                (self.source_port, self.destination_port) = (tcp.source_port(), tcp.destination_port());
                (self.sequence, self.acknowledgment) = (tcp.sequence_number(), tcp.acknowledgment_number());

                self.flags = tcp.header_slice()[13];
                self.payload = tcp.payload().to_vec();
            }
            TransportSlice::Udp(udp) => {
                (self.source_port, self.destination_port) = (udp.source_port(), udp.destination_port());
                self.payload = udp.payload().to_vec();
            }
            TransportSlice::Icmpv4(icmp) => {
                self.icmp = (icmp.type_u8(), icmp.code_u8());
                self.payload = icmp.slice()[8..].to_vec();
            }
            TransportSlice::Icmpv6(icmp) => {
                self.icmp = (icmp.type_u8(), icmp.code_u8());
                self.payload = icmp.slice()[8..].to_vec();
            }
            TransportSlice::Igmp(_) => {}
        }
    }

    fn nothing() -> Self {
        Self {
            source_mac: Mac::default(),
            destination_mac: Mac::default(),
            vlans: Vec::new(),
            source_address: Ipv4Addr::UNSPECIFIED.into(),
            destination_address: Ipv4Addr::UNSPECIFIED.into(),
            ttl: 0,
            traffic_class: 0,
            identification: 0,
            dont_fragment: false,
            fragment: None,
            protocol: 0,
            source_port: 0,
            destination_port: 0,
            flags: 0,
            sequence: 0,
            acknowledgment: 0,
            icmp: (0, 0),
            payload: Vec::new(),
        }
    }
}
