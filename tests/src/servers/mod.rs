//! The backends' servers: threads inside a namespace, that can be stopped and started like a machine's.

mod connections;
mod echo;
mod http;

use std::{
    fmt,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{Shutdown, shutdown};

use crate::netns::Namespace;
use connections::Connections;

/// A server of one address. Dropped, it stops.
#[derive(Debug)]
pub struct Server {
    netns: Namespace,
    kind: Kind,
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Option<Running>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    TcpEcho,
    UdpEcho,
}

/// What outlives a stop.
struct Shared {
    name: String,
    healthy: AtomicBool,
    requests: AtomicU64,
    health_requests: AtomicU64,
    connections: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}

/// From a start to a stop.
#[derive(Debug)]
struct Running {
    stopping: Arc<AtomicBool>,
    connections: Arc<Connections>,
    /// None for UDP.
    listener: Option<TcpListener>,
    thread: JoinHandle<()>,
}

impl Server {
    /// An HTTP/1.1 server with keep-alive. Its answers carry `X-Backend: NAME`.
    ///
    /// | path | answer |
    /// | --- | --- |
    /// | `/` | the name and a line feed |
    /// | `/healthz` | 200, or 503 after [`Server::set_healthy`]`(false)`; counted apart |
    /// | `/bytes/N` | N bytes |
    /// | `/slow/MS` | the name, after so many milliseconds |
    ///
    /// `[::]` is every address of the namespace, IPv4 included.
    ///
    /// # Errors
    /// Where the address cannot be bound.
    pub fn http(netns: &Namespace, name: &str, address: SocketAddr) -> Result<Self> {
        Self::new(Kind::Http, netns, name, address)
    }

    /// A TCP server that answers every line with its name, a blank and the line.
    ///
    /// # Errors
    /// Where the address cannot be bound.
    pub fn tcp_echo(netns: &Namespace, name: &str, address: SocketAddr) -> Result<Self> {
        Self::new(Kind::TcpEcho, netns, name, address)
    }

    /// A UDP server that answers every datagram with its name, a blank and the datagram.
    ///
    /// Bind it to one address, not to `[::]`: the kernel chooses the source of what leaves an unbound
    /// socket, and on a host with several addresses it need not be the one that was asked.
    ///
    /// # Errors
    /// Where the address cannot be bound.
    pub fn udp_echo(netns: &Namespace, name: &str, address: SocketAddr) -> Result<Self> {
        Self::new(Kind::UdpEcho, netns, name, address)
    }

    fn new(kind: Kind, netns: &Namespace, name: &str, address: SocketAddr) -> Result<Self> {
        let shared = Shared {
            name: name.to_owned(),
            healthy: AtomicBool::new(true),
            requests: AtomicU64::new(0),
            health_requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        };
        let mut server =
            Self { netns: netns.clone(), kind, address, shared: Arc::new(shared), running: None };
        server.start()?;
        Ok(server)
    }

    /// The name that it answers with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests, lines or datagrams answered since it was made, `/healthz` apart.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Requests for `/healthz` answered since it was made.
    #[must_use]
    pub fn health_requests(&self) -> u64 {
        self.shared.health_requests.load(Ordering::Relaxed)
    }

    /// TCP connections accepted since it was made.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// What `/healthz` answers from now on.
    pub fn set_healthy(&self, healthy: bool) {
        self.shared.healthy.store(healthy, Ordering::Relaxed);
    }

    /// Whether it is started.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Dies as a killed process does: new connections are refused, open ones are reset.
    pub fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.stopping.store(true, Ordering::SeqCst);
        if let Some(listener) = &running.listener {
            // Wakes the thread in accept().
            let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
        }
        drop(running.listener);
        let _ = running.thread.join();
        running.connections.reset_all();
    }

    /// Listens again.
    ///
    /// # Errors
    /// Where the address cannot be bound.
    pub fn start(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let (kind, address) = (self.kind, self.address);
        let what = || format!("{} listens on {address}", self.shared.name);
        let running = match kind {
            Kind::Http | Kind::TcpEcho => {
                let listener = self.netns.run_in(|| TcpListener::bind(address)).with_context(what)?;
                self.start_tcp(listener)?
            }
            Kind::UdpEcho => {
                let socket = self.netns.run_in(|| UdpSocket::bind(address)).with_context(what)?;
                self.start_udp(socket)?
            }
        };
        self.running = Some(running);
        Ok(())
    }

    fn start_tcp(&self, listener: TcpListener) -> Result<Running> {
        let session = Session {
            shared: Arc::clone(&self.shared),
            stopping: Arc::new(AtomicBool::new(false)),
            connections: Arc::new(Connections::default()),
        };
        let (stopping, connections) = (Arc::clone(&session.stopping), Arc::clone(&session.connections));
        let speak = match self.kind {
            Kind::Http => http::serve,
            Kind::TcpEcho | Kind::UdpEcho => echo::serve_tcp,
        };
        let own = listener.try_clone()?;
        let name = format!("{}-accept", self.shared.name);
        let thread = self.netns.spawn_thread(&name, move || accept_all(&listener, &session, speak));
        Ok(Running { stopping, connections, listener: Some(own), thread })
    }

    fn start_udp(&self, socket: UdpSocket) -> Result<Running> {
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let session = Session {
            shared: Arc::clone(&self.shared),
            stopping: Arc::new(AtomicBool::new(false)),
            connections: Arc::new(Connections::default()),
        };
        let (stopping, connections) = (Arc::clone(&session.stopping), Arc::clone(&session.connections));
        let name = format!("{}-udp", self.shared.name);
        let thread = self.netns.spawn_thread(&name, move || echo::serve_udp(&socket, &session));
        Ok(Running { stopping, connections, listener: None, thread })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a server's threads share between a start and a stop.
#[derive(Clone)]
struct Session {
    shared: Arc<Shared>,
    stopping: Arc<AtomicBool>,
    connections: Arc<Connections>,
}

impl Session {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn count_request(&self) {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
    }
}

fn accept_all(listener: &TcpListener, session: &Session, speak: fn(&TcpStream, &Session)) {
    while !session.is_stopping() {
        let Ok((stream, _)) = listener.accept() else {
            // Out of descriptors, or a connection that was reset before it was accepted; or the end.
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        session.shared.connections.fetch_add(1, Ordering::Relaxed);
        let Ok(guard) = session.connections.register(&stream) else { continue };
        let session = session.clone();
        let body = move || {
            // A client that has gone away ends nothing but its own connection.
            let _ = stream.set_nodelay(true);
            let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
            speak(&stream, &session);
            if session.is_stopping() {
                connections::reset_on_close(&stream);
            }
            drop(stream);
            drop(guard);
        };
        // The thread does not enter the namespace: the socket belongs to it already.
        let builder = thread::Builder::new().stack_size(128 << 10);
        let _ = builder.spawn(body);
    }
}
