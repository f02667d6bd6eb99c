//! Next hops: which interface and which MAC addresses lead to an address.
//!
//! The kernel is asked over rtnetlink, in the network namespace of this process: its route to the address, then
//! its neighbour entry for the gateway, or for the address itself where it is on-link. The data plane gets the
//! answer and looks nothing up itself, so the answer must be kept right: kernel events are [followed](follow), and
//! everything is looked at again every few seconds.
//!
//! ```text
//!  kernel ──events──► follow ──► resolver ──NextHopEvent──► controller
//!    ▲                             │  tables: links, addresses, neighbours as last seen
//!    └───── resolve: lookups, ◄────┘  decide: what they mean, without I/O
//!           requests to ask for a MAC
//! ```
//!
//! No packet is ever sent from here. Where a MAC address is missing or old, the kernel is told that it is wanted,
//! and sends ARP or neighbour discovery as it would for traffic of its own.

mod decide;
mod follow;
pub mod links;
mod message;
mod resolve;
mod resolver;
mod tables;

use std::net::IpAddr;

pub use resolver::Resolver;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Where packets for an address leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The egress interface's index.
    pub ifindex: u32,
    /// The egress interface's name.
    pub interface: String,
    /// The neighbour: the gateway, or the address itself where it is on-link.
    pub gateway: IpAddr,
    /// Whether the address itself is the neighbour, with no router between: `dsr` needs that.
    pub on_link: bool,
    /// The neighbour's MAC address.
    pub mac: Mac,
    /// The egress interface's MAC address.
    pub source_mac: Mac,
    /// The address that the kernel would send from.
    pub source: Option<IpAddr>,
    /// The largest IP packet that this way takes: the interface's MTU, or the route's where that is smaller.
    pub mtu: u32,
}

/// Why there is no next hop, with the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unresolved {
    /// In words.
    pub reason: String,
    /// Whether the question is still open: the kernel is asking.
    pub pending: bool,
}

impl Unresolved {
    /// A question that has its answer.
    pub(crate) fn settled(reason: String) -> Self {
        Self { reason, pending: false }
    }

    /// A question that is open.
    pub(crate) fn pending(reason: String) -> Self {
        Self { reason, pending: true }
    }
}

/// The next hop of an address, or why it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHopEvent {
    /// The address that is watched.
    pub address: IpAddr,
    /// Its next hop.
    pub result: Result<NextHop, Unresolved>,
}
