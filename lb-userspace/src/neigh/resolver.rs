//! Keeps the next hops of a set of addresses right, and tells what changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::IpAddr,
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::{info, warn};

use super::{
    NextHop, NextHopEvent, Unresolved,
    decide::{ask_after, decide},
    follow::{Follower, NEXT_HOPS},
    resolve::Kernel,
    tables::{Affected, Change, Tables},
};

/// Events come in crowds: one interface that goes down is dozens of them.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// A pass is followed by a rest of so many times its own length: under a storm of route changes, looking things up
/// takes a tenth of one core and not all of it.
const REST: u32 = 10;
/// And never a longer rest: on a busy machine a pass takes long without working much.
const MAX_REST: Duration = Duration::from_millis(500);
/// Everything is looked at again this often, in case an event was lost or never sent (next-hop objects).
const REVIEW_EVERY: Duration = Duration::from_secs(5);
/// Questions to the kernel at once.
const QUESTIONS: usize = 32;

/// Resolves next hops until it is dropped.
#[derive(Debug)]
pub struct Resolver {
    addresses: watch::Sender<BTreeSet<IpAddr>>,
    task: JoinHandle<()>,
}

impl Resolver {
    /// Starts with no addresses, in the network namespace of the calling thread. Needs a tokio runtime.
    ///
    /// # Errors
    /// Where rtnetlink does not work.
    pub fn spawn() -> io::Result<(Self, mpsc::Receiver<NextHopEvent>)> {
        let (events, receiver) = mpsc::channel(256);
        let (addresses, wanted) = watch::channel(BTreeSet::new());
        // Follow first, then look: a change in between is seen twice, not missed.
        let follower = Follower::open(NEXT_HOPS)?;
        let state = State::new(Kernel::open()?);
        let task = tokio::spawn(run(state, follower, wanted, events));
        Ok((Self { addresses, task }, receiver))
    }

