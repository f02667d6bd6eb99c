//! Load: workers in the clients' namespace that ask, one request after the other, and record each.

mod record;
mod workers;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub use record::{Record, Summary};

use crate::netns::Namespace;

/// What is asked, of whom and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The service.
    pub target: SocketAddr,
    /// The kind of request.
    pub traffic: Traffic,
    /// So many at once.
    pub workers: usize,
    /// Every worker's pause between an answer and its next request.
    pub pause: Duration,
    /// A request without an answer for so long has failed.
    pub timeout: Duration,
    /// What HTTP requests ask for.
    pub path: String,
}

/// The kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// HTTP, a connection for every request.
    Http,
    /// HTTP, one connection a worker for as long as it lasts.
    HttpKeepAlive,
    /// A datagram and its answer, a socket (so a flow) for every request.
    Udp,
    /// A datagram and its answer, one socket a worker.
    UdpOneSocket,
}

impl Plan {
    /// HTTP, a connection for every request: 4 workers, some 200 requests a second each at most.
    #[must_use]
    pub fn http(target: SocketAddr) -> Self {
        Self {
            target,
            traffic: Traffic::Http,
            workers: 4,
            pause: Duration::from_millis(5),
            timeout: Duration::from_secs(2),
            path: "/".to_owned(),
        }
    }

    /// The same with one connection a worker.
    #[must_use]
    pub fn http_keep_alive(target: SocketAddr) -> Self {
        Self { traffic: Traffic::HttpKeepAlive, ..Self::http(target) }
    }

    /// Datagrams, a socket for every request.
    #[must_use]
    pub fn udp(target: SocketAddr) -> Self {
        Self { traffic: Traffic::Udp, timeout: Duration::from_millis(500), ..Self::http(target) }
    }

    /// Datagrams, one socket a worker.
    #[must_use]
    pub fn udp_one_socket(target: SocketAddr) -> Self {
        Self { traffic: Traffic::UdpOneSocket, ..Self::udp(target) }
    }

    /// So many at once.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Every worker's pause between an answer and its next request.
    #[must_use]
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// A request without an answer for so long has failed.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What HTTP requests ask for.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }
}

/// Running load. Dropped, it stops.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// What workers and their owner share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    stopping: AtomicBool,
    /// In the order of their ends.
    records: Mutex<Vec<Record>>,
}

impl Load {
    /// Starts the workers of a plan in the clients' namespace.
    #[must_use]
    pub fn start(netns: &Namespace, plan: Plan) -> Self {
        let shared = Shared { plan, stopping: AtomicBool::new(false), records: Mutex::default() };
        let shared = Arc::new(shared);
        let start = |n| {
            let shared = Arc::clone(&shared);
            netns.spawn_thread(&format!("load-{n}"), move || workers::run(n, &shared))
        };
        Self { workers: (0..shared.plan.workers).map(start).collect(), shared }
    }

    /// Everything so far.
    #[must_use]
    pub fn snapshot(&self) -> Summary {
        Summary::of(&self.shared.records())
    }

    /// The requests that ended at `from` or later.
    #[must_use]
    pub fn since(&self, from: Instant) -> Summary {
        let records = self.shared.records();
        Summary::of(&records[first_ended_at(&records, from)..])
    }

    /// The requests that ended at `from` or later, but before `to`.
    #[must_use]
    pub fn between(&self, from: Instant, to: Instant) -> Summary {
        let records = self.shared.records();
        let (from, to) = (first_ended_at(&records, from), first_ended_at(&records, to));
        Summary::of(&records[from..to.max(from)])
    }

    /// The last request begun at `from` or later that failed, or took longer than `slow`.
    #[must_use]
    pub fn last_disturbed(&self, from: Instant, slow: Duration) -> Option<Record> {
        let records = self.shared.records();
        let ended = &records[first_ended_at(&records, from)..];
        let disturbed = ended.iter().filter(|record| record.begun >= from && record.is_disturbed(slow));
        disturbed.max_by_key(|record| record.begun).cloned()
    }

    /// How many requests begun at `from` or later failed, or took longer than `slow`.
    #[must_use]
    pub fn disturbed(&self, from: Instant, slow: Duration) -> usize {
        let records = self.shared.records();
        let ended = &records[first_ended_at(&records, from)..];
        ended.iter().filter(|record| record.begun >= from && record.is_disturbed(slow)).count()
    }

    /// The first answer that `backend` gave at `from` or later.
    #[must_use]
    pub fn first_answer_of(&self, backend: &str, from: Instant) -> Option<Record> {
        let records = self.shared.records();
        let ended = &records[first_ended_at(&records, from)..];
        ended.iter().find(|record| record.backend() == Some(backend)).cloned()
    }

    /// Every record so far, in the order of their ends.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.shared.records().clone()
    }

    /// Lets the requests that are under way end, stops, and sums up.
    #[must_use]
    pub fn stop(mut self) -> Summary {
        self.end();
        self.snapshot()
    }

    fn end(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn first_ended_at(records: &[Record], at: Instant) -> usize {
    records.partition_point(|record| record.ended < at)
}
