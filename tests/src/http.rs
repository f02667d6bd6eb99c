//! Just enough of HTTP/1.1, from the client's side. Call it inside the client's namespace.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status, 200 for example.
    pub status: u16,
    /// `X-Backend`: who answered; empty where that is not said.
    pub backend: String,
    /// The body.
    pub body: Vec<u8>,
}

/// A connection that stays open from one request to the next.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
    target: SocketAddr,
}

impl Connection {
    /// Connects. `timeout` is for this, and for each read and write later.
    ///
    /// # Errors
    /// Where no connection comes about.
    pub fn open(target: SocketAddr, timeout: Duration) -> Result<Self> {
        Self::over(TcpStream::connect_timeout(&target, timeout).context("connect")?, target, timeout)
    }

    /// [`Connection::open`] from one of the client's own addresses.
    ///
    /// # Errors
    /// Where no connection comes about.
    pub fn open_from(source: IpAddr, target: SocketAddr, timeout: Duration) -> Result<Self> {
        let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))
            .with_context(|| format!("bind to {source}"))?;
        let stream = TcpStream::from(socket);
        // Holds for connect() as well.
        stream.set_write_timeout(Some(timeout))?;
        connect(stream.as_raw_fd(), &SockaddrStorage::from(target))
            .with_context(|| format!("connect from {source}"))?;
        Self::over(stream, target, timeout)
    }

    fn over(stream: TcpStream, target: SocketAddr, timeout: Duration) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { reader: BufReader::new(stream), target })
    }

    /// Asks for `path`, and keeps the connection.
    ///
    /// # Errors
    /// Where there is no whole answer.
    pub fn get(&mut self, path: &str) -> Result<Answer> {
        self.ask(path, "keep-alive")
    }

    /// Asks for `path`, and lets the server close the connection.
    ///
    /// # Errors
    /// Where there is no whole answer.
    pub fn get_and_close(mut self, path: &str) -> Result<Answer> {
        self.ask(path, "close")
    }

    /// The client's own address.
    ///
    /// # Errors
    /// Where the socket has none.
    pub fn local_address(&self) -> Result<SocketAddr> {
        Ok(self.reader.get_ref().local_addr()?)
    }

    fn ask(&mut self, path: &str, connection: &str) -> Result<Answer> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n\r\n", self.target);
        self.reader.get_mut().write_all(request.as_bytes()).context("send request")?;
        self.read_answer()
    }

    fn read_answer(&mut self) -> Result<Answer> {
        let first = self.read_line()?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("not an HTTP answer: {first:?}"))?;
        let mut answer = Answer { status, backend: String::new(), body: Vec::new() };
        let mut length = 0;
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(": ") else { continue };
            match name.to_ascii_lowercase().as_str() {
                "x-backend" => value.clone_into(&mut answer.backend),
                "content-length" => length = value.parse().context("Content-Length")?,
                _ => {}
            }
        }
        answer.body.resize(length, 0);
        self.reader.read_exact(&mut answer.body).context("read body")?;
        Ok(answer)
    }

    fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).context("read answer")? == 0 {
            bail!("closed before the answer");
        }
        Ok(line.trim_end().to_owned())
    }
}

/// One request on a connection of its own.
///
/// # Errors
/// Where there is no whole answer.
pub fn get(target: SocketAddr, path: &str, timeout: Duration) -> Result<Answer> {
    Connection::open(target, timeout)?.get_and_close(path)
}
