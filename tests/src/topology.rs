//! Client, balancer and backends, wired together.
//!
//! One arm, everything on one segment; the balancer sends out of the interface that it received on:
//!
//! ```text
//!                10.10.0.0/24   2001:db8:10::/64
//!
//!   client .1 ──────┐  switch  ┌────── b1 .11
//!                   ├──────────┼────── b2 .12
//!   balancer .2 ────┘          └────── …
//!     service .100, dsr service .101 (on its eth0 too)
//! ```
//!
//! Two arms, the balancer between the clients' and the backends' network:
//!
//! ```text
//!   10.20.0.0/24                         10.30.0.0/24
//!   2001:db8:20::/64                     2001:db8:30::/64
//!
//!                  eth0          eth1            ┌── b1 .11
//!   client .1 ───────.2 balancer .2──── switch ──┼── b2 .12
//!                                                └── …
//!   service 10.40.0.100, dsr service 10.40.0.101: on no segment, the clients' default route leads there
//! ```
//!
//! The same with a router in front, so that clients are not on-link:
//!
//! ```text
//!   10.50.0.0/24                10.20.0.0/24
//!   client .1 ──── .254 router .1 ──── .2 balancer …
//! ```
//!
//! An IPv6 address ends in the digits of the IPv4 address: 10.10.0.11 and 2001:db8:10::11. MAC addresses are
//! 02:00:00:00:NETWORK:HOST in the same digits. Every host's interface is `eth0`; the switch's ports are named
//! as the host at their other end. Backends have the dsr service's addresses on `lo` and do not answer ARP
//! for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};

use crate::{
    link::{self, End, Mac, add_address},
    netns::Namespace,
    servers::Server,
    xdp::{Attached, PASS},
};

/// An IPv4 and an IPv6 address of the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// Host `host` (below 1000) of network `network` (below 100), in the digits of both.
    #[must_use]
    fn of(network: u8, host: u8) -> Self {
        let v6 = format!("2001:db8:{network}::{host}").parse().expect("decimal digits are hex digits");
        Self { v4: Ipv4Addr::new(10, network, 0, host), v6 }
    }

    /// The IPv4 address with a port.
    #[must_use]
    pub fn v4(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.v4.into(), port)
    }

    /// The IPv6 address with a port.
    #[must_use]
    pub fn v6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.v6.into(), port)
    }

    /// Both.
    #[must_use]
    pub fn both(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// A machine of a topology.
#[derive(Debug)]
pub struct Host {
    /// `client`, `balancer`, `b1`…
    pub name: String,
    /// Its namespace.
    pub netns: Namespace,
    /// Its addresses on `eth0`.
    pub addresses: Addresses,
    /// The MAC address of `eth0`.
    pub mac: Mac,
}

impl Host {
    fn new(name: &str, network: u8, host: u8) -> Result<Self> {
        let netns = Namespace::new(name)?;
        Ok(Self {
            name: name.to_owned(),
            netns,
            addresses: Addresses::of(network, host),
            mac: mac(network, host),
        })
    }

    /// Gives `eth0` another address: `10.10.0.50/24`, `2001:db8:10::50/64`.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn add_address(&self, address: &str) -> Result<()> {
        add_address(&self.netns, "eth0", address)
    }

    fn end(&self) -> End<'_> {
        End { netns: &self.netns, device: "eth0", mac: self.mac }
    }

    fn add_own_addresses(&self) -> Result<()> {
        self.add_address(&format!("{}/24", self.addresses.v4))?;
        self.add_address(&format!("{}/64", self.addresses.v6))
    }

    fn default_route(&self, via: Addresses) -> Result<()> {
        let routes = format!("route add 0.0.0.0/0 via {}\nroute add ::/0 via {}", via.v4, via.v6);
        self.netns.ip(&routes).map(drop)
    }
}

/// What is wired together.
#[derive(Debug)]
pub struct Topology {
    /// Where clients run.
    pub client: Host,
    /// Between the client and the balancer, where there is one.
    pub router: Option<Host>,
    /// Where Flowgate runs, on `eth0`, and `eth1` with two arms.
    pub balancer: Host,
    /// The balancer's addresses towards the backends: those of `eth1`, or with one arm of `eth0`.
    pub balancer_inside: Addresses,
    /// The MAC address of the interface that they are on.
    pub balancer_inside_mac: Mac,
    /// Where servers run.
    pub backends: Vec<Host>,
    /// The bridge that the backends are on.
    pub switch: Namespace,
    /// Addresses for services that are translated: the backends do not have them.
    pub service: Addresses,
    /// Addresses for `dsr` services: every backend has them on `lo`.
    pub dsr_service: Addresses,
    /// Keep the interfaces that face the balancer able to take its frames.
    passes: Vec<Attached>,
}

/// The most backends that a topology has room for.
pub const MAX_BACKENDS: usize = 80;