    /// Replaces the set of addresses; never waits.
    ///
    /// Each new address gets an event at once: a next hop, or that the kernel is still asking, or why there is
    /// none. Then one for each change. An event may be of an address that was just removed: whoever reads must
    /// ignore those.
    pub fn watch(&self, addresses: BTreeSet<IpAddr>) {
        self.addresses.send_replace(addresses);
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    mut state: State,
    mut follower: Follower,
    mut wanted: watch::Receiver<BTreeSet<IpAddr>>,
    events: mpsc::Sender<NextHopEvent>,
) {
    let mut review = interval(REVIEW_EVERY);
    review.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (pass, ask) = (state.pass_due(), state.ask_due);
        tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => {
                    let addresses = wanted.borrow_and_update().clone();
                    state.set_addresses(&addresses);
                }
                Err(_) => return,
            },
            change = follower.next() => state.on_change(change),
            _ = review.tick() => state.on_change(Change::Everything),
            () = sleep_until(ask.unwrap_or_else(Instant::now)), if ask.is_some() => state.ask().await,
            () = sleep_until(pass.unwrap_or_else(Instant::now)), if pass.is_some() => {
                for event in state.pass().await {
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// All addresses, and what is known.
struct State {
    kernel: Kernel,
    tables: Tables,
    /// Whether the tables must be read anew.
    reload: bool,
    watched: BTreeMap<IpAddr, Watched>,
    /// Addresses to look at in the next pass.
    open: BTreeSet<IpAddr>,
    /// When the first of `open` was put there.
    open_since: Instant,
    /// No pass before this.
    rest_until: Instant,
    /// When the kernel was last asked for a neighbour.
    asked: HashMap<(u32, IpAddr), Instant>,
    /// When the kernel should be asked again, if nothing changes; none: no neighbour is missing or old.
    ask_due: Option<Instant>,
    /// Whether the kernel refused to ask, the last time: logged once, not each second.
    refused: bool,
}

/// One address.
#[derive(Default)]
struct Watched {
    /// What was told last.
    said: Option<Result<NextHop, Unresolved>>,
    /// The neighbour that it depends on.
    neighbour: Option<(u32, IpAddr)>,
}

impl State {
    fn new(kernel: Kernel) -> Self {
        let now = Instant::now();
        Self {
            kernel,
            tables: Tables::default(),
            reload: true,
            watched: BTreeMap::new(),
            open: BTreeSet::new(),
            open_since: now,
            rest_until: now,
            asked: HashMap::new(),
            ask_due: None,
            refused: false,
        }
    }

    fn set_addresses(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.watched.retain(|address, _| addresses.contains(address));
        self.open.retain(|address| addresses.contains(address));
        for address in addresses {
            if !self.watched.contains_key(address) {
                self.watched.insert(*address, Watched::default());
                self.look_at([*address]);
            }
        }
    }

    fn on_change(&mut self, change: Change) {
        self.reload |= change == Change::Everything;
        let affected: Vec<IpAddr> = match self.tables.apply(change) {
            Affected::Nothing => return,
            Affected::Neighbour(ifindex, address) => {
                let neighbour = Some((ifindex, address));
                let depends = self.watched.iter().filter(|(_, watched)| watched.neighbour == neighbour);
                depends.map(|(address, _)| *address).collect()
            }
            Affected::Network(network) => {
                self.watched.keys().copied().filter(|address| network.contains(*address)).collect()
            }
            Affected::All => self.watched.keys().copied().collect(),
        };
        self.look_at(affected);
    }

    fn look_at(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        if self.open.is_empty() {
            self.open_since = Instant::now();
        }
        self.open.extend(addresses);
    }

    /// When the next pass is due; none while there is nothing to look at.
    fn pass_due(&self) -> Option<Instant> {
        (!self.open.is_empty()).then(|| (self.open_since + DEBOUNCE).max(self.rest_until))
    }

    /// Looks at all that is open; what changed.
    async fn pass(&mut self) -> Vec<NextHopEvent> {
        let started = Instant::now();
        if self.reload {
            match self.kernel.tables().await {
                Ok(tables) => (self.tables, self.reload) = (tables, false),
                Err(error) => {
                    warn!(%error, "the kernel's tables cannot be read, going on with what is known");
                }
            }
        }
        let kernel = &self.kernel;
        let routes: Vec<_> = stream::iter(std::mem::take(&mut self.open))
            .map(|address| async move { (address, kernel.route(address).await) })
            .buffered(QUESTIONS)
            .collect()
            .await;
        let mut news = Vec::new();
        for (address, route) in routes {
            let Some(watched) = self.watched.get_mut(&address) else { continue };
            let decision = decide(address, &route, &self.tables, watched.said.as_ref());
            watched.neighbour = decision.neighbour;
            if watched.said.as_ref() != Some(&decision.result) {
                log(address, &decision.result);
                watched.said = Some(decision.result.clone());
                news.push(NextHopEvent { address, result: decision.result });
            }
        }
        self.rest_until = Instant::now() + (started.elapsed() * REST).min(MAX_REST);
        self.ask().await;
        news
    }

    /// Has the kernel ask for the neighbours that are missing, and confirm those that are old.
    async fn ask(&mut self) {
        let now = Instant::now();
        let wanted: BTreeSet<_> = self.watched.values().filter_map(|watched| watched.neighbour).collect();
        self.asked.retain(|neighbour, _| wanted.contains(neighbour));
        self.ask_due = None;
        let mut refusal = None;
        for (ifindex, address) in wanted {
            let Some(pause) = ask_after(self.tables.neighbours.get(&(ifindex, address))) else { continue };
            let mut last = self.asked.get(&(ifindex, address)).copied();
            if last.is_none_or(|last| now >= last + pause) {
                if let Err(error) = self.kernel.want(ifindex, address).await {
                    refusal.get_or_insert((address, error));
                }
                last = Some(now);
                self.asked.insert((ifindex, address), now);
            }
            let again = last.map(|last| last + pause);
            self.ask_due = self.ask_due.into_iter().chain(again).min();
        }
        if let (Some((address, error)), false) = (&refusal, self.refused) {
            let full = error.raw_os_error() == Some(libc::ENOBUFS);
            let hint = if full {
                "its table is full: raise net.ipv4.neigh.default.gc_thresh3 (or ipv6)"
            } else {
                ""
            };
            warn!(%address, %error, hint, "the kernel does not ask for neighbours");
        }
        self.refused = refusal.is_some();
    }
}

fn log(address: IpAddr, result: &Result<NextHop, Unresolved>) {
    match result {
        Ok(hop) => {
            info!(%address, interface = hop.interface, gateway = %hop.gateway, mac = %Text(hop.mac), "next hop");
        }
        Err(reason) => info!(%address, %reason, "no next hop"),
    }
}

/// A MAC address as text.
struct Text(super::Mac);

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
