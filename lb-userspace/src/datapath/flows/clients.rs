//! Which clients have the flows, by prefix.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lb_common::Timeouts;

use crate::datapath::tables::FlowTables;

/// Prefixes that are told apart: about 60 MB. Flows of those that come after count as the rest.
const PREFIXES_MAX: usize = 1 << 20;

/// Flows by the client's /24 or /64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// By the prefix's first address.
    pub by_prefix: HashMap<IpAddr, u64>,
    /// Flows of prefixes for which there was no room.
    pub rest: u64,
}

impl FlowTables {
    /// Counts translated flows by client; of `backends` those that are wanted, by index.
    #[must_use]
    pub fn clients(&self, backends: &[bool], timeouts: &[Option<Timeouts>], now: u16) -> Clients {
        let mut clients = Clients::default();
        for place in 0..self.replies.len() {
            let Some(row) = self.translated_row(place, timeouts, now) else { continue };
            let wanted = backends.get(usize::from(row.backend)).copied().unwrap_or(false);
            if let Some(flow) = row.translated.filter(|_| wanted) {
                clients.add(prefix(flow.client.ip()));
            }
        }
        clients
    }
}

impl Clients {
    fn add(&mut self, prefix: IpAddr) {
        if let Some(flows) = self.by_prefix.get_mut(&prefix) {
            *flows += 1;
        } else if self.by_prefix.len() < PREFIXES_MAX {
            self.by_prefix.insert(prefix, 1);
        } else {
            self.rest += 1;
        }
    }
}

/// The first address of a client's /24 or /64.
fn prefix(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::FlowState;

    use super::*;
    use crate::datapath::flows::list::tests::Scene;

    #[test]
    fn neighbours_count_together() {
        let scene = Scene::new();
        scene.translate(3, 1, FlowState::Established, 1, [10, 0, 0, 1]);
        scene.translate(4, 1, FlowState::Established, 1, [10, 0, 0, 2]);
        scene.translate(5, 1, FlowState::Established, 1, [10, 0, 1, 1]);
        let counted = |wanted: [bool; 3]| scene.tables.clients(&wanted, &scene.timeouts, Scene::NOW);
        let by_prefix = counted([false, true, true]).by_prefix;
        assert_eq!(by_prefix[&IpAddr::from([10, 0, 0, 0])], 2);
        assert_eq!(by_prefix[&IpAddr::from([10, 0, 1, 0])], 1);
        assert_eq!(counted([false; 3]), Clients::default());
    }

    #[test]
    fn prefixes_are_those_of_one_site() {
        let of = |text: &str| prefix(text.parse().expect("an address")).to_string();
        assert_eq!(of("203.0.113.77"), "203.0.113.0");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
