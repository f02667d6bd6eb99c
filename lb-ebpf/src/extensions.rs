//! What stands between an IPv6 header and TCP or UDP: extension headers (RFC 8200, 4).
//!
//! A function of its own for the verifier, see [`crate::arrival`], and met by nobody whose packets have none.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::{
    Reason,
    branchless::opaque,
    service::{PROTOCOL_TCP, PROTOCOL_UDP},
};

use crate::packet::{FURTHEST_TRANSPORT, Frame};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// How many are looked behind; RFC 8200, 4.1 knows of five in front of a transport header.
const MOST: usize = 6;

/// The first eight bytes of an extension header, which are all of the shortest.
#[repr(C)]
struct ExtensionHdr {
    next_header: u8,
    /// Length in units of eight bytes, the first of them not counted.
    length: u8,
    /// Of a routing header: its type, and how many nodes are still to be visited. Of a fragment's: offset and flag.
    rest: [u8; 2],
    /// Of a fragment's header: the identification.
    last: [u8; 4],
}

/// What follows an IPv6 header, in one word: the protocol (8 bits), where its header begins (16), where the fragment
/// header is (16; 0: there is none), and whether this is a part of a packet.
#[derive(Clone, Copy)]
pub struct Chain(u64);

impl Chain {
    const FIRST: u64 = 1 << 40;
    const LATER: u64 = 1 << 41;

    /// What follows first.
    #[inline(always)]
    pub fn protocol(self) -> u8 {
        self.0 as u8
    }

    /// Where that begins: at most at [`FURTHEST_TRANSPORT`], which the verifier cannot know.
    #[inline(always)]
    pub fn offset(self) -> usize {
        (self.0 >> 8) as usize & FURTHEST_TRANSPORT
    }

    /// Where the fragment header is; 0: there is none.
    #[inline(always)]
    pub fn fragment_offset(self) -> usize {
        (self.0 >> 24) as usize & FURTHEST_TRANSPORT
    }

    /// Whether this is the first part of a packet.
    #[inline(always)]
    pub fn is_first(self) -> bool {
        self.0 & Self::FIRST != 0
    }

    /// Whether this is a part of a packet, and not the first: what follows is no header.
    #[inline(always)]
    pub fn is_later(self) -> bool {
        self.0 & Self::LATER != 0
    }
}

/// What follows an IPv6 header that names `next_header` and ends at `offset`. [`Reason::NotTransport`] where that is neither
/// TCP nor UDP, or what a router that this is has no business to look behind.
#[inline(always)]
pub fn chain(ctx: *mut xdp_md, next_header: u8, offset: usize) -> Result<Chain, Reason> {
    match walk_extensions(ctx, u32::from(next_header), offset as u32) {
        NONE => Err(Reason::NotTransport),
        word => Ok(Chain(word as u64)),
    }
}

const NONE: i64 = -1;

/// A [`Chain`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_extensions(ctx: *mut xdp_md, next_header: u32, offset: u32) -> i64 {
    walk(&Frame::new(&XdpContext::new(ctx)), next_header as u8, offset as usize).unwrap_or(NONE)
}

#[inline(always)]
fn walk(frame: &Frame, next_header: u8, offset: usize) -> Option<i64> {
    let (mut next, mut offset) = (next_header, offset);
    let mut fragment = 0;
    for position in 0..MOST {
        if offset > FURTHEST_TRANSPORT {
            return None;
        }
        if next == PROTOCOL_TCP || next == PROTOCOL_UDP {
            return Some((u64::from(next) | (offset as u64) << 8 | fragment) as i64);
        }
        // Seen anew by the verifier, so that each round's check is one of its own.
        let at = opaque(offset as u64) as usize & FURTHEST_TRANSPORT;
        let header = frame.header::<ExtensionHdr>(at).ok()?;
        let mut bytes = (usize::from(header.length) + 1) * 8;
        match next {
            HOP_BY_HOP if position == 0 => (),
            DESTINATION_OPTIONS => (),
            // To the last of the nodes that it is to visit.
            ROUTING if header.rest[1] == 0 => (),
            FRAGMENT if fragment == 0 => {
                fragment = (at as u64) << 24;
                bytes = size_of::<ExtensionHdr>();
                let place = u16::from_be_bytes(header.rest);
                if place >> 3 != 0 {
                    if at + bytes > FURTHEST_TRANSPORT {
                        return None;
                    }
                    let later = u64::from(header.next_header) | (at as u64 + 8) << 8 | fragment;
                    return Some((later | Chain::LATER) as i64);
                }
                // Neither more to come nor any before: a whole packet (RFC 6946).
                fragment |= if place & 1 == 0 { 0 } else { Chain::FIRST };
            }
            _ => return None,
        }
        next = header.next_header;
        offset = at + bytes;
    }
    None
}

/// The identification that the parts of a packet have in common, of the fragment header at `offset`.
#[inline(always)]
pub fn identification(frame: &Frame, offset: usize) -> Result<&mut [u8; 4], Reason> {
    Ok(&mut frame.header::<ExtensionHdr>(offset)?.last)
}
