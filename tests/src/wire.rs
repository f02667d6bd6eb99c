//! Frames on an interface, below the stack: sent as they are, and captured with their direction.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::netns::Namespace;

/// A raw socket on one interface. It does not see the frames that it sends itself.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

/// A frame seen on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether this host sent it.
    pub outgoing: bool,
    /// From the MAC addresses on. A VLAN tag that the kernel took off is not there.
    pub bytes: Vec<u8>,
}

impl Wire {
    /// Opens an interface. What passes from then on can be received.
    ///
    /// # Errors
    /// Where there is no such interface.
    pub fn open(netns: &Namespace, device: &str) -> Result<Self> {
        let index = netns.interface_index(device)?;
        let socket = netns.run_in(|| open(index)).with_context(|| format!("raw socket on {device}"))?;
        Ok(Self { socket })
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// Where the kernel refuses, for example because it is longer than the MTU.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: pointer and length are those of one slice.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error()).context("send frame");
        }
        Ok(())
    }

    /// The next frame; none where there is none within `limit`.
    ///
    /// # Errors
    /// Where the interface has gone down, for example.
    pub fn receive(&self, limit: Duration) -> Result<Option<Frame>> {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one descriptor, and the count says so.
        if unsafe { libc::poll(&raw mut poll, 1, timeout) } <= 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; 1 << 16];
        let mut from = no_address();
        let mut from_length = socklen::<libc::sockaddr_ll>();
        // SAFETY: buffer and address are ours, with their true lengths.
        let length = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                bytes.as_mut_ptr().cast(),
                bytes.len(),
                0,
                (&raw mut from).cast(),
                &raw mut from_length,
            )
        };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        bytes.truncate(length);
        Ok(Some(Frame { outgoing: from.sll_pkttype == libc::PACKET_OUTGOING, bytes }))
    }

    /// The first frame within `limit` that `wanted` takes; others are passed over.
    ///
    /// # Errors
    /// As [`Wire::receive`].
    pub fn find(&self, limit: Duration, wanted: impl Fn(&Frame) -> bool) -> Result<Option<Frame>> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left)? {
                Some(frame) if wanted(&frame) => return Ok(Some(frame)),
                None if left.is_zero() => return Ok(None),
                Some(_) | None => {}
            }
        }
    }

    /// Everything that has arrived or left so far and was not received yet.
    ///
    /// # Errors
    /// As [`Wire::receive`].
    pub fn drain(&self) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.receive(Duration::ZERO)? {
            frames.push(frame);
        }
        Ok(frames)
    }
}

fn open(index: u32) -> io::Result<OwnedFd> {
    let protocol = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be();
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: protocol,
        sll_ifindex: index.cast_signed(),
        ..no_address()
    };
    let length = socklen::<libc::sockaddr_ll>();
    // SAFETY: the address is a sockaddr_ll, with its true length. Opened with protocol 0, the socket hears
    // of nothing before it is bound to the one interface.
    if unsafe { libc::bind(fd, (&raw const address).cast(), length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

fn no_address() -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: 0,
        sll_protocol: 0,
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default()
}
