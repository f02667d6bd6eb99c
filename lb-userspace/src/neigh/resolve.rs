//! The questions to the kernel, one function each.

use std::{collections::BTreeMap, io, net::IpAddr, time::Duration};

use futures::{Stream, StreamExt};
use rtnetlink::{
    Error, Handle, RouteMessageBuilder,
    packet_route::AddressFamily,
    packet_route::neighbour::{NeighbourFlags, NeighbourState},
};
use tokio::time::timeout;

use super::{
    decide::{NoRoute, Route},
    links::Link,
    message,
    tables::Tables,
};

/// The kernel answers at once, or the answer was lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A socket for questions. It hears no events, so that a flood of those cannot push an answer out.
///
/// Opened in the network namespace of the calling thread.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    handle: Handle,
}

impl Kernel {
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        // Ends when the last handle is gone.
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The route that packets of this machine to `address` take.
    pub(super) async fn route(&self, address: IpAddr) -> Result<Route, NoRoute> {
        let host = if address.is_ipv4() { 32 } else { 128 };
        let failed = |error: String| NoRoute::Failed(error);
        let question = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(address, host)
            .map_err(|error| failed(error.to_string()))?
            .build();
        let answers = collect(self.handle.route().get(question).execute());
        match answers.await {
            Ok(answers) => answers.first().and_then(message::route).ok_or(NoRoute::None),
            Err(Ask::Refused(code)) => Err(match code {
                libc::ENETUNREACH => NoRoute::None,
                libc::EHOSTUNREACH => NoRoute::Forbidden("unreachable"),
                libc::EACCES => NoRoute::Forbidden("prohibit"),
                libc::EINVAL => NoRoute::Forbidden("blackhole"),
                code => failed(io::Error::from_raw_os_error(code).to_string()),
            }),
            Err(Ask::Failed(error)) => Err(failed(error)),
        }
    }

    /// All links, by index.
    pub(super) async fn links(&self) -> io::Result<BTreeMap<u32, Link>> {
        let links = collect(self.handle.link().get().execute()).await?;
        Ok(links.iter().filter_map(message::link).map(|link| (link.index, link)).collect())
    }

    /// All links, addresses and neighbours.
    pub(super) async fn tables(&self) -> io::Result<Tables> {
        let mut tables = Tables { links: self.links().await?, ..Tables::default() };
        let addresses = collect(self.handle.address().get().execute()).await?;
        tables.addresses.extend(addresses.iter().filter_map(message::address));
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = self.handle.neighbours().get().set_address_family(family);
            for entry in collect(request.execute()).await?.iter().filter_map(message::neighbour) {
                let (ifindex, address, neighbour) = entry;
                tables.neighbours.insert((ifindex, address), neighbour);
            }
        }
        Ok(tables)
    }

    /// Tells the kernel that the MAC address of a neighbour is wanted, as a packet to it would (`NTF_USE`): a
    /// missing or failed entry is asked for, a stale one is confirmed.
    ///
    /// Not for an entry that someone [keeps](super::tables::Neighbour::kept): since Linux 5.16 the flag takes
    /// `permanent` away, and the marks of other owners.
    pub(super) async fn want(&self, ifindex: u32, neighbour: IpAddr) -> io::Result<()> {
        // The state is that of the request, not of the entry; `permanent` is what rtnetlink would put there.
        let request = self
            .handle
            .neighbours()
            .add(ifindex, neighbour)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            // Without this the kernel refuses an entry that exists; with `NTF_USE` nothing is replaced.
            .replace();
        Ok(within(async { request.execute().await.map_err(Ask::from) }).await?)
    }
}

/// Why there is no answer.
enum Ask {
    /// The kernel's error code.
    Refused(i32),
    /// Anything else.
    Failed(String),
}

impl From<Error> for Ask {
    fn from(error: Error) -> Self {
        match error {
            Error::NetlinkError(message) => Self::Refused(-message.raw_code()),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<Ask> for io::Error {
    fn from(ask: Ask) -> Self {
        match ask {
            Ask::Refused(code) => Self::from_raw_os_error(code),
            Ask::Failed(error) => Self::other(error),
        }
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, Ask>>) -> Result<T, Ask> {
    let lost = || Ask::Failed("the kernel did not answer on rtnetlink".to_owned());
    timeout(ANSWER_WITHIN, answer).await.unwrap_or_else(|_| Err(lost()))
}

async fn collect<T>(answers: impl Stream<Item = Result<T, Error>>) -> Result<Vec<T>, Ask> {
    let mut answers = std::pin::pin!(answers);
    let all = async {
        let mut all = Vec::new();
        while let Some(answer) = answers.next().await {
            all.push(answer?);
        }
        Ok(all)
    };
    within(all).await
}
