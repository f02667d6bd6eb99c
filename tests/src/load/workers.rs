//! The workers' loops.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{Plan, Record, Shared, Traffic};
use crate::http::{self, Connection};

/// After a failure even a worker without a pause takes a breath.
const BREATH: Duration = Duration::from_millis(1);

/// Asks until it is stopped.
pub(super) fn run(worker: usize, shared: &Shared) {
    let plan = &shared.plan;
    let mut asker = Asker { plan, worker, asked: 0, connection: None, socket: None };
    let mut names = HashSet::new();
    while !shared.stopping.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let outcome = asker.ask();
        let failed = outcome.is_err();
        let outcome = match outcome {
            Ok(backend) => Ok(shared_name(&mut names, backend)),
            Err(error) => Err(shared_name(&mut names, format!("{error:#}"))),
        };
        {
            let mut records = shared.records();
            // Taken under the lock, so that records are in the order of their ends.
            records.push(Record { begun, ended: Instant::now(), outcome });
        }
        thread::sleep(if failed { plan.pause.max(BREATH) } else { plan.pause });
    }
}

fn shared_name(names: &mut HashSet<Arc<str>>, name: String) -> Arc<str> {
    if let Some(known) = names.get(name.as_str()) {
        return Arc::clone(known);
    }
    let new: Arc<str> = name.into();
    names.insert(Arc::clone(&new));
    new
}

struct Asker<'a> {
    plan: &'a Plan,
    worker: usize,
    asked: u64,
    /// Kept from one request to the next with [`Traffic::HttpKeepAlive`].
    connection: Option<Connection>,
    /// Kept from one request to the next with [`Traffic::UdpOneSocket`].
    socket: Option<UdpSocket>,
}

impl Asker<'_> {
    /// One request; the answer is the backend's name.
    fn ask(&mut self) -> Result<String> {
        self.asked += 1;
        match self.plan.traffic {
            Traffic::Http => checked(http::get(self.plan.target, &self.plan.path, self.plan.timeout)?),
            Traffic::HttpKeepAlive => self.ask_kept_connection(),
            Traffic::Udp => {
                let socket = new_socket(self.plan.target)?;
                self.ask_datagram(&socket)
            }
            Traffic::UdpOneSocket => {
                let socket = match self.socket.take() {
                    Some(socket) => socket,
                    None => new_socket(self.plan.target)?,
                };
                let answer = self.ask_datagram(&socket);
                self.socket = Some(socket);
                answer
            }
        }
    }

    /// A connection that has failed is not used again.
    fn ask_kept_connection(&mut self) -> Result<String> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.plan.target, self.plan.timeout)?,
        };
        let answer = connection.get(&self.plan.path)?;
        self.connection = Some(connection);
        checked(answer)
    }

    /// Late answers to earlier requests are passed over.
    fn ask_datagram(&self, socket: &UdpSocket) -> Result<String> {
        let question = format!("{}-{}", self.worker, self.asked);
        let deadline = Instant::now() + self.plan.timeout;
        socket.send(question.as_bytes()).context("send")?;
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no answer within {:?}", self.plan.timeout);
            socket.set_read_timeout(Some(left))?;
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if is_timeout(&error) => continue,
                Err(error) => return Err(anyhow!(error).context("receive")),
            };
            let answer = String::from_utf8_lossy(&buffer[..length]);
            if let Some((backend, echo)) = answer.split_once(' ')
                && echo == question
            {
                return Ok(backend.to_owned());
            }
        }
    }
}

fn checked(answer: http::Answer) -> Result<String> {
    ensure!(answer.status == 200, "status {} from {}", answer.status, answer.backend);
    Ok(answer.backend)
}

fn new_socket(target: SocketAddr) -> Result<UdpSocket> {
    let any = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).context("bind")?;
    socket.connect(target).context("route to the service")?;
    Ok(socket)
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
