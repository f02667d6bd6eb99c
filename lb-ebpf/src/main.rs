//! Flowgate's data plane.
//!
//! ```text
//! frame → parse → admit → steer → forward → verdict
//! ```
//!
//! One direction, no way back: each stage returns a value or a [`Reason`], and [`balance`] alone turns the outcome
//! into an XDP action and counts it.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the kernel's cmpxchg is reachable through core::intrinsics alone")]

mod address;
mod admit;
mod arrival;
mod atomic;
mod backend;
mod clock;
mod decap;
mod egress;
mod explain;
mod extensions;
mod flow;
mod forward;
mod found;
mod fragment;
mod globals;
mod headers;
mod icmp;
mod loads;
mod nat;
mod packet;
mod parse;
mod ping;
mod refuse;
mod select;
mod servers;
mod service;
mod stats;
mod steer;
mod trace;
mod tunnel;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{NextHop, Reason, Verdict};

use crate::{admit::Admitted, arrival::Arrival, packet::Frame, steer::Way};

/// The balancer.
#[xdp]
#[inline(always)]
pub fn balance(ctx: XdpContext) -> u32 {
    let frame = Frame::new(&ctx);
    let bytes = frame.bytes();
    let (reason, action) = match forward_frame(&ctx, frame) {
        Ok(sent) => sent,
        Err(reason) => match reason.verdict() {
            Verdict::Pass => (reason, xdp_action::XDP_PASS),
            // A reason that says "forwarded" is never an error: were it one, the frame has not been sent.
            Verdict::Drop | Verdict::Forward | Verdict::Answer => (reason, xdp_action::XDP_DROP),
        },
    };
    explain::reason(reason);
    stats::count_packet(reason);
    trace::fate(&ctx, bytes, reason);
    action
}

#[inline(always)]
fn forward_frame(ctx: &XdpContext, frame: Frame) -> Result<(Reason, u32), Reason> {
    let mut arrival = Arrival::UNKNOWN;
    let mut way = Way::UNKNOWN;
    let frame = match parse::packet(ctx, &frame, &mut arrival.packet) {
        Ok(()) => frame,
        Err(reason) => match aside(ctx, &mut arrival, reason) {
            // To the verifier the frame may have moved meanwhile.
            Err(reason) if fragment::goes_by_address(&arrival, reason) => Frame::new(ctx),
            sent => return sent,
        },
    };
    let admitted = match admit::admit(&arrival.packet, &mut way) {
        Err(Reason::TimeExceeded) => return refuse::expired(ctx, &arrival),
        Err(reason) => {
            fragment::forget(ctx, &arrival);
            return Err(reason);
        }
        Ok(admitted) => admitted,
    };
    let is_answer = matches!(admitted, Admitted::Answer);
    let reason = match admitted {
        Admitted::Request(service) => {
            if let Err(reason) = steer::request(&mut arrival, &service, &mut way) {
                return refuse::refuse(ctx, &arrival, &service, reason);
            }
            Reason::Forwarded
        }
        Admitted::Answer => {
            steer::answer(&mut way)?;
            Reason::Replied
        }
    };
    // The action comes before the rewrite: what cannot leave is dropped as it came.
    let action = egress::action(NextHop::slot_of_words(way.next_hop))?;
    if globals::follows_fragments() && arrival.packet.is_first_part() {
        fragment::remember(ctx, &mut arrival, &way, is_answer)?;
    }
    if way.encapsulates {
        if let Err(fault) = tunnel::encapsulate(ctx, &arrival, &way) {
            fragment::forget(ctx, &arrival);
            return fault.answer(ctx, &arrival);
        }
    } else {
        forward::forward(&frame, &arrival.packet, &way)?;
    }
    stats::count_backend(reason, way.backend, way.is_new, arrival.packet.bytes);
    Ok((reason, action))
}

/// What has no ports to be steered by, but may be ours all the same; else `reason`, with which parsing has ended.
#[inline(always)]
fn aside(ctx: &XdpContext, arrival: &mut Arrival, reason: Reason) -> Result<(Reason, u32), Reason> {
    ping::answer(ctx, reason)
        .or_else(|reason| icmp::relay(ctx, arrival, reason))
        .or_else(|reason| fragment::follow(ctx, arrival, reason))
}

/// Passes everything: the other end of a veth pair takes frames from XDP only while it has a program of its own.
#[xdp]
pub fn pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this can be reached.
    loop {}
}
