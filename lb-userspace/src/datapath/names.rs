//! From the data plane's indices back to what they stand for.

use std::net::{IpAddr, SocketAddr};

use lb_common::{NextHop, ServiceKey};

use super::apply::Reconciler;

impl Reconciler {
    /// The service and address of each backend, by its index; none where the index is no backend's.
    #[must_use]
    pub fn backends_by_index(&self) -> Vec<Option<(ServiceKey, SocketAddr)>> {
        let mut backends = vec![None; self.tables.backends.len()];
        for (key, service) in &self.live.services {
            for (address, backend) in &service.backends {
                backends[backend.index as usize] = Some((*key, *address));
            }
        }
        backends
    }

    /// The service with this index.
    #[must_use]
    pub fn service_at(&self, index: u32) -> Option<ServiceKey> {
        self.live.services.iter().find(|(_, service)| service.index == index).map(|(key, _)| *key)
    }

    /// full-nat's source addresses, by their index.
    #[must_use]
    pub fn sources_by_index(&self) -> Vec<(u8, IpAddr)> {
        self.live.sources.used.clone()
    }

    /// Ports that full-nat may take of each source address towards each backend.
    #[must_use]
    pub fn nat_port_count(&self) -> u16 {
        self.tables.identity().nat_port_count
    }

    /// The next hop with this index; none for 0.
    #[must_use]
    pub fn next_hop_at(&self, index: u32) -> Option<NextHop> {
        let is_one = index > 0 && (index as usize) < self.tables.next_hops.len();
        is_one.then(|| self.tables.next_hops.get(index as usize))
    }
}
