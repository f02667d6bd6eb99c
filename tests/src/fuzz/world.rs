//! What is known of the data plane that is fuzzed: its services, and the flows and parts of packets that it may remember.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use flowgate::datapath::apply::WantedBackend;

use super::{datagram::Datagram, model::Route};
use crate::dataplane::{DataPlane, Kind, Options};

/// A service of a kind on a port of its own, with one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The kind.
    pub(super) kind: Kind,
    /// The service's port.
    pub(super) port: u16,
}

impl Place {
    /// What clients send to.
    #[must_use]
    pub(super) fn address(self) -> SocketAddr {
        SocketAddr::new(self.kind.address().ip(), self.port)
    }

    /// Its backend's address.
    #[must_use]
    pub(super) fn backend(self) -> SocketAddr {
        let port = if self.kind.rewrites() { 8000 + self.port } else { self.port };
        SocketAddr::new(self.kind.inside(11), port)
    }

    /// TCP's or UDP's number.
    #[must_use]
    pub(super) fn protocol(self) -> u8 {
        if self.kind.udp { super::datagram::UDP } else { super::datagram::TCP }
    }

    fn wanted(self) -> WantedBackend {
        WantedBackend { address: self.backend(), ..self.kind.backend(11) }
    }
}

/// What a part of a packet is told by: source, destination, identification, and for IPv4 the protocol.
pub(super) type PartKey = (std::net::IpAddr, std::net::IpAddr, u32, u8);

/// What is known.
#[derive(Debug)]
pub(super) struct World {
    /// Every service.
    pub(super) places: Vec<Place>,
    /// Flows of full-nat, by protocol, backend and the address that the backend knows the client by: the client, and the
    /// service. The last one of that name; it may be forgotten.
    pub(super) translated: BTreeMap<(u8, SocketAddr, SocketAddr), (SocketAddr, Place)>,
    /// Flows of nat, by client and the service's port; they may be forgotten.
    pub(super) steered: BTreeSet<(SocketAddr, u16)>,
    /// Where first parts went; they may be forgotten.
    pub(super) parts: BTreeMap<PartKey, Route>,
}

impl World {
    /// A data plane with a service of each kind, in every mode, and what is known of it.
    #[must_use]
    pub(super) fn new() -> (Self, DataPlane) {
        use lb_common::Mode::{Dsr, FullNat, Gue, Ipip, Nat};
        let kinds = [FullNat, Nat, Dsr, Ipip, Gue].into_iter().flat_map(Kind::of_mode);
        let places: Vec<_> = kinds.zip(100..).map(|(kind, port)| Place { kind, port }).collect();
        let mut plane = DataPlane::with(&Options::default().flows(65_536));
        let services =
            places.iter().map(|place| place.kind.service_at(place.address(), vec![place.wanted()]));
        plane.apply(&services.collect::<Vec<_>>());
        let world =
            Self { places, translated: BTreeMap::new(), steered: BTreeSet::new(), parts: BTreeMap::new() };
        (world, plane)
    }

    /// The service that a packet is for.
    #[must_use]
    pub(super) fn service_of(&self, packet: &Datagram) -> Option<Place> {
        let is_its =
            |place: &&Place| place.address() == packet.destination && place.protocol() == packet.protocol;
        self.places.iter().find(is_its).copied()
    }

    /// From and to where an answer of a backend of `place` might go; of full-nat to one of the flows that there are.
    #[must_use]
    pub(super) fn answer(&self, place: Place, client: SocketAddr, which: u16) -> (SocketAddr, SocketAddr) {
        let flows: Vec<_> = self.translated.iter().filter(|(_, (_, of))| *of == place).take(256).collect();
        if place.kind.is_full_nat() && !flows.is_empty() {
            let ((_, backend, source), _) = flows[usize::from(which) % flows.len()];
            return (*backend, *source);
        }
        (place.backend(), client)
    }
}
