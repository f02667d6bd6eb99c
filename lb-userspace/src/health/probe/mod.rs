//! Asking one backend, once.
//!
//! One timeout covers the whole of a probe, from the first packet to the verdict, so an answer of one byte a
//! second does not keep it alive.

mod http;
mod tcp;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::Outcome;
use crate::model::Probe;

/// Probes, of which only so many are in flight at once.
///
/// A silent backend holds a file descriptor for its whole timeout, and a process has 1024 of them unless it was
/// given more. The timeout of a probe that had to wait its turn begins with its turn: a crowd of silent backends
/// delays the verdict on the others but never makes it worse.
#[derive(Clone, Debug)]
pub struct Prober {
    turns: Arc<Semaphore>,
}

impl Prober {
    /// Probes in flight at once, where nothing else is said: half of the usual limit of file descriptors.
    pub const MAX_IN_FLIGHT: usize = 512;

    /// At most `max_in_flight` probes at once; at least 1.
    #[must_use]
    pub fn new(max_in_flight: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(max_in_flight.max(1))) }
    }

    /// [`probe`], when it is this one's turn.
    pub async fn probe(&self, ask: &Probe, target: SocketAddr, limit: Duration) -> Outcome {
        match self.turns.acquire().await {
            Ok(_turn) => probe(ask, target, limit).await,
            // The semaphore is never closed; if it were, no backend would be at fault.
            Err(closed) => Outcome::NotAsked { reason: closed.to_string() },
        }
    }
}

impl Default for Prober {
    fn default() -> Self {
        Self::new(Self::MAX_IN_FLIGHT)
    }
}

/// Asks `target` once and waits for the verdict, no longer than `limit`.
pub async fn probe(ask: &Probe, target: SocketAddr, limit: Duration) -> Outcome {
    let started = Instant::now();
    let answer = async {
        match ask {
            Probe::None => Ok(()),
            Probe::Tcp => tcp::ask(target).await,
            Probe::Http(check) => http::ask(check, target).await,
        }
    };
    let late = || Fault::Backend(format!("no answer within {}", humantime::format_duration(limit)));
    let answer = timeout(limit, answer).await.unwrap_or_else(|_| Err(late()));
    let took = started.elapsed();
    match answer {
        Ok(()) => Outcome::Pass { took },
        Err(Fault::Backend(reason)) => Outcome::Fail { reason, took },
        Err(Fault::Ours(reason)) => Outcome::NotAsked { reason },
    }
}

/// Why a probe did not pass.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// The backend, or the way to it.
    Backend(String),
    /// A shortage on this machine, which says nothing of the backend.
    Ours(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Self::Backend("connection refused".to_owned()),
            Some(libc::ECONNRESET) => Self::Backend("connection reset".to_owned()),
            Some(libc::ENETUNREACH) => Self::Backend("no route to its network".to_owned()),
            Some(libc::EHOSTUNREACH) => Self::Backend("no route to it, or it does not answer ARP".to_owned()),
            Some(libc::EPERM | libc::EACCES) => {
                Self::Backend("forbidden by a firewall of this machine".to_owned())
            }
            Some(libc::EMFILE | libc::ENFILE) => {
                Self::Ours("the agent is out of file descriptors: raise its LimitNOFILE".to_owned())
            }
            Some(libc::EADDRNOTAVAIL) => {
                Self::Ours("this machine is out of ports: widen net.ipv4.ip_local_port_range".to_owned())
            }
            Some(libc::ENOMEM | libc::ENOBUFS) => Self::Ours("this machine is out of memory".to_owned()),
            _ => Self::Backend(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn shortages_here_are_not_held_against_a_backend() {
        for code in [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::ENOBUFS, libc::ENOMEM] {
            assert!(matches!(io::Error::from_raw_os_error(code).into(), Fault::Ours(_)), "{code}");
        }
        for code in [libc::ECONNREFUSED, libc::ECONNRESET, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::EPIPE]
        {
            assert!(matches!(io::Error::from_raw_os_error(code).into(), Fault::Backend(_)), "{code}");
        }
    }

    #[tokio::test]
    async fn a_probe_that_waits_its_turn_keeps_its_whole_timeout() -> io::Result<()> {
        // Accepts in the kernel, never answers: each HTTP probe takes its whole timeout.
        let silent = TcpListener::bind("127.0.0.1:0").await?;
        let target = silent.local_addr()?;
        let ask = Probe::Http(http::tests::check("/"));
        let prober = Prober::new(1);
        let limit = Duration::from_millis(150);
        let started = Instant::now();
        let (one, other) = tokio::join!(prober.probe(&ask, target, limit), prober.probe(&ask, target, limit));
        assert!(started.elapsed() >= limit * 2, "one after the other");
        for outcome in [one, other] {
            let Outcome::Fail { reason, took } = outcome else { panic!("{outcome:?}") };
            assert_eq!(reason, "no answer within 150ms");
            assert!(took >= limit && took < limit * 2, "{took:?}");
        }
        Ok(())
    }
}
