//! From rtnetlink's messages to our types, and nothing else.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState as Nud,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};

use super::{
    Mac,
    decide::{Route, RouteKind},
    links::Link,
    tables::{Change, InterfaceAddress, Neighbour, NeighbourState, Prefix},
};

/// What an event means for the tables; none: nothing.
pub(super) fn change(message: &RouteNetlinkMessage) -> Option<Change> {
    Some(match message {
        RouteNetlinkMessage::NewLink(message) => Change::Link(link(message)?),
        RouteNetlinkMessage::DelLink(message) => {
            // A bridge tells of a port that leaves it in the same way.
            link(message)?;
            Change::LinkGone(message.header.index)
        }
        RouteNetlinkMessage::NewAddress(message) => Change::Address(address(message)?),
        RouteNetlinkMessage::DelAddress(message) => Change::AddressGone(address(message)?),
        RouteNetlinkMessage::NewNeighbour(message) => {
            let (ifindex, address, neighbour) = neighbour(message)?;
            Change::Neighbour(ifindex, address, neighbour)
        }
        RouteNetlinkMessage::DelNeighbour(message) => {
            let (ifindex, address, _) = neighbour(message)?;
            Change::NeighbourGone(ifindex, address)
        }
        RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
            Change::Route(network(message)?)
        }
        RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => Change::Everything,
        _ => return None,
    })
}

/// A link; none where the message is of another family (a bridge's view of its port), or of one aspect of the link
/// alone (wireless events).
pub(super) fn link(message: &LinkMessage) -> Option<Link> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
    };
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) if ethernet => link.mac = mac(bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    (link.mtu != 0).then_some(link)
}

/// An address of this machine.
pub(super) fn address(message: &AddressMessage) -> Option<InterfaceAddress> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link `Address` is the peer's, whose network is the one that is reached.
            AddressAttribute::Address(address) => found = Some(*address),
            AddressAttribute::Local(address) => found = found.or(Some(*address)),
            _ => {}
        }
    }
    let network = Prefix { address: found?, length: message.header.prefix_len };
    Some(InterfaceAddress { ifindex: message.header.index, network })
}

/// A neighbour of IPv4 or IPv6; none for a bridge's forwarding entries and for proxies.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<(u32, IpAddr, Neighbour)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let state = match message.header.state {
        Nud::None => NeighbourState::None,
        Nud::Incomplete => NeighbourState::Incomplete,
        Nud::Reachable => NeighbourState::Reachable,
        Nud::Stale => NeighbourState::Stale,
        Nud::Delay => NeighbourState::Delay,
        Nud::Probe => NeighbourState::Probe,
        Nud::Failed => NeighbourState::Failed,
        Nud::Noarp => NeighbourState::NoArp,
        Nud::Permanent => NeighbourState::Permanent,
        _ => return None,
    };
    let mut kept = matches!(state, NeighbourState::Permanent | NeighbourState::NoArp)
        || message.header.flags.contains(NeighbourFlags::ExtLearned);
    let (mut address, mut found) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => found = mac(bytes),
            NeighbourAttribute::ExtFlags(flags) => kept |= flags.contains(NeighbourExtFlags::Managed),
            _ => {}
        }
    }
    Some((message.header.ifindex, address?, Neighbour { state, mac: found, kept }))
}

/// The answer to a route lookup; none without an egress interface.
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    let kind = match message.header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast => RouteKind::Broadcast,
        _ => RouteKind::Other,
    };
    let mut route = Route { kind, ifindex: 0, gateway: None, source: None, mtu: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => route.ifindex = *index,
            RouteAttribute::Gateway(gateway) => route.gateway = ip(gateway),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = Some(IpAddr::V4(*gateway)),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => route.gateway = Some(IpAddr::V6(*gateway)),
            RouteAttribute::PrefSource(source) => route.source = ip(source),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (route.ifindex != 0).then_some(route)
}

