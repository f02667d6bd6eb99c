//! Millions of packets: one frame, rewritten in place, and one system call a packet.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use aya::programs::Xdp;

use super::Action;
use crate::packets::{Packet, flags};

/// `BPF_PROG_TEST_RUN` (include/uapi/linux/bpf.h).
const TEST_RUN: libc::c_long = 10;

/// Where in the frame the client's IPv4 address, its port and TCP's flags are.
const SOURCE_AT: usize = 26;
const PORT_AT: usize = 34;
const FLAGS_AT: usize = 47;

/// `union bpf_attr` as far as `BPF_PROG_TEST_RUN` reads it.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    action: u32,
    bytes_in: u32,
    bytes_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration_ns: u32,
    context_bytes_in: u32,
    context_bytes_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    padding: u32,
}

/// TCP packets of IPv4 clients to one service. Checksums are those of the first one: the data plane does not ask.
pub struct Stream {
    program: OwnedFd,
    frame: Vec<u8>,
    out: Vec<u8>,
}

impl Stream {
    /// Packets to `service` through a program that is loaded.
    ///
    /// # Errors
    /// Where its descriptor cannot be copied.
    pub fn new(program: &Xdp, service: SocketAddr) -> Result<Self> {
        let program = program.fd().context("the program is not loaded")?.as_fd().try_clone_to_owned()?;
        let client = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 40_000);
        let frame = Packet::tcp(client.into(), service).frame();
        let out = vec![0; frame.len()];
        Ok(Self { program, frame, out })
    }

    /// The client with a number: no two below 2^24 have the same address.
    #[must_use]
    pub fn client(number: u32) -> SocketAddrV4 {
        let address = Ipv4Addr::from(0x0b00_0000 | (number & 0x00ff_ffff));
        SocketAddrV4::new(address, 1024 + (number.wrapping_mul(0x9e37_79b1) >> 17) as u16)
    }

    /// Begins the flow of a client: what is done with its SYN, and the last two bytes of the MAC address that it goes to.
    pub fn begin(&mut self, client: u32) -> (Action, u16) {
        self.send(client, flags::SYN)
    }

    /// Goes on with the flow of a client, as [`Stream::begin`].
    pub fn go_on(&mut self, client: u32) -> (Action, u16) {
        self.send(client, flags::ACK)
    }

    fn send(&mut self, client: u32, flags: u8) -> (Action, u16) {
        let client = Self::client(client);
        self.frame[SOURCE_AT..SOURCE_AT + 4].copy_from_slice(&client.ip().octets());
        self.frame[PORT_AT..PORT_AT + 2].copy_from_slice(&client.port().to_be_bytes());
        self.frame[FLAGS_AT] = flags;
        let action = self.run();
        (action, u16::from_be_bytes([self.out[4], self.out[5]]))
    }

    fn run(&mut self) -> Action {
        let mut run = TestRun {
            program: self.program.as_raw_fd() as u32,
            bytes_in: self.frame.len() as u32,
            bytes_out: self.out.len() as u32,
            data_in: self.frame.as_ptr() as u64,
            data_out: self.out.as_mut_ptr() as u64,
            ..TestRun::default()
        };
        // SAFETY: the kernel reads and writes `run` and the two buffers, which live that long, within the sizes given.
        let result = unsafe { libc::syscall(libc::SYS_bpf, TEST_RUN, &raw mut run, size_of::<TestRun>()) };
        assert_eq!(result, 0, "BPF_PROG_TEST_RUN: {}", io::Error::last_os_error());
        Action::of(run.action)
    }
}
