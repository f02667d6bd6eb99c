//! What the kernel was last seen to know: links, addresses and neighbours.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::{Mac, links::Link};

/// A copy of the kernel's tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    /// By index.
    pub(super) links: BTreeMap<u32, Link>,
    /// Addresses of this machine.
    pub(super) addresses: BTreeSet<InterfaceAddress>,
    /// By interface and address.
    pub(super) neighbours: HashMap<(u32, IpAddr), Neighbour>,
}

/// An address of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InterfaceAddress {
    /// Its interface's index.
    pub(super) ifindex: u32,
    /// Its network.
    pub(super) network: Prefix,
}

/// An address and how many of its first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    /// The address; bits behind the length are kept.
    pub(super) address: IpAddr,
    /// Bits that count.
    pub(super) length: u8,
}

impl Prefix {
    /// Whether `other` has the same first bits.
    pub(super) fn contains(self, other: IpAddr) -> bool {
        let same = |one: u128, other: u128, width: u32| {
            let behind = width.saturating_sub(u32::from(self.length));
            (one ^ other).checked_shr(behind).unwrap_or(0) == 0
        };
        match (self.address, other) {
            (IpAddr::V4(one), IpAddr::V4(other)) => same(one.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(one), IpAddr::V6(other)) => same(one.to_bits(), other.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// An entry of the kernel's neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// How far the kernel trusts it.
    pub(super) state: NeighbourState,
    /// Its MAC address, where it is known and one of Ethernet.
    pub(super) mac: Option<Mac>,
    /// Whether someone else keeps it: an administrator, another daemon, or the kernel by itself. Such an entry
    /// must not be asked for: the request would take its permanence or its owner's mark away.
    pub(super) kept: bool,
}

/// The kernel's state of a neighbour (`NUD_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NeighbourState {
    /// Nothing was ever asked.
    None,
    /// Asked, no answer so far.
    Incomplete,
    /// Confirmed lately.
    Reachable,
    /// Not confirmed for a while, and nobody minded.
    Stale,
    /// In use again; a question follows if nothing confirms it.
    Delay,
    /// Being asked again.
    Probe,
    /// Asked, and never answered.
    Failed,
    /// The interface does not ask; its MAC address is the interface's own, or was set by hand.
    NoArp,
    /// Set by hand.
    Permanent,
}

/// One change of the tables, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A link is new or different.
    Link(Link),
    /// A link is gone.
    LinkGone(u32),
    /// An address was added.
    Address(InterfaceAddress),
    /// An address was removed.
    AddressGone(InterfaceAddress),
    /// A neighbour is new or different.
    Neighbour(u32, IpAddr, Neighbour),
    /// A neighbour is gone.
    NeighbourGone(u32, IpAddr),
    /// A route to this network was added, changed or removed.
    Route(Prefix),
    /// Anything may have changed: a rule, or events were lost.
    Everything,
}

/// What a change may have an effect on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Affected {
    /// Nothing.
    Nothing,
    /// What is reached by this neighbour.
    Neighbour(u32, IpAddr),
    /// What lies in this network.
    Network(Prefix),
    /// All.
    All,
}

impl Tables {
    /// Takes a change in; what it may have an effect on.
    pub(super) fn apply(&mut self, change: Change) -> Affected {
        match change {
            Change::Link(link) => {
                let same = self.links.get(&link.index) == Some(&link);
                self.links.insert(link.index, link);
                if same { Affected::Nothing } else { Affected::All }
            }
            Change::LinkGone(index) => {
                self.neighbours.retain(|(ifindex, _), _| *ifindex != index);
                self.addresses.retain(|address| address.ifindex != index);
                if self.links.remove(&index).is_some() { Affected::All } else { Affected::Nothing }
            }
            Change::Address(address) => {
                if self.addresses.insert(address) {
                    Affected::All
                } else {
                    Affected::Nothing
                }
            }
            Change::AddressGone(address) => {
                if self.addresses.remove(&address) {
                    Affected::All
                } else {
                    Affected::Nothing
                }
            }
            Change::Neighbour(ifindex, address, neighbour) => {
                let before = self.neighbours.insert((ifindex, address), neighbour);
                let same = before == Some(neighbour);
                if same { Affected::Nothing } else { Affected::Neighbour(ifindex, address) }
            }
            Change::NeighbourGone(ifindex, address) => match self.neighbours.remove(&(ifindex, address)) {
                Some(_) => Affected::Neighbour(ifindex, address),
                None => Affected::Nothing,
            },
            Change::Route(network) => Affected::Network(network),
            Change::Everything => Affected::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_what_lies_in_them() {
        let table = [
            ("10.2.0.1", 24, "10.2.0.11", true),
            ("10.2.0.1", 24, "10.2.1.11", false),
            ("10.2.0.1", 32, "10.2.0.1", true),
            ("10.2.0.1", 32, "10.2.0.2", false),
            ("0.0.0.0", 0, "255.255.255.255", true),
            ("0.0.0.0", 0, "2001:db8::1", false),
            ("::", 0, "2001:db8::1", true),
            ("2001:db8::", 32, "2001:db8:ffff::1", true),
            ("2001:db8::", 32, "2001:db9::1", false),
            ("2001:db8::1", 128, "2001:db8::2", false),
        ];
        for (network, length, address, inside) in table {
            let prefix = Prefix { address: network.parse().expect("an address"), length };
            let contains = prefix.contains(address.parse().expect("an address"));
            assert_eq!(contains, inside, "{network}/{length} {address}");
        }
    }

    #[test]
    fn a_change_tells_what_it_affects_and_only_once() {
        let address = IpAddr::from([10, 2, 0, 11]);
        let network = Prefix { address, length: 24 };
        let stale = Neighbour { state: NeighbourState::Stale, mac: Some([2; 6]), kept: false };
        let link =
            Link { index: 3, name: "eth1".to_owned(), mac: Some([2; 6]), mtu: 1500, up: true, carrier: true };
        let table = [
            (Change::Link(link.clone()), Affected::All),
            (Change::Link(link.clone()), Affected::Nothing),
            (Change::Link(Link { mtu: 9000, ..link }), Affected::All),
            (Change::Address(InterfaceAddress { ifindex: 3, network }), Affected::All),
            (Change::Address(InterfaceAddress { ifindex: 3, network }), Affected::Nothing),
            (Change::AddressGone(InterfaceAddress { ifindex: 3, network }), Affected::All),
            (Change::AddressGone(InterfaceAddress { ifindex: 3, network }), Affected::Nothing),
            (Change::Neighbour(3, address, stale), Affected::Neighbour(3, address)),
            (Change::Neighbour(3, address, stale), Affected::Nothing),
            (Change::NeighbourGone(3, address), Affected::Neighbour(3, address)),
            (Change::NeighbourGone(3, address), Affected::Nothing),
            (Change::Route(network), Affected::Network(network)),
            (Change::Everything, Affected::All),
            (Change::Neighbour(3, address, stale), Affected::Neighbour(3, address)),
            (Change::LinkGone(3), Affected::All),
            (Change::NeighbourGone(3, address), Affected::Nothing),
            (Change::LinkGone(3), Affected::Nothing),
        ];
        let mut tables = Tables::default();
        for (step, (change, affected)) in table.into_iter().enumerate() {
            assert_eq!(tables.apply(change.clone()), affected, "{step} {change:?}");
        }
    }
}
