//! The kernel's events, as they come.

use std::{io, time::Duration};

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::{AsyncSocket, SocketAddr},
};
use tracing::warn;

use super::{message, tables::Change};

/// What the kernel may queue for us; the usual 200 KiB overflow when an interface with many neighbours goes down.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// Between attempts to open a socket that has failed.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// All that has to do with next hops.
pub(super) const NEXT_HOPS: &[MulticastGroup] = &[
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// Links alone.
pub(super) const LINKS: &[MulticastGroup] = &[MulticastGroup::Link];

/// A socket that hears events.
///
/// Opened in the network namespace of the calling thread.
#[derive(Debug)]
pub(super) struct Follower {
    groups: &'static [MulticastGroup],
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
}

impl Follower {
    pub(super) fn open(groups: &'static [MulticastGroup]) -> io::Result<Self> {
        let (mut connection, _, messages) = rtnetlink::new_multicast_connection(groups)?;
        // Best effort: the kernel caps it at net.core.rmem_max, and lost events are recovered from.
        drop(connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER_BYTES));
        // Ends when `messages` is dropped and no handle is left.
        tokio::spawn(connection);
        Ok(Self { groups, messages })
    }

    /// The next change. Nothing is lost where this is cancelled.
    pub(super) async fn next(&mut self) -> Change {
        loop {
            match self.messages.next().await {
                Some((NetlinkMessage { payload: NetlinkPayload::InnerMessage(message), .. }, _)) => {
                    if let Some(change) = message::change(&message) {
                        return change;
                    }
                }
                Some((NetlinkMessage { payload: NetlinkPayload::Overrun(_), .. }, _)) => {
                    warn!("kernel events were lost: looking at everything again");
                    return Change::Everything;
                }
                Some(_) => {}
                None => {
                    tokio::time::sleep(REOPEN_AFTER).await;
                    match Self::open(self.groups) {
                        Ok(new) => {
                            *self = new;
                            return Change::Everything;
                        }
                        Err(error) => {
                            warn!(%error, "cannot follow the kernel's network events, trying again");
                        }
                    }
                }
            }
        }
    }
}
