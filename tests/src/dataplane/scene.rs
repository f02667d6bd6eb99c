//! Who is who in packet tests.
//!
//! | | IPv4 | IPv6 |
//! | --- | --- | --- |
//! | service | 192.0.2.10:80 | \[2001:db8:1::10\]:80 |
//! | backend N | 10.2.0.N:8080 | \[2001:db8:2::N\]:8080, in hex |
//! | full-nat's source | 10.2.0.1 | 2001:db8:2::1 |
//! | client N | 198.18.0.0/15 | 2001:db8:c::/48 |
//!
//! The service of dsr listens where its backends do, on port 80.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use flowgate::{
    datapath::apply::{WantedBackend, WantedService},
    ring,
};
use lb_common::{
    Mode, NextHop, Scheduler, ServiceKey, Timeouts, TunnelOptions,
    reject::IcmpError,
    service::{PROTOCOL_TCP, PROTOCOL_UDP},
    tunnel::{DontFragment, GUE_PORT},
};

use crate::{
    checksums::verify_checksums,
    link::Mac,
    packets::{Packet, Parsed, flags},
};

/// The balancer's interfaces, by slot.
pub const BALANCER_MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0xf0, 0]), Mac([2, 0, 0, 0, 0xf0, 1])];

/// Where clients' packets come from: a router's interface.
pub const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0xc0, 1]);

/// The MAC address of the backend at an address, by the last byte of that.
#[must_use]
pub fn backend_mac(address: SocketAddr) -> Mac {
    let last = match address.ip() {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    Mac([2, 0, 0, 0, 0xb0, last])
}

/// A kind of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// How packets are forwarded.
    pub mode: Mode,
    /// IPv6, else IPv4.
    pub v6: bool,
    /// UDP, else TCP.
    pub udp: bool,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::FullNat => "full-nat",
            Mode::Nat => "nat",
            Mode::Dsr => "dsr",
            Mode::Ipip => "ipip",
            Mode::Gue => "gue",
        };
        let version = if self.v6 { "v6" } else { "v4" };
        write!(f, "{mode} {version} {}", if self.udp { "udp" } else { "tcp" })
    }
}

impl Kind {
    /// All of a mode.
    #[must_use]
    pub fn of_mode(mode: Mode) -> [Self; 4] {
        [(false, false), (false, true), (true, false), (true, true)].map(|(v6, udp)| Self { mode, v6, udp })
    }

    /// Every mode that steers in a way of its own; tunnels do as dsr does.
    pub fn that_steer() -> impl Iterator<Item = Self> {
        [Mode::FullNat, Mode::Nat, Mode::Dsr].into_iter().flat_map(Self::of_mode)
    }

    /// Every mode on both IP versions and protocols; of the tunnels, which steer alike, half for each.
    pub fn all() -> impl Iterator<Item = Self> {
        let [ipip, gue] = [(Mode::Ipip, true), (Mode::Gue, false)].map(|(mode, equal)| {
            Self::of_mode(mode).into_iter().filter(move |kind| (kind.v6 == kind.udp) == equal)
        });
        Self::that_steer().chain(ipip).chain(gue)
    }

    /// Whether addresses and ports are rewritten.
    #[must_use]
    pub fn rewrites(self) -> bool {
        matches!(self.mode, Mode::FullNat | Mode::Nat)
    }

    /// Whether packets are encapsulated.
    #[must_use]
    pub fn is_tunnel(self) -> bool {
        self.mode.is_tunnel()
    }

    /// Whether clients' addresses are rewritten, too.
    #[must_use]
    pub fn is_full_nat(self) -> bool {
        self.mode == Mode::FullNat
    }