const SERVICE: u8 = 100;
const DSR_SERVICE: u8 = 101;
const CLIENT: u8 = 1;
const BALANCER: u8 = 2;
const FIRST_BACKEND: u8 = 11;
const ROUTER: u8 = 254;

impl Topology {
    /// One segment with `backends` backends.
    ///
    /// # Errors
    /// Where something cannot be made: most likely for want of root.
    pub fn one_arm(backends: usize) -> Result<Self> {
        const NETWORK: u8 = 10;
        let (service, dsr_service) = (Addresses::of(NETWORK, SERVICE), Addresses::of(NETWORK, DSR_SERVICE));
        let switch = new_switch()?;
        let client = Host::new("client", NETWORK, CLIENT)?;
        let balancer = Host::new("balancer", NETWORK, BALANCER)?;
        plug_in(&switch, &client, client.end())?;
        plug_in(&switch, &balancer, balancer.end())?;
        client.add_own_addresses()?;
        balancer.add_own_addresses()?;
        for address in service.both().into_iter().chain(dsr_service.both()) {
            add_service_address(&balancer.netns, "eth0", address)?;
        }
        let passes = vec![take_frames(&switch, "balancer")?];
        let backends = new_backends(backends, NETWORK, &switch, dsr_service)?;
        Ok(Self {
            balancer_inside: balancer.addresses,
            balancer_inside_mac: balancer.mac,
            client,
            router: None,
            balancer,
            backends,
            switch,
            service,
            dsr_service,
            passes,
        })
    }

    /// Two segments, the client on-link on the first, `backends` backends on the second.
    ///
    /// The balancer's kernel does not route, so that nothing gets through but by its data plane. `dsr`
    /// replies cross it by plain routing and need `balancer.netns.set_forwarding(true)`.
    ///
    /// # Errors
    /// Where something cannot be made: most likely for want of root.
    pub fn two_arm(backends: usize) -> Result<Self> {
        Self::new_two_arm(backends, false)
    }

    /// [`Topology::two_arm`] with a router between the client and the balancer.
    ///
    /// # Errors
    /// Where something cannot be made: most likely for want of root.
    pub fn two_arm_routed(backends: usize) -> Result<Self> {
        Self::new_two_arm(backends, true)
    }

    fn new_two_arm(backends: usize, routed: bool) -> Result<Self> {
        const OUTSIDE: u8 = 20;
        const INSIDE: u8 = 30;
        const SERVICES: u8 = 40;
        const CLIENTS: u8 = 50;
        let dsr_service = Addresses::of(SERVICES, DSR_SERVICE);
        let balancer = Host::new("balancer", OUTSIDE, BALANCER)?;
        let mut passes = Vec::new();

        let (client, router) = if routed {
            let client = Host::new("client", CLIENTS, CLIENT)?;
            let router = Host::new("router", OUTSIDE, CLIENT)?;
            link::connect(balancer.end(), router.end())?;
            let port = End { netns: &router.netns, device: "eth1", mac: mac(CLIENTS, ROUTER) };
            link::connect(client.end(), port)?;
            passes.push(take_frames(&router.netns, "eth0")?);
            client.add_own_addresses()?;
            router.add_own_addresses()?;
            balancer.add_own_addresses()?;
            let gateway = Addresses::of(CLIENTS, ROUTER);
            add_address(&router.netns, "eth1", &format!("{}/24", gateway.v4))?;
            add_address(&router.netns, "eth1", &format!("{}/64", gateway.v6))?;
            client.default_route(gateway)?;
            router.default_route(balancer.addresses)?;
            router.netns.set_forwarding(true)?;
            balancer.default_route(router.addresses)?;
            (client, Some(router))
        } else {
            let client = Host::new("client", OUTSIDE, CLIENT)?;
            link::connect(balancer.end(), client.end())?;
            passes.push(take_frames(&client.netns, "eth0")?);
            client.add_own_addresses()?;
            balancer.add_own_addresses()?;
            client.default_route(balancer.addresses)?;
            (client, None)
        };

        let switch = new_switch()?;
        let (inside, inside_mac) = (Addresses::of(INSIDE, BALANCER), mac(INSIDE, BALANCER));
        plug_in(&switch, &balancer, End { netns: &balancer.netns, device: "eth1", mac: inside_mac })?;
        add_address(&balancer.netns, "eth1", &format!("{}/24", inside.v4))?;
        add_address(&balancer.netns, "eth1", &format!("{}/64", inside.v6))?;
        passes.push(take_frames(&switch, "balancer")?);
        let backends = new_backends(backends, INSIDE, &switch, dsr_service)?;
        for backend in &backends {
            backend.default_route(inside)?;
        }
        Ok(Self {
            client,
            router,
            balancer,
            balancer_inside: inside,
            balancer_inside_mac: inside_mac,
            backends,
            switch,
            service: Addresses::of(SERVICES, SERVICE),
            dsr_service,
            passes,
        })
    }

