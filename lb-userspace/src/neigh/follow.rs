//! The kernel's events, as they come.

use std::{io, time::Duration};

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::{AsyncSocket, SocketAddr},
};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::{message, tables::Change};

/// What the kernel may queue for us; the usual 200 KiB overflow when an interface with many neighbours goes down.
const RECEIVE_BUFFER_BYTES: i32 = 1 << 20;
/// After events were lost, the socket has been emptied when it was quiet for so long.
const QUIET: Duration = Duration::from_millis(50);
/// Or, where it is never quiet, after so long.
const QUIET_AT_LAST: Duration = Duration::from_secs(1);
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
    messages: UnboundedReceiver<Message>,
    /// When events were lost, until all has been looked at again.
    lost: Option<Instant>,
}

type Message = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr);

impl Follower {
    pub(super) fn open(groups: &'static [MulticastGroup]) -> io::Result<Self> {
        let (mut connection, _, messages) = rtnetlink::new_multicast_connection(groups)?;
        // Best effort: the kernel caps it at net.core.rmem_max, and lost events are recovered from.
        drop(connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER_BYTES));
        // Ends with the first event after `messages` is dropped.
        tokio::spawn(connection);
        Ok(Self { groups, messages, lost: None })
    }

    /// The next change. Nothing is lost where this is cancelled.
    ///
    /// Lost events are told twice. The kernel says so once, and then goes on dropping events in silence until the
    /// socket has been read empty: what is looked at before that may be old again at once.
    pub(super) async fn next(&mut self) -> Change {
        loop {
            let Some(message) = self.message_or_quiet().await else {
                self.lost = None;
                return Change::Everything;
            };
            match message {
                Some((NetlinkMessage { payload: NetlinkPayload::InnerMessage(message), .. }, _)) => {
                    if let Some(change) = message::change(&message) {
                        return change;
                    }
                }
                Some((NetlinkMessage { payload: NetlinkPayload::Overrun(_), .. }, _)) => {
                    warn!("kernel events were lost: looking at everything again");
                    self.lost = Some(Instant::now());
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

    /// The next message; none where events were lost and all those left have been read.
    async fn message_or_quiet(&mut self) -> Option<Option<Message>> {
        let Some(lost) = self.lost else { return Some(self.messages.next().await) };
        if lost.elapsed() >= QUIET_AT_LAST {
            return None;
        }
        timeout(QUIET, self.messages.next()).await.ok()
    }
}