    /// What clients send to.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        let ip: IpAddr = if self.v6 { "2001:db8:1::10" } else { "192.0.2.10" }.parse().expect("an address");
        SocketAddr::new(ip, 80)
    }

    /// The `n`-th client: every one has an address or a port of its own.
    #[must_use]
    pub fn client(self, n: u32) -> SocketAddr {
        let (host, port) = (n % 65_521, 40_000 + (n / 65_521) as u16 + (n % 7) as u16 * 1000);
        let ip = if self.v6 {
            IpAddr::V6(Ipv6Addr::from(0x2001_0db8_000c_0000_0000_0000_0000_0000 | u128::from(host)))
        } else {
            IpAddr::V4(Ipv4Addr::from(0xc612_0000 | host))
        };
        SocketAddr::new(ip, port)
    }

    /// The address of host `n` of the backends' network.
    #[must_use]
    pub fn inside(self, n: u8) -> IpAddr {
        if self.v6 {
            Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, n.into()).into()
        } else {
            Ipv4Addr::new(10, 2, 0, n).into()
        }
    }

    /// A healthy backend, reached by slot 0, spoken to from [`Kind::source`].
    #[must_use]
    pub fn backend(self, n: u8) -> WantedBackend {
        let address = SocketAddr::new(self.inside(n), if self.rewrites() { 8080 } else { 80 });
        WantedBackend {
            address,
            usable: true,
            down: false,
            reset: false,
            ring_weight: 100,
            ramp_permille: 1000,
            max_flows: 0,
            next_hop: Some(next_hop(backend_mac(address), 0)),
            sources: vec![self.source()],
            source_host_bits: 0,
        }
    }

    /// The address that full-nat speaks to backends from.
    #[must_use]
    pub fn source(self) -> IpAddr {
        self.inside(1)
    }

    /// The service.
    #[must_use]
    pub fn service(self, backends: Vec<WantedBackend>) -> WantedService {
        self.service_at(self.address(), backends)
    }

    /// The same at another address.
    #[must_use]
    pub fn service_at(self, address: SocketAddr, backends: Vec<WantedBackend>) -> WantedService {
        let protocol = if self.udp { PROTOCOL_UDP } else { PROTOCOL_TCP };
        WantedService {
            key: ServiceKey::new(address.ip().into(), address.port().to_be_bytes(), protocol),
            mode: self.mode,
            scheduler: Scheduler::Maglev,
            affinity_bits: if self.v6 { 128 } else { 32 },
            timeouts: Timeouts::new(300, 64, 32, 300),
            reject: false,
            answer_ping: false,
            fragments_by_address: false,
            tunnel: TunnelOptions::new(GUE_PORT, DontFragment::Copy),
            ring_slots: ring::size(backends.iter().map(|backend| backend.ring_weight)),
            backends,
        }
    }

    /// A packet of its protocol: a SYN, or a datagram.
    #[must_use]
    pub fn packet(self, source: SocketAddr, destination: SocketAddr) -> Packet {
        if self.udp {
            Packet::udp(source, destination).payload(b"question")
        } else {
            Packet::tcp(source, destination).flags(flags::SYN)
        }
    }

    /// What a client begins with, as it comes in by slot 0.
    #[must_use]
    pub fn request(self, client: SocketAddr) -> Packet {
        self.packet(client, self.address()).macs(CLIENT_MAC, BALANCER_MACS[0])
    }

    /// What a client goes on with: a segment that is no SYN, or another datagram.
    #[must_use]
    pub fn more(self, client: SocketAddr) -> Packet {
        let packet = self.request(client).payload(b"some more");
        if self.udp { packet } else { packet.flags(flags::ACK | flags::PSH) }
    }

    /// A client's packet as dsr sends it to a backend that is reached by slot 0.
    #[must_use]
    pub fn sent_to(self, request: &Packet, backend: &WantedBackend) -> Packet {
        request.clone().macs(BALANCER_MACS[0], backend_mac(backend.address))
    }

    /// A client's packet with a TTL of 64 as full-nat sends it from `source` to a backend reached by slot 0.
    #[must_use]
    pub fn translated(self, request: &Packet, source: SocketAddr, backend: SocketAddr) -> Packet {
        request.clone().between(source, backend).macs(BALANCER_MACS[0], backend_mac(backend)).ttl(63)
    }

    /// A backend's answer to what full-nat sent it from `source`, as it comes in by slot 0.
    #[must_use]
    pub fn answer(self, backend: SocketAddr, source: SocketAddr) -> Packet {
        let packet =
            self.packet(backend, source).macs(backend_mac(backend), BALANCER_MACS[0]).payload(b"answer");
        if self.udp { packet } else { packet.flags(flags::SYN | flags::ACK).numbers(7, 0x0102_0305) }
    }

    /// That a frame is the ICMP error that tells `client` about its own frame `about`, with that one's headers.
    ///
    /// # Panics
    /// Where it is not.
    pub fn assert_icmp_error(self, frame: &[u8], client: SocketAddr, about: &[u8], error: IcmpError) {
        verify_checksums(frame);
        let answer = Parsed::of(frame);
        assert_eq!((answer.source_mac, answer.destination_mac), (BALANCER_MACS[0], CLIENT_MAC), "{self}");
        assert_eq!(
            (answer.source().ip(), answer.destination().ip()),
            (self.address().ip(), client.ip()),
            "{self}"
        );
        let [kind, code] = if self.v6 { error.v6() } else { error.v4() };
        assert_eq!(answer.icmp, (kind, code), "{self}");
        let headers = if self.v6 { 48 } else { 28 };
        assert_eq!(answer.payload, about[14..14 + headers], "{self}: the packet's own headers");
    }

    /// A backend's answer with a TTL of 64 as full-nat sends it on to a client behind slot `slot`.
    #[must_use]
    pub fn returned(self, answer: &Packet, client: SocketAddr, slot: usize) -> Packet {
        answer.clone().between(self.address(), client).macs(BALANCER_MACS[slot], CLIENT_MAC).ttl(63)
    }
}

/// A backend, reached by the interface in another slot.
#[must_use]
pub fn behind(backend: WantedBackend, slot: u32) -> WantedBackend {
    WantedBackend { next_hop: Some(next_hop(backend_mac(backend.address), slot)), ..backend }
}

/// A neighbour behind the interface in `slot`.
fn next_hop(mac: Mac, slot: u32) -> NextHop {
    let source_mac = BALANCER_MACS[slot as usize].0;
    NextHop { destination_mac: mac.0, source_mac, interface_slot: slot as u16, mtu: 1500 }
}
