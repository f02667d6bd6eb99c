//! Interfaces: what they are, and when they come, go and change.

use std::{collections::BTreeMap, io};

use tokio::sync::mpsc;
use tracing::warn;

use super::{
    Mac,
    follow::{Follower, LINKS},
    resolve::Kernel,
    tables::Change,
};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index; another one after it was made anew.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address; none where it is not an Ethernet interface.
    pub mac: Option<Mac>,
    /// Its MTU: the largest IP packet.
    pub mtu: u32,
    /// Whether it was set up (`ip link set … up`).
    pub up: bool,
    /// Whether it has a carrier: a cable, or a peer that is up. Never without `up`.
    pub carrier: bool,
}

impl Link {
    /// Whether packets can pass.
    #[must_use]
    pub fn running(&self) -> bool {
        self.up && self.carrier
    }
}

/// An interface has come, changed or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEvent {
    /// Its name; one that is renamed goes by the old name and comes by the new.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Whether packets can pass: it is up and has a carrier.
    pub up: bool,
    /// Whether it does not exist any more.
    pub gone: bool,
}

/// All interfaces, by index. Needs a tokio runtime.
///
/// # Errors
/// Where rtnetlink does not work.
pub async fn all() -> io::Result<Vec<Link>> {
    Ok(Kernel::open()?.links().await?.into_values().collect())
}

/// The interface of this name; none where there is none. Needs a tokio runtime.
///
/// # Errors
/// Where rtnetlink does not work.
pub async fn by_name(name: &str) -> io::Result<Option<Link>> {
    Ok(all().await?.into_iter().find(|link| link.name == name))
}

/// The interface of this index; none where there is none. Needs a tokio runtime.
///
/// # Errors
/// Where rtnetlink does not work.
pub async fn by_index(index: u32) -> io::Result<Option<Link>> {
    Ok(all().await?.into_iter().find(|link| link.index == index))
}

/// Tells of every interface that there is, then of each change of what a [`LinkEvent`] says, until the receiver is
/// dropped. Needs a tokio runtime, and is of the network namespace of the calling thread.
///
/// # Errors
/// Where rtnetlink does not work.
pub fn watch() -> io::Result<mpsc::Receiver<LinkEvent>> {
    let (events, receiver) = mpsc::channel(64);
    // Follow first, then look: a change in between is seen twice, not missed.
    let follower = Follower::open(LINKS)?;
    let kernel = Kernel::open()?;
    tokio::spawn(run(kernel, follower, events));
    Ok(receiver)
}

async fn run(kernel: Kernel, mut follower: Follower, events: mpsc::Sender<LinkEvent>) {
    let mut links = BTreeMap::new();
    let mut change = Change::Everything;
    loop {
        let mut now = links.clone();
        match change {
            Change::Link(link) => drop(now.insert(link.index, link)),
            Change::LinkGone(index) => drop(now.remove(&index)),
            Change::Everything => match kernel.links().await {
                Ok(all) => now = all,
                Err(error) => warn!(%error, "the interfaces cannot be listed"),
            },
            Change::Address(_)
            | Change::AddressGone(_)
            | Change::Neighbour(..)
            | Change::NeighbourGone(..)
            | Change::Route(_) => {}
        }
        for event in differences(&links, &now) {
            if events.send(event).await.is_err() {
                return;
            }
        }
        links = now;
        change = tokio::select! {
            change = follower.next() => change,
            () = events.closed() => return,
        };
    }
}

/// What to tell when the interfaces were `before` and are `now`: what went, then what came or changed.
fn differences(before: &BTreeMap<u32, Link>, now: &BTreeMap<u32, Link>) -> Vec<LinkEvent> {
    let event = |link: &Link, gone: bool| LinkEvent {
        name: link.name.clone(),
        index: link.index,
        up: !gone && link.running(),
        gone,
    };
    let went = before.values().filter(|link| now.get(&link.index).is_none_or(|new| new.name != link.name));
    let came = now
        .values()
        .map(|link| event(link, false))
        .filter(|new| before.get(&new.index).is_none_or(|old| event(old, false) != *new));
    went.map(|link| event(link, true)).chain(came).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, carrier: bool) -> Link {
        Link { index, name: name.to_owned(), mac: Some([2; 6]), mtu: 1500, up: true, carrier }
    }

    fn told(before: &[&Link], now: &[&Link]) -> Vec<(String, u32, bool, bool)> {
        let [before, now] =
            [before, now].map(|links| links.iter().map(|link| (link.index, (*link).clone())).collect());
        let events = differences(&before, &now);
        events.into_iter().map(|event| (event.name, event.index, event.up, event.gone)).collect()
    }

    #[test]
    fn what_is_told_of_links() {
        let eth1 = link(3, "eth1", true);
        let larger = Link { mtu: 9000, ..eth1.clone() };
        let (up, gone) = (true, true);
        assert_eq!(told(&[], &[&eth1]), [("eth1".into(), 3, up, !gone)], "new");
        assert_eq!(told(&[&eth1], &[]), [("eth1".into(), 3, !up, gone)], "gone");
        assert_eq!(told(&[&eth1], &[&eth1]), [], "the same");
        assert_eq!(told(&[&eth1], &[&larger]), [], "nothing that is told");
        assert_eq!(told(&[&eth1], &[&link(3, "eth1", false)]), [("eth1".into(), 3, !up, !gone)]);
        assert_eq!(
            told(&[&eth1], &[&link(3, "wan", true)]),
            [("eth1".into(), 3, !up, gone), ("wan".into(), 3, up, !gone)],
            "renamed"
        );
        assert_eq!(
            told(&[&eth1], &[&link(7, "eth1", true)]),
            [("eth1".into(), 3, !up, gone), ("eth1".into(), 7, up, !gone)],
            "made anew"
        );
    }
}
