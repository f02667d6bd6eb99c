//! A frame, and what is found in it. The only bounds check of the data plane is [`Frame::header`].

use aya_ebpf::programs::XdpContext;
use lb_common::{Addr, Reason, ServiceKey};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

/// The bytes of a frame.
pub struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// The frame that the program was called for.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }

    /// The header at `offset`, if it lies in the frame.
    ///
    /// A frame's headers are disjoint: callers ask for each offset once at a time.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "headers at different offsets are different memory")]
    pub fn header<T>(&self, offset: usize) -> Result<&mut T, Reason> {
        let header = self.start + offset;
        if header + size_of::<T>() > self.end {
            return Err(Reason::Malformed);
        }
        // SAFETY: inside the frame by the check above; every header type is made of byte arrays, so it has
        // alignment 1 and every pattern of bits is a value of it.
        Ok(unsafe { &mut *(header as *mut T) })
    }

    /// Its length.
    #[inline(always)]
    pub fn bytes(&self) -> usize {
        self.end - self.start
    }
}

/// An Ethernet header; `network_types` has one whose type field asks for an alignment that frames do not promise.
#[repr(C)]
pub struct EthernetHdr {
    pub destination: [u8; 6],
    pub source: [u8; 6],
    pub ether_type: [u8; 2],
}

/// A TCP header without options (RFC 9293, 3.1).
#[repr(C)]
pub struct TcpHdr {
    pub source: [u8; 2],
    pub destination: [u8; 2],
    pub sequence: [u8; 4],
    pub acknowledgment: [u8; 4],
    /// Length of the header in words, in the upper four bits.
    pub data_offset: u8,
    pub flags: u8,
    pub window: [u8; 2],
    pub checksum: [u8; 2],
    pub urgent: [u8; 2],
}

const _: () = assert!(size_of::<TcpHdr>() == 20 && align_of::<TcpHdr>() == 1);
const _: () = assert!(align_of::<EthernetHdr>() == 1 && align_of::<Ipv4Hdr>() == 1);
const _: () = assert!(align_of::<Ipv6Hdr>() == 1 && align_of::<UdpHdr>() == 1);

/// How far into a frame a transport header may begin; a mask.
pub const FURTHEST_TRANSPORT: usize = 0xff;

/// A TCP or UDP packet: what the stages want to know of it, in plain values.
///
/// No reference into the frame: a pointer's bounds are part of what the verifier tells states apart by, so that
/// each kind of packet would be walked through every stage on its own. Who writes asks for the header again.
#[repr(C)]
pub struct Packet {
    /// Destination address and port, and the protocol: what a service is looked up by.
    pub destination: ServiceKey,
    pub source: Addr,
    /// First of its eight bytes: the verifier refuses unaligned words on the stack.
    pub source_mac: [u8; 6],
    /// In wire order.
    pub source_port: [u8; 2],
    /// Length of the frame as it came in.
    pub bytes: u32,
    /// See [`Packet::transport_offset`]; and [`Packet::FIRST_PART`], [`Packet::LATER_PART`].
    pub transport_offset: u16,
    /// 0 for UDP.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
}

const _: () = assert!(size_of::<Packet>() == 56);

impl Packet {
    /// Nothing is known yet.
    pub const UNKNOWN: Self = Self {
        destination: ServiceKey::new(Addr([0; 16]), [0; 2], 0),
        source: Addr([0; 16]),
        source_port: [0; 2],
        source_mac: [0; 6],
        bytes: 0,
        transport_offset: 0,
        tcp_flags: 0,
        hop_limit: 0,
    };

    /// In [`Packet::transport_offset`]: the first of several parts.
    pub const FIRST_PART: u16 = 1 << 15;
    /// In [`Packet::transport_offset`]: another part, which has no ports.
    pub const LATER_PART: u16 = 1 << 14;

    /// Where the transport header begins: at most at [`FURTHEST_TRANSPORT`], which the verifier cannot know.
    #[inline(always)]
    pub fn transport_offset(&self) -> usize {
        usize::from(self.transport_offset) & FURTHEST_TRANSPORT
    }

    /// Whether it is the first of several parts.
    #[inline(always)]
    pub fn is_first_part(&self) -> bool {
        self.transport_offset & Self::FIRST_PART != 0
    }

    /// Whether it is another part than the first.
    #[inline(always)]
    pub fn is_later_part(&self) -> bool {
        self.transport_offset & Self::LATER_PART != 0
    }
}
