//! Frames made by hand, and taken apart again.
//!
//! ```
//! use harness::packets::{Packet, Parsed, flags};
//!
//! let client = "10.10.0.1:40000".parse().unwrap();
//! let service = "10.10.0.100:80".parse().unwrap();
//! let frame = Packet::tcp(client, service).flags(flags::SYN).ttl(7).frame();
//! harness::checksums::verify_checksums(&frame);
//! let parsed = Parsed::of(&frame);
//! assert_eq!((parsed.flags, parsed.ttl, parsed.destination()), (flags::SYN, 7, service));
//! ```

mod parsed;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6FragmentHeader,
    Ipv6Header, TcpHeader, UdpHeader,
};

use crate::link::Mac;
pub use parsed::{Fragment, Parsed};

/// TCP's flags, as on the wire.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// A connection begins.
    pub const SYN: u8 = 0x02;
    /// A connection is torn down.
    pub const RST: u8 = 0x04;
    /// Data to be handed over at once.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// Congestion was seen.
    pub const ECE: u8 = 0x40;
    /// The congestion window was reduced.
    pub const CWR: u8 = 0x80;
}

/// A TCP or UDP packet in an Ethernet frame, to be filled in.
#[derive(Clone, Debug)]
pub struct Packet {
    source: SocketAddr,
    destination: SocketAddr,
    source_mac: Mac,
    destination_mac: Mac,
    vlans: Vec<u16>,
    ttl: u8,
    traffic_class: u8,
    flow_label: u32,
    identification: u16,
    dont_fragment: bool,
    ip_options: Vec<u8>,
    transport: Transport,
    payload: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Transport {
    Tcp { flags: u8, sequence: u32, acknowledgment: u32, options: Vec<u8> },
    Udp { checksum: bool },
}

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
const ETHERTYPE_SERVICE_VLAN: [u8; 2] = [0x88, 0xa8];

impl Packet {
    /// A TCP segment with flag ACK and without payload.
    ///
    /// # Panics
    /// Where one address is IPv4 and the other IPv6.
    #[must_use]
    pub fn tcp(source: SocketAddr, destination: SocketAddr) -> Self {
        let transport = Transport::Tcp {
            flags: flags::ACK,
            sequence: 0x0102_0304,
            acknowledgment: 0,
            options: Vec::new(),
        };
        Self::new(source, destination, transport)
    }

    /// A UDP datagram without payload.
    ///
    /// # Panics
    /// Where one address is IPv4 and the other IPv6.
    #[must_use]
    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(source, destination, Transport::Udp { checksum: true })
    }

