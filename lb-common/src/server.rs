//! Servers as their answers show them (mode `nat`): an address, a port and a protocol, and whose backend that is.

/// Services of mode `nat` that one server may be a backend of.
pub const SERVER_SERVICES: usize = 8;

/// The services of mode `nat` that have a server as a backend.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Their indices; 0 is none, and none follows it.
    pub services: [u16; SERVER_SERVICES],
}

const _: () = assert!(size_of::<Server>() == 16 && align_of::<Server>() == 8);

impl Server {
    /// The server of some services, if there is room for them.
    #[must_use]
    pub fn of(services: impl Iterator<Item = u16>) -> Option<Self> {
        let mut server = Self::default();
        for (place, service) in services.enumerate() {
            *server.services.get_mut(place)? = service;
        }
        Some(server)
    }

    /// The indices of the services.
    pub fn services(&self) -> impl Iterator<Item = u16> {
        self.services.into_iter().take_while(|service| *service != 0)
    }

    /// The bytes that the map holds.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (place, service) in bytes.chunks_exact_mut(2).zip(self.services) {
            place.copy_from_slice(&service.to_ne_bytes());
        }
        bytes
    }

    /// From [`Server::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 16]) -> Self {
        let mut server = Self::default();
        for (service, place) in server.services.iter_mut().zip(bytes.chunks_exact(2)) {
            *service = u16::from_ne_bytes([place[0], place[1]]);
        }
        server
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_server_survives_the_way_through_bytes() {
        let server = Server::of([3, 500, 65_535].into_iter()).expect("there is room");
        assert_eq!(Server::from_bytes(&server.to_bytes()), server);
        assert_eq!(server.services().collect::<Vec<_>>(), [3, 500, 65_535]);
        assert_eq!(Server::of(1..=8).map(|server| server.services().count()), Some(8));
        assert_eq!(Server::of(1..=9), None);
    }
}