/// The network that a route leads to; none for other families than IPv4 and IPv6.
fn network(message: &RouteMessage) -> Option<Prefix> {
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0_u8; 4]),
        AddressFamily::Inet6 => IpAddr::from([0_u8; 16]),
        _ => return None,
    };
    let named = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(destination) => ip(destination),
        _ => None,
    });
    // The default route has no destination.
    Some(Prefix { address: named.unwrap_or(unspecified), length: message.header.destination_prefix_length })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// A MAC address of Ethernet that is not all zeroes.
fn mac(bytes: &[u8]) -> Option<Mac> {
    Mac::try_from(bytes).ok().filter(|mac| *mac != [0; 6])
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 11);

    fn entry(state: Nud, flags: NeighbourFlags, ext: NeighbourExtFlags) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 3;
        message.header.state = state;
        message.header.flags = flags;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(BACKEND)),
            NeighbourAttribute::LinkLayerAddress(vec![2; 6]),
            NeighbourAttribute::ExtFlags(ext),
        ];
        message
    }

    #[test]
    fn entries_that_belong_to_others_are_marked() {
        let (none, no_ext) = (NeighbourFlags::empty(), NeighbourExtFlags::empty());
        let table = [
            (entry(Nud::Stale, none, no_ext), Some(false)),
            (entry(Nud::Reachable, NeighbourFlags::Router, no_ext), Some(false)),
            (entry(Nud::Reachable, NeighbourFlags::ExtLearned, no_ext), Some(true)),
            (entry(Nud::Stale, none, NeighbourExtFlags::Managed), Some(true)),
            (entry(Nud::Permanent, none, no_ext), Some(true)),
            (entry(Nud::Noarp, none, no_ext), Some(true)),
            (entry(Nud::Stale, NeighbourFlags::Proxy, no_ext), None),
        ];
        for (message, kept) in table {
            let found = neighbour(&message);
            assert_eq!(found.map(|(_, _, neighbour)| neighbour.kept), kept, "{message:?}");
            if let Some((ifindex, address, neighbour)) = found {
                assert_eq!((ifindex, address, neighbour.mac), (3, IpAddr::V4(BACKEND), Some([2; 6])));
            }
        }
    }

    #[test]
    fn a_mac_is_six_bytes_and_not_all_zeroes() {
        assert_eq!(mac(&[2, 0, 0, 0, 0, 1]), Some([2, 0, 0, 0, 0, 1]));
        assert_eq!(mac(&[0; 6]), None);
        assert_eq!(mac(&[]), None);
        assert_eq!(mac(&[2; 4]), None, "an IPv4 tunnel's");
        assert_eq!(mac(&[2; 20]), None, "InfiniBand's");
    }

    #[test]
    fn a_link_is_only_read_from_a_whole_message() {
        let mut message = LinkMessage::default();
        message.header.index = 3;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.flags = LinkFlags::Up;
        message.attributes = vec![LinkAttribute::IfName("eth1".to_owned())];
        assert_eq!(link(&message), None, "a wireless event");
        message.attributes.extend([LinkAttribute::Mtu(1500), LinkAttribute::Address(vec![2; 6])]);
        let eth1 = link(&message).expect("a whole message");
        assert_eq!(
            (eth1.name.as_str(), eth1.mac, eth1.up, eth1.carrier),
            ("eth1", Some([2; 6]), true, false)
        );
        message.header.interface_family = AddressFamily::Bridge;
        assert_eq!(link(&message), None, "a bridge's view of its port");
    }

    #[test]
    fn the_default_route_leads_everywhere() {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        assert!(network(&message).is_some_and(|network| network.contains(IpAddr::V4(BACKEND))));
        message.header.address_family = AddressFamily::Inet6;
        assert!(network(&message).is_some_and(|network| !network.contains(IpAddr::V4(BACKEND))));
        message.header.address_family = AddressFamily::Mpls;
        assert_eq!(network(&message), None);
    }
}
