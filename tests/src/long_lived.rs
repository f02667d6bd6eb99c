//! Connections that stay open: which backend each is with, and whether it ever breaks or moves.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use crate::{
    http::Connection,
    netns::Namespace,
    wait::{wait_for, wait_until},
};

/// No answer to a ping for so long is a break.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Open HTTP connections, each asking for `/` every so often. Dropped, they close.
#[derive(Debug)]
pub struct LongLived {
    connections: Vec<Held>,
}

/// One connection as it is now.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The client's end.
    pub local: Option<SocketAddr>,
    /// The backend of the last answer; empty before the first.
    pub backend: String,
    /// Answers so far.
    pub answers: u64,
    /// The longest time to an answer.
    pub slowest: Duration,
    /// Why it broke. It is not opened again.
    pub broken: Option<String>,
    /// Another backend than the first one answered: never right.
    pub moved: bool,
    /// It was closed by its owner.
    pub closed: bool,
}

#[derive(Debug)]
struct Held {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    closing: AtomicBool,
    state: Mutex<State>,
}

impl LongLived {
    /// Opens `count` connections and waits until each has been answered once.
    ///
    /// # Errors
    /// Where one is not.
    pub fn open(netns: &Namespace, target: SocketAddr, count: usize, every: Duration) -> Result<Self> {
        let connections = (0..count).map(|n| Held::open(netns, target, every, n)).collect();
        let all = Self { connections };
        let answered = |state: &State| state.answers > 0 || state.broken.is_some();
        wait_until("every connection was answered", TIMEOUT * 2, || all.states().iter().all(answered))?;
        let broken = all.broken();
        if let Some(first) = broken.first() {
            bail!("{} of {count} connections to {target} failed: {first}", broken.len());
        }
        Ok(all)
    }

    /// Each connection as it is now.
    #[must_use]
    pub fn states(&self) -> Vec<State> {
        self.connections.iter().map(|held| held.shared.state().clone()).collect()
    }

    /// Connections that are open, by backend.
    #[must_use]
    pub fn by_backend(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for state in self.states() {
            if state.broken.is_none() && !state.closed {
                *counts.entry(state.backend).or_default() += 1;
            }
        }
        counts
    }

    /// Why connections broke, one text for each that did.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        self.states().into_iter().filter_map(|state| state.broken).collect()
    }

    /// Connections that were answered by more than one backend.
    #[must_use]
    pub fn moved(&self) -> usize {
        self.states().iter().filter(|state| state.moved).count()
    }

    /// Waits until every connection that is open has asked again and was answered, or is broken.
    ///
    /// # Errors
    /// Names how many have said nothing.
    pub fn all_ask_again(&self, limit: Duration) -> Result<()> {
        // One answer may have been under way.
        let wanted: Vec<u64> = self.states().iter().map(|state| state.answers + 2).collect();
        wait_for("every connection is answered again", limit, || {
            let is_silent = |(state, wanted): &(State, &u64)| {
                state.broken.is_none() && !state.closed && state.answers < **wanted
            };
            let silent = self.states().into_iter().zip(&wanted).filter(is_silent).count();
            ensure!(silent == 0, "{silent} connections have said nothing");
            Ok(())
        })
    }

    /// Closes up to `count` open connections with a backend in good order, and gives how many it closed.
    pub fn close_some(&mut self, backend: &str, count: usize) -> usize {
        let with = |held: &&mut Held| {
            let state = held.shared.state();
            state.backend == backend && state.broken.is_none() && !state.closed
        };
        self.connections.iter_mut().filter(with).take(count).map(Held::close).count()
    }
}

impl Held {
    fn open(netns: &Namespace, target: SocketAddr, every: Duration, n: usize) -> Self {
        let shared = Arc::new(Shared { closing: AtomicBool::new(false), state: Mutex::default() });
        let of_thread = Arc::clone(&shared);
        let body = move || {
            let result = hold(target, every, &of_thread);
            let mut state = of_thread.state();
            match result {
                Ok(()) => state.closed = true,
                Err(error) => state.broken = Some(format!("{error:#}")),
            }
        };
        let thread = Some(netns.spawn_thread(&format!("held-{n}"), body));
        Self { shared, thread }
    }

    fn close(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hold(target: SocketAddr, every: Duration, shared: &Shared) -> Result<()> {
    let mut connection = Connection::open(target, TIMEOUT)?;
    shared.state().local = connection.local_address().ok();
    while !shared.closing.load(Ordering::SeqCst) {
        let asked = Instant::now();
        let answer = connection.get("/")?;
        {
            let mut state = shared.state();
            state.moved |= state.answers > 0 && state.backend != answer.backend;
            state.answers += 1;
            state.backend = answer.backend;
            state.slowest = state.slowest.max(asked.elapsed());
        }
        thread::park_timeout(every);
    }
    Ok(())
}