    fn new(source: SocketAddr, destination: SocketAddr, transport: Transport) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "from {source} to {destination}");
        Self {
            source,
            destination,
            source_mac: Mac([2, 0, 0, 0, 0, 1]),
            destination_mac: Mac([2, 0, 0, 0, 0, 2]),
            vlans: Vec::new(),
            ttl: 64,
            traffic_class: 0,
            flow_label: 0,
            identification: 0x4242,
            dont_fragment: true,
            ip_options: Vec::new(),
            transport,
            payload: Vec::new(),
        }
    }

    /// The MAC addresses; by default 02:…:01 and 02:…:02.
    #[must_use]
    pub fn macs(mut self, source: Mac, destination: Mac) -> Self {
        (self.source_mac, self.destination_mac) = (source, destination);
        self
    }

    /// VLAN tags, the outer one first; the outer of two is a service tag (802.1ad).
    #[must_use]
    pub fn vlans(mut self, ids: &[u16]) -> Self {
        self.vlans = ids.to_vec();
        self
    }

    /// TTL or hop limit; 64 by default.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// DSCP (six bits) and ECN (two), as one byte.
    #[must_use]
    pub fn traffic_class(mut self, byte: u8) -> Self {
        self.traffic_class = byte;
        self
    }

    /// IPv6's flow label, 20 bits.
    #[must_use]
    pub fn flow_label(mut self, label: u32) -> Self {
        self.flow_label = label;
        self
    }

    /// IPv4's identification, and that of fragments.
    #[must_use]
    pub fn identification(mut self, identification: u16) -> Self {
        self.identification = identification;
        self
    }

    /// IPv4's "don't fragment"; set by default, never in fragments.
    #[must_use]
    pub fn dont_fragment(mut self, dont_fragment: bool) -> Self {
        self.dont_fragment = dont_fragment;
        self
    }

    /// IPv4 options: a multiple of 4 bytes, 40 at most.
    #[must_use]
    pub fn ip_options(mut self, options: &[u8]) -> Self {
        self.ip_options = options.to_vec();
        self
    }

    /// TCP's flags: an "or" of [`flags`].
    ///
    /// # Panics
    /// For UDP.
    #[must_use]
    pub fn flags(mut self, set: u8) -> Self {
        let Transport::Tcp { flags, .. } = &mut self.transport else { panic!("UDP has no flags") };
        *flags = set;
        self
    }

    /// TCP's sequence and acknowledgment number.
    ///
    /// # Panics
    /// For UDP.
    #[must_use]
    pub fn numbers(mut self, seq: u32, ack: u32) -> Self {
        let Transport::Tcp { sequence, acknowledgment, .. } = &mut self.transport else {
            panic!("UDP has no sequence number")
        };
        (*sequence, *acknowledgment) = (seq, ack);
        self
    }

    /// TCP options, as on the wire: a multiple of 4 bytes, 40 at most.
    ///
    /// # Panics
    /// For UDP.
    #[must_use]
    pub fn tcp_options(mut self, raw: &[u8]) -> Self {
        let Transport::Tcp { options, .. } = &mut self.transport else { panic!("UDP has no options") };
        *options = raw.to_vec();
        self
    }

    /// UDP without a checksum: 0, which IPv4 allows.
    ///
    /// # Panics
    /// For TCP.
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        let Transport::Udp { checksum } = &mut self.transport else { panic!("TCP always has a checksum") };
        *checksum = false;
        self
    }

    /// The payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The same the other way round: addresses, ports and MAC addresses swapped.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        std::mem::swap(&mut self.source, &mut self.destination);
        std::mem::swap(&mut self.source_mac, &mut self.destination_mac);
        self
    }

    /// The same between others.
    ///
    /// # Panics
    /// Where one address is IPv4 and the other IPv6.
    #[must_use]
    pub fn between(mut self, source: SocketAddr, destination: SocketAddr) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "from {source} to {destination}");
        (self.source, self.destination) = (source, destination);
        self
    }

    /// As a frame.
    ///
    /// # Panics
    /// Where options or payload do not fit.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let segment = self.segment();
        let mut frame = self.ethernet();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = self.ipv4(source, destination, segment.len());
                header.header_checksum = header.calc_header_checksum();
                frame.extend_from_slice(&header.to_bytes());
            }
            (source, destination) => {
                let header = self.ipv6(v6(source), v6(destination), self.protocol(), segment.len());
                frame.extend_from_slice(&header.to_bytes());
            }
        }
        frame.extend_from_slice(&segment);
        frame
    }

    /// In fragments, in order, with at most `bytes` (a multiple of 8) of the transport's bytes in each.
    ///
    /// # Panics
    /// Where `bytes` is not a multiple of 8 or options do not fit.
    #[must_use]
    pub fn fragments(&self, bytes: usize) -> Vec<Vec<u8>> {
        assert!(bytes > 0 && bytes.is_multiple_of(8), "fragments of {bytes} bytes");
        let segment = self.segment();
        let mut frames = Vec::new();
        for (n, part) in segment.chunks(bytes).enumerate() {
            let offset = u16::try_from(n * bytes / 8).expect("offsets have 13 bits");
            let offset = IpFragOffset::try_new(offset).expect("offsets have 13 bits");
            let more = (n + 1) * bytes < segment.len();
            let mut frame = self.ethernet();
            match (self.source.ip(), self.destination.ip()) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    let mut header = self.ipv4(source, destination, part.len());
                    header.dont_fragment = false;
                    header.more_fragments = more;
                    header.fragment_offset = offset;
                    header.header_checksum = header.calc_header_checksum();
                    frame.extend_from_slice(&header.to_bytes());
                }
                (source, destination) => {
                    let length = part.len() + Ipv6FragmentHeader::LEN;
                    let header =
                        self.ipv6(v6(source), v6(destination), IpNumber::IPV6_FRAGMENTATION_HEADER, length);
                    frame.extend_from_slice(&header.to_bytes());
                    let identification = u32::from(self.identification);
                    let extension = Ipv6FragmentHeader::new(self.protocol(), offset, more, identification);
                    frame.extend_from_slice(&extension.to_bytes());
                }
            }
            frame.extend_from_slice(part);
            frames.push(frame);
        }
        frames
    }

    fn protocol(&self) -> IpNumber {
        match self.transport {
            Transport::Tcp { .. } => IpNumber::TCP,
            Transport::Udp { .. } => IpNumber::UDP,
        }
    }

    fn ethernet(&self) -> Vec<u8> {
        let mut header = Vec::from(self.destination_mac.0);
        header.extend_from_slice(&self.source_mac.0);
        for (n, id) in self.vlans.iter().enumerate() {
            let inner = n + 1 == self.vlans.len();
            header.extend_from_slice(&if inner { ETHERTYPE_VLAN } else { ETHERTYPE_SERVICE_VLAN });
            header.extend_from_slice(&id.to_be_bytes());
        }
        header.extend_from_slice(&if self.source.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 });
        header
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr, length: usize) -> Ipv4Header {
        let options = Ipv4Options::try_from(self.ip_options.as_slice()).expect("IPv4 options fit");
        let mut header = Ipv4Header {
            dscp: IpDscp::try_new(self.traffic_class >> 2).expect("six bits"),
            ecn: IpEcn::try_new(self.traffic_class & 3).expect("two bits"),
            identification: self.identification,
            dont_fragment: self.dont_fragment,
            time_to_live: self.ttl,
            protocol: self.protocol(),
            source: source.octets(),
            destination: destination.octets(),
            options,
            ..Ipv4Header::default()
        };
        header.set_payload_len(length).expect("payload fits");
        header
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr, next: IpNumber, length: usize) -> Ipv6Header {
        Ipv6Header {
            traffic_class: self.traffic_class,
            flow_label: Ipv6FlowLabel::try_new(self.flow_label).expect("20 bits"),
            payload_length: u16::try_from(length).expect("payload fits"),
            next_header: next,
            hop_limit: self.ttl,
            source: source.octets(),
            destination: destination.octets(),
        }
    }

    /// Transport header and payload.
    fn segment(&self) -> Vec<u8> {
        let (source, destination) = (self.source.port(), self.destination.port());
        let mut segment = match &self.transport {
            Transport::Tcp { flags, sequence, acknowledgment, options } => {
                // As Linux sends them: nobody can send into what is reset.
                let window = if flags & flags::RST == 0 { 0xfaf0 } else { 0 };
                let mut header = TcpHeader::new(source, destination, *sequence, window);
                header.acknowledgment_number = *acknowledgment;
                header.set_options_raw(options).expect("TCP options fit");
                header.fin = flags & flags::FIN != 0;
                header.syn = flags & flags::SYN != 0;
                header.rst = flags & flags::RST != 0;
                header.psh = flags & flags::PSH != 0;
                header.ack = flags & flags::ACK != 0;
                header.urg = flags & flags::URG != 0;
                header.ece = flags & flags::ECE != 0;
                header.cwr = flags & flags::CWR != 0;
                let checksum = match (self.source.ip(), self.destination.ip()) {
                    (IpAddr::V4(source), IpAddr::V4(destination)) => {
                        header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &self.payload)
                    }
                    (source, destination) => header.calc_checksum_ipv6_raw(
                        v6(source).octets(),
                        v6(destination).octets(),
                        &self.payload,
                    ),
                };
                header.checksum = checksum.expect("payload fits");
                header.to_bytes().to_vec()
            }
            Transport::Udp { checksum } => {
                let length = u16::try_from(UdpHeader::LEN + self.payload.len()).expect("payload fits");
                let mut header =
                    UdpHeader { source_port: source, destination_port: destination, length, checksum: 0 };
                if *checksum {
                    let checksum = match (self.source.ip(), self.destination.ip()) {
                        (IpAddr::V4(source), IpAddr::V4(destination)) => header.calc_checksum_ipv4_raw(
                            source.octets(),
                            destination.octets(),
                            &self.payload,
                        ),
                        (source, destination) => header.calc_checksum_ipv6_raw(
                            v6(source).octets(),
                            v6(destination).octets(),
                            &self.payload,
                        ),
                    };
                    header.checksum = checksum.expect("payload fits");
                }
                header.to_bytes().to_vec()
            }
        };
        segment.extend_from_slice(&self.payload);
        segment
    }
}

/// [`Packet::new`] sees to it that both addresses are of one version.
fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(address) => address.to_ipv6_mapped(),
    }
}