    /// An HTTP server on every backend, at every address of its host, named as the backend.
    ///
    /// # Errors
    /// Where the port is taken.
    pub fn serve_http(&self, port: u16) -> Result<Vec<Server>> {
        let address = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        self.backends.iter().map(|backend| Server::http(&backend.netns, &backend.name, address)).collect()
    }

    /// A TCP echo server on every backend, at every address of its host, named as the backend.
    ///
    /// # Errors
    /// Where the port is taken.
    pub fn serve_tcp_echo(&self, port: u16) -> Result<Vec<Server>> {
        let address = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        self.backends.iter().map(|backend| Server::tcp_echo(&backend.netns, &backend.name, address)).collect()
    }

    /// UDP echo servers on every backend, one for its IPv4 and one for its IPv6 address.
    ///
    /// # Errors
    /// Where the port is taken.
    pub fn serve_udp_echo(&self, port: u16) -> Result<Vec<Server>> {
        let mut servers = Vec::new();
        for backend in &self.backends {
            for address in backend.addresses.both() {
                let address = SocketAddr::new(address, port);
                servers.push(Server::udp_echo(&backend.netns, &backend.name, address)?);
            }
        }
        Ok(servers)
    }

    /// Cuts a backend off: what is sent to it vanishes, and it says nothing any more.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn freeze(&self, backend: usize) -> Result<()> {
        self.set_port(backend, "down")
    }

    /// Lets a backend that was cut off back in.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn thaw(&self, backend: usize) -> Result<()> {
        self.set_port(backend, "up")
    }

    fn set_port(&self, backend: usize, state: &str) -> Result<()> {
        let name = &self.backends.get(backend).context("no such backend")?.name;
        self.switch.ip(&format!("link set {name} {state}")).map(drop)
    }

    /// Every namespace, and what it is.
    #[must_use]
    pub fn namespaces(&self) -> Vec<&Namespace> {
        let ends = [&self.client, &self.balancer];
        let hosts = ends.into_iter().chain(&self.router).chain(&self.backends);
        hosts.map(|host| &host.netns).chain([&self.switch]).collect()
    }

    /// Leaves everything in place when this is dropped: the XDP programs that it needs are pinned in
    /// `directory`, on bpffs.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn keep(self, directory: &std::path::Path) -> Result<()> {
        for (n, pass) in self.passes.iter().enumerate() {
            pass.pin(&directory.join(format!("pass-{n}")))?;
        }
        for namespace in self.namespaces() {
            namespace.clone().keep();
        }
        Ok(())
    }
}

fn mac(network: u8, host: u8) -> Mac {
    let digits = |n: u8| u8::from_str_radix(&n.to_string(), 16).unwrap_or(n);
    Mac([2, 0, 0, 0, digits(network), digits(host)])
}

/// Gives a host a service's address, which it must not use as the source of what it sends itself: with the
/// longest prefix that would be its first choice for IPv6, so the address is marked as not preferred.
fn add_service_address(netns: &Namespace, device: &str, address: IpAddr) -> Result<()> {
    match address {
        IpAddr::V4(address) => add_address(netns, device, &format!("{address}/32")),
        IpAddr::V6(address) => add_address(netns, device, &format!("{address}/128 preferred_lft 0")),
    }
}

/// A namespace with nothing but a bridge.
fn new_switch() -> Result<Namespace> {
    let switch = Namespace::new("switch")?;
    switch.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
         link set br0 addrgenmode none
         link set br0 up")?;
    Ok(switch)
}

/// Connects an interface of `host` to the switch's port of that name.
fn plug_in(switch: &Namespace, host: &Host, end: End<'_>) -> Result<()> {
    let mut mac = end.mac;
    mac.0[1] = 0xff;
    let port = End { netns: switch, device: &host.name, mac };
    link::connect(end, port)?;
    let name = &host.name;
    switch.ip(&format!("link set {name} addrgenmode none\nlink set {name} master br0")).map(drop)
}

/// Makes an interface take what its peer sends by `XDP_TX` or a redirect.
fn take_frames(netns: &Namespace, device: &str) -> Result<Attached> {
    let pass = Attached::new(netns, device, &PASS)?;
    link::offloads_off(netns, device)?;
    Ok(pass)
}

fn new_backends(count: usize, network: u8, switch: &Namespace, dsr_service: Addresses) -> Result<Vec<Host>> {
    ensure!(count <= MAX_BACKENDS, "{count} backends: there is room for {MAX_BACKENDS}");
    let numbers = (FIRST_BACKEND..).take(count).enumerate();
    numbers
        .map(|(n, number)| {
            let backend = Host::new(&format!("b{}", n + 1), network, number)?;
            plug_in(switch, &backend, backend.end())?;
            backend.add_own_addresses()?;
            backend
                .netns
                .sysctls(&[("net.ipv4.conf.all.arp_ignore", "1"), ("net.ipv4.conf.all.arp_announce", "2")])?;
            for address in dsr_service.both() {
                add_service_address(&backend.netns, "lo", address)?;
            }
            Ok(backend)
        })
        .collect()
}
