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

mod admit;
mod arrival;
mod atomic;
mod backend;
mod clock;
mod egress;
mod explain;
mod flow;
mod forward;
mod globals;
mod loads;
mod nat;
mod packet;
mod parse;
mod refuse;
mod select;
mod service;
mod stats;
mod steer;
mod trace;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{Mode, Reason, Verdict};

use crate::{
    admit::Admitted,
    arrival::Arrival,
    packet::{Frame, Packet},
    service::ServiceRef,
    steer::Translation,
};

/// The balancer.
#[xdp]
#[inline(always)]
pub fn balance(ctx: XdpContext) -> u32 {
    let frame = Frame::new(&ctx);
    let bytes = frame.bytes();
    let (reason, action) = match forward_frame(&ctx, &frame) {
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
fn forward_frame(ctx: &XdpContext, frame: &Frame) -> Result<(Reason, u32), Reason> {
    let mut arrival = Arrival::UNKNOWN;
    parse::packet(frame, &mut arrival.packet)?;
    match admit::admit(&arrival.packet)? {
        Admitted::Request(service) => request(frame, &mut arrival, &service)
            .or_else(|reason| refuse::refuse(ctx, &arrival, &service, reason)),
        Admitted::Reply(reply) => answer(frame, &arrival.packet, &reply),
    }
}

/// A client's packet. The action comes before the rewrite: what cannot leave is dropped as it came.
#[inline(always)]
fn request(frame: &Frame, arrival: &mut Arrival, service: &ServiceRef) -> Result<(Reason, u32), Reason> {
    arrival.complete(service);
    if service.mode() == Mode::FullNat as u8 {
        let (steered, to) = steer::translated(arrival, service)?;
        explain::steered(&steered);
        let action = egress::action(steered.next_hop.interface_slot)?;
        forward::translate(frame, &arrival.packet, &to, steered.next_hop)?;
        stats::count_request(&steered, arrival.packet.bytes);
        Ok((Reason::Forwarded, action))
    } else {
        let steered = steer::steered(arrival, service)?;
        explain::steered(&steered);
        let action = egress::action(steered.next_hop.interface_slot)?;
        forward::direct(frame, steered.next_hop)?;
        stats::count_request(&steered, arrival.packet.bytes);
        Ok((Reason::Forwarded, action))
    }
}

/// A backend's packet: it goes to the client from what the client has spoken to.
#[inline(always)]
fn answer(frame: &Frame, packet: &Packet, reply: &nat::Reply) -> Result<(Reason, u32), Reason> {
    let next_hop = egress::client_hop(reply.client_hop)?;
    let action = egress::action(next_hop.interface_slot)?;
    let to = Translation {
        source: reply.service.addr(),
        source_port: reply.service.port(),
        destination: &reply.client,
        destination_port: reply.client_port,
    };
    forward::translate(frame, packet, &to, &next_hop)?;
    stats::count_reply(reply.backend_index, packet.bytes);
    Ok((Reason::Replied, action))
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
