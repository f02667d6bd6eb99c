//! Tunnels (`ipip`, `gue`): a client's packet as it came, but for the hop that this is, behind a header that leads to
//! the backend.
//!
//! The backend takes that header off and answers the client by itself, so that it may be anywhere, and of the other IP
//! version than the packet.

mod inner;
mod outer;

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_adjust_head, programs::XdpContext};
use lb_common::{Mode, NextHop, Reason, tunnel};

use self::outer::Outer;
use crate::{
    arrival::Arrival,
    backend::{self, BackendRef},
    packet::Frame,
    refuse,
    service::ServiceRef,
    steer::{Way, words_of},
};

/// What every IPv6 way takes (RFC 8200, 5): a host passes over an answer that says less (RFC 8201, 4).
const IPV6_LEAST_MTU: u16 = 1280;

/// Why a packet is not sent through its tunnel: a reason, and in the upper half of [`Reason::PacketTooBig`] how many bytes
/// fit. One word, as a function of its own returns it.
#[derive(Clone, Copy)]
pub struct Fault(i32);

impl Fault {
    /// Nothing is wrong.
    const NONE: i32 = 0;

    #[inline(always)]
    const fn of(reason: Reason) -> i32 {
        reason as i32 + 1
    }

    #[inline(always)]
    const fn too_big(bytes: u16) -> i32 {
        Self::of(Reason::PacketTooBig) | (bytes as i32) << 16
    }

    /// Why, where nobody is told.
    #[inline(always)]
    pub fn reason(self) -> Reason {
        match Reason::from_index((self.0 as u32 & 0xffff).wrapping_sub(1)) {
            Reason::PacketTooBig => Reason::ExceedsMtu,
            reason => reason,
        }
    }

    /// What becomes of the packet.
    #[inline(always)]
    pub fn answer(self, ctx: &XdpContext, arrival: &Arrival) -> Result<(Reason, u32), Reason> {
        match Reason::from_index((self.0 as u32 & 0xffff).wrapping_sub(1)) {
            Reason::PacketTooBig => refuse::too_big(ctx, arrival, (self.0 as u32 >> 16) as u16),
            reason => Err(reason),
        }
    }
}

/// Puts the outer header in front of a packet. Where that cannot be done, the packet is as it came.
#[inline(always)]
pub fn encapsulate(ctx: &XdpContext, arrival: &Arrival, way: &Way) -> Result<(), Fault> {
    encapsulate_for(ctx, arrival, way.backend, way.next_hop)
}

/// The same for a backend, by its next hop.
#[inline(always)]
pub fn encapsulate_for(
    ctx: &XdpContext,
    arrival: &Arrival,
    backend: u16,
    next_hop: [u64; 2],
) -> Result<(), Fault> {
    let [high, low] = next_hop;
    match write_outer(ctx.ctx, arrival, u32::from(backend), high, low) {
        Fault::NONE => Ok(()),
        fault => Err(Fault(fault)),
    }
}

/// A [`Fault`]'s word. A function of its own for the verifier, see [`crate::arrival`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn write_outer(
    ctx: *mut xdp_md,
    arrival: *const Arrival,
    backend: u32,
    next_hop_first: u64,
    next_hop_last: u64,
) -> i32 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    let Some(arrival) = (unsafe { arrival.as_ref() }) else { return Fault::of(Reason::BadState) };
    let next_hop = [next_hop_first, next_hop_last];
    match prepare(ctx, arrival, backend as u16).and_then(|outer| finish(ctx, arrival, &outer, next_hop)) {
        Ok(()) => Fault::NONE,
        Err(fault) => fault,
    }
}

/// Finds out what the outer header says.
#[inline(always)]
fn prepare(ctx: *mut xdp_md, arrival: &Arrival, backend: u16) -> Result<Outer, i32> {
    let bad_state = || Fault::of(Reason::BadState);
    let service = ServiceRef::at(arrival.service).ok_or_else(bad_state)?;
    let backend = BackendRef::at(backend).ok_or_else(bad_state)?;
    let sources = backend.sources();
    if sources.count == 0 {
        return Err(Fault::of(Reason::NoSourceAddress));
    }
    let base = words_of(backend::source(sources.first).ok_or_else(bad_state)?);
    let frame = Frame::new(&XdpContext::new(ctx));
    let inner = inner::read(&frame, arrival.packet.source.is_v4()).map_err(Fault::of)?;
    let is_gue = service.mode() == Mode::Gue as u8;
    let options = service.tunnel();
    Ok(Outer {
        source: if is_gue { base } else { tunnel::source_address(base, sources.host_bits, arrival.hash) },
        destination: words_of(backend.addr()),
        hash: arrival.hash,
        udp_destination: if is_gue { u16::from_ne_bytes(options.port()) } else { 0 },
        dont_fragment: options.dont_fragment(inner.dont_fragment),
        inner,
    })
}

/// Makes room and writes.
#[inline(always)]
fn finish(ctx: *mut xdp_md, arrival: &Arrival, outer: &Outer, next_hop: [u64; 2]) -> Result<(), i32> {
    let overhead = tunnel::overhead(outer.is_v4(), outer.has_udp());
    let mtu = match NextHop::mtu_of_words(next_hop) {
        0 => u16::MAX,
        mtu => mtu,
    };
    if outer.inner.bytes + u32::from(overhead) > u32::from(mtu) {
        let fits = mtu.saturating_sub(overhead);
        let fits = if outer.inner.is_v4 { fits } else { fits.max(IPV6_LEAST_MTU) };
        return Err(Fault::too_big(fits));
    }
    // SAFETY: the program's own context; the frame is parsed again after it.
    if unsafe { bpf_xdp_adjust_head(ctx, -i32::from(overhead)) } != 0 {
        return Err(Fault::of(Reason::NoHeadroom));
    }
    let frame = Frame::new(&XdpContext::new(ctx));
    let is_v4 = arrival.packet.source.is_v4();
    let written = match (outer.is_v4(), outer.has_udp()) {
        (true, false) => outer::v4(&frame, outer, next_hop).and_then(|at| inner::hop(&frame, at, is_v4)),
        (true, true) => outer::v4_udp(&frame, outer, next_hop).and_then(|at| inner::hop(&frame, at, is_v4)),
        (false, false) => outer::v6(&frame, outer, next_hop).and_then(|at| inner::hop(&frame, at, is_v4)),
        (false, true) => outer::v6_udp(&frame, outer, next_hop).and_then(|at| inner::hop(&frame, at, is_v4)),
    };
    // Never: the frame has just grown by as much.
    written.map_err(Fault::of)
}
