//! Translated flows (full-nat) on the maps' memory; the tables' rules are in `lb_common::nat_table`.
//!
//! A flow has two halves: the *forward* half, found by the client's packets, and the *reply* half, found by the
//! backend's. Each is used by its own direction alone, and brings the other up to date when its own state or tick
//! changes: once a second and flow, not once a packet.

mod begin;
mod refresh;
mod reply;
mod request;

pub use begin::{begin, forget, is_taken};
pub use reply::answers;
pub use request::{known, seen};

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use lb_common::{
    Addr, FlowState,
    abi::CLIENT_ITSELF,
    flow_table::BUCKET_SLOTS,
    hash::reply_hash,
    nat_table::{NatBucket, NatReply, NatValue, ReplyPeer, ReplyWord},
};

use crate::{arrival::Arrival, backend, globals, service::IN_MEMORY};

/// The agent sets the size of both at load.
#[btf_map]
static NAT_FLOWS: Array<NatBucket, 1, IN_MEMORY> = Array::new();
#[btf_map]
static NAT_REPLIES: Array<NatReply, 1, IN_MEMORY> = Array::new();

/// What a FIN leads to: each half sees the FIN of its own side.
const ON_FIN: FlowState = FlowState::HalfClosed;

/// One slot of a bucket of forward halves.
#[derive(Clone, Copy)]
struct ForwardSlot {
    bucket: *mut NatBucket,
    /// Bucket times eight, plus slot: what a reply half remembers.
    number: u32,
}

impl ForwardSlot {
    #[inline(always)]
    fn new(bucket: *mut NatBucket, bucket_index: u32, slot: usize) -> Self {
        Self { bucket, number: bucket_index * BUCKET_SLOTS as u32 + slot as u32 }
    }

    /// The slot of that number, whatever is in it.
    #[inline(always)]
    fn at(number: u32) -> Option<Self> {
        let bucket = NAT_FLOWS.get_ptr_mut(number / BUCKET_SLOTS as u32 & globals::nat_mask())?;
        Some(Self { bucket, number })
    }

    #[inline(always)]
    fn key(self) -> *mut u64 {
        // SAFETY: the mask keeps the index inside the bucket.
        unsafe { (&raw mut (*self.bucket).keys).cast::<u64>().add(self.number as usize & 7) }
    }

    #[inline(always)]
    fn value(self) -> *mut u64 {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.bucket).values).cast::<u64>().add(self.number as usize & 7) }
    }
}

/// Whether these are two halves of one flow: backend, source address and port are no other live flow's.
#[inline(always)]
fn are_halves(forward: NatValue, reply: ReplyWord, peer: ReplyPeer) -> bool {
    forward.port() == peer.nat_port()
        && forward.backend() == peer.backend()
        && forward.source() == reply.source()
}

/// The address that a flow's backend answers to, by its index.
#[inline(always)]
fn source_of(index: u8, arrival: &Arrival) -> Option<&Addr> {
    if globals::shares_servers() && index == CLIENT_ITSELF {
        return Some(&arrival.packet.source);
    }
    backend::source(index)
}

/// The place of the reply half of a flow between `backend` and `source`.
#[inline(always)]
fn reply_index(backend: &Addr, backend_port: [u8; 2], source: &Addr, nat_port: u16, protocol: u8) -> u32 {
    reply_hash(backend, source, backend_port, nat_port, protocol) as u32 & globals::reply_mask()
}

#[inline(always)]
fn reply_at(
    backend: &Addr,
    backend_port: [u8; 2],
    source: &Addr,
    nat_port: u16,
    protocol: u8,
) -> Option<*mut NatReply> {
    NAT_REPLIES.get_ptr_mut(reply_index(backend, backend_port, source, nat_port, protocol))
}
