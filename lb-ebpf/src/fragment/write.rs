//! What is read of parts and written into them: addresses and the identification. What the transport checksum covers of
//! them is the first part's affair.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::{
    Addr, Reason,
    checksum::Delta,
    fragment::{FragmentEntry, fragment_key},
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{
    arrival::Arrival,
    extensions,
    forward::{nat_v4, nat_v6},
    globals,
    packet::Frame,
    parse::{IPV6_PAYLOAD, NETWORK_OFFSET},
    steer::words_of,
};

/// What tells the parts of this packet from those of others.
#[inline(always)]
pub fn read_key(ctx: &XdpContext, arrival: &Arrival) -> Result<u64, Reason> {
    match key_of_fragment(ctx.ctx, u32::from(arrival.packet.source.is_v4())) {
        FragmentEntry::EMPTY => Err(Reason::Fragment),
        key => Ok(key),
    }
}

/// Gives a part another identification.
#[inline(always)]
pub fn identify(ctx: &XdpContext, arrival: &Arrival, identification: u32) -> Result<(), Reason> {
    written(identify_fragment(ctx.ctx, u32::from(arrival.packet.source.is_v4()), identification))
}

/// Gives a later part the addresses and the identification that `super::find_fragment` has found.
#[inline(always)]
pub fn translate(ctx: &XdpContext, arrival: &Arrival) -> Result<(), Reason> {
    identify(ctx, arrival, arrival.slot)?;
    written(translate_fragment(ctx.ctx, arrival))
}

const WRITTEN: i32 = 1;

#[inline(always)]
fn written(word: i32) -> Result<(), Reason> {
    if word == WRITTEN { Ok(()) } else { Err(Reason::BadState) }
}

#[inline(always)]
fn word_of(done: Result<(), Reason>) -> i32 {
    if done.is_ok() { WRITTEN } else { 0 }
}

/// A [`fragment_key`]; [`FragmentEntry::EMPTY`] where this is no part of a packet.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn key_of_fragment(ctx: *mut xdp_md, is_v4: u32) -> u64 {
    let frame = Frame::new(&XdpContext::new(ctx));
    let key = if is_v4 != 0 { key_v4(&frame) } else { key_v6(ctx, &frame) };
    key.unwrap_or(FragmentEntry::EMPTY)
}

#[inline(always)]
fn key_v4(frame: &Frame) -> Result<u64, Reason> {
    let header = frame.header::<Ipv4Hdr>(NETWORK_OFFSET)?;
    let addresses = [header.src_addr, header.dst_addr].map(|octets| Addr::from_v4(octets).words());
    let identification = u32::from(u16::from_be_bytes(header.id));
    Ok(fragment_key(globals::hash_key(), addresses[0], addresses[1], identification, header.proto))
}

#[inline(always)]
fn key_v6(ctx: *mut xdp_md, frame: &Frame) -> Result<u64, Reason> {
    let header = frame.header::<Ipv6Hdr>(NETWORK_OFFSET)?;
    let addresses = [header.src_addr, header.dst_addr].map(|octets| Addr(octets).words());
    let offset = extensions::chain(ctx, header.next_hdr, IPV6_PAYLOAD)?.fragment_offset();
    let identification = u32::from_be_bytes(*extensions::identification(frame, offset)?);
    Ok(fragment_key(globals::hash_key(), addresses[0], addresses[1], identification, 0))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn identify_fragment(ctx: *mut xdp_md, is_v4: u32, identification: u32) -> i32 {
    let frame = Frame::new(&XdpContext::new(ctx));
    word_of(if is_v4 != 0 {
        identify_v4(&frame, identification)
    } else {
        identify_v6(ctx, &frame, identification)
    })
}

#[inline(always)]
fn identify_v4(frame: &Frame, identification: u32) -> Result<(), Reason> {
    let header = frame.header::<Ipv4Hdr>(NETWORK_OFFSET)?;
    let new = (identification as u16).to_be_bytes();
    header.check = Delta::NONE.change16(header.id, new).apply(header.check);
    header.id = new;
    Ok(())
}

#[inline(always)]
fn identify_v6(ctx: *mut xdp_md, frame: &Frame, identification: u32) -> Result<(), Reason> {
    let next_header = frame.header::<Ipv6Hdr>(NETWORK_OFFSET)?.next_hdr;
    let offset = extensions::chain(ctx, next_header, IPV6_PAYLOAD)?.fragment_offset();
    *extensions::identification(frame, offset)? = identification.to_be_bytes();
    Ok(())
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn translate_fragment(ctx: *mut xdp_md, arrival: *const Arrival) -> i32 {
    // SAFETY: an `Arrival` on the caller's stack, or null, which the verifier supposes.
    let Some(arrival) = (unsafe { arrival.as_ref() }) else { return 0 };
    word_of(readdress(&Frame::new(&XdpContext::new(ctx)), arrival))
}

#[inline(always)]
fn readdress(frame: &Frame, arrival: &Arrival) -> Result<(), Reason> {
    let packet = &arrival.packet;
    let [source, destination] = [&packet.source, &packet.destination.addr].map(words_of);
    if packet.source.is_v4() {
        nat_v4::readdress(frame.header(NETWORK_OFFSET)?, source[1], destination[1]);
    } else {
        nat_v6::readdress(frame.header(NETWORK_OFFSET)?, source, destination);
    }
    Ok(())
}
