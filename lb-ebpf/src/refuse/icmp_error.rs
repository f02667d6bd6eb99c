//! ICMP errors: "port unreachable", "time exceeded", "packet too big", with the packet's headers (RFC 792; RFC 4443, 3).

use aya_ebpf::{
    btf_maps::PerCpuArray,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    macros::btf_map,
    programs::XdpContext,
};
use lb_common::{
    checksum::Delta,
    reject::{Allowance, IcmpError, is_single_host},
};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use crate::{
    clock,
    headers::{self, IcmpHdr, Ipv4Fields, Ipv6Fields, PROTOCOL_ICMP, PROTOCOL_ICMPV6},
    packet::{EthernetHdr, FURTHEST_TRANSPORT, Frame, Packet},
    parse::{ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, NETWORK_OFFSET},
};

#[btf_map]
static ICMP_ERRORS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// What of an IPv4 packet is quoted: its header and the first eight bytes behind it, as four-byte words.
type QuoteV4 = [[u8; 4]; (size_of::<Ipv4Hdr>() + size_of::<UdpHdr>()) / 4];
/// IPv6 headers are quoted by eight bytes, of which all of them are made.
type Word = [[u8; 4]; 2];
/// See [`Word`]: with as many extension headers as are looked behind.
const QUOTED_WORDS_MAX: usize =
    (FURTHEST_TRANSPORT - NETWORK_OFFSET + size_of::<UdpHdr>()) / size_of::<Word>() + 1;

/// Makes an IPv4 packet the error that answers it. One with IP options is not answered.
#[inline(always)]
pub fn v4(ctx: &XdpContext, packet: &Packet, error: IcmpError) -> Option<()> {
    const IP_BYTES: usize = size_of::<Ipv4Hdr>();
    const TOTAL: usize = IP_BYTES + size_of::<IcmpHdr>() + size_of::<QuoteV4>();
    if packet.transport_offset() != NETWORK_OFFSET + IP_BYTES {
        return None;
    }
    let (frame, mac) = grow(ctx, packet, IP_BYTES, TOTAL)?;
    headers::ethernet(frame.header::<EthernetHdr>(0).ok()?, mac, packet.source_mac, ETHER_TYPE_IPV4);
    headers::ipv4(
        frame.header(NETWORK_OFFSET).ok()?,
        &Ipv4Fields::answer(packet, PROTOCOL_ICMP, TOTAL as u16),
    );
    let quote = frame.header::<QuoteV4>(NETWORK_OFFSET + IP_BYTES + size_of::<IcmpHdr>()).ok()?;
    write(frame.header(NETWORK_OFFSET + IP_BYTES).ok()?, error.v4(), error.rest(), quote, Delta::NONE);
    Some(())
}

/// The same for IPv6. What is quoted reaches to eight bytes of the transport header, behind whatever extension headers
/// there are: without those the sender does not know which of its sockets is meant.
#[inline(always)]
pub fn v6(ctx: &XdpContext, packet: &Packet, error: IcmpError) -> Option<()> {
    const IP_BYTES: usize = size_of::<Ipv6Hdr>();
    const QUOTE_OFFSET: usize = NETWORK_OFFSET + IP_BYTES + size_of::<IcmpHdr>();
    let quoted_words = (packet.transport_offset() - NETWORK_OFFSET + size_of::<UdpHdr>()) / size_of::<Word>();
    let payload = (size_of::<IcmpHdr>() + quoted_words * size_of::<Word>()) as u16;
    let (frame, mac) = grow(ctx, packet, IP_BYTES, IP_BYTES + usize::from(payload))?;
    headers::ethernet(frame.header::<EthernetHdr>(0).ok()?, mac, packet.source_mac, ETHER_TYPE_IPV6);
    let (from, to) = (&packet.destination.addr, &packet.source);
    headers::ipv6(frame.header(NETWORK_OFFSET).ok()?, &Ipv6Fields::answer(packet, PROTOCOL_ICMPV6, payload));
    let mut sum = headers::pseudo_header(from, to, PROTOCOL_ICMPV6, payload);
    for n in 0..QUOTED_WORDS_MAX {
        if n >= quoted_words {
            break;
        }
        let [first, second] = *frame.header::<Word>(QUOTE_OFFSET + n * size_of::<Word>()).ok()?;
        sum = sum.change32([0; 4], first).change32([0; 4], second);
    }
    write(frame.header(NETWORK_OFFSET + IP_BYTES).ok()?, error.v6(), error.rest(), &[], sum);
    Some(())
}

/// Makes room in front for an IP and an ICMP header, and cuts the packet to what is quoted; the frame, and our MAC
/// address. Nothing is changed where no error may be sent now.
#[inline(always)]
fn grow(ctx: &XdpContext, packet: &Packet, ip_bytes: usize, total: usize) -> Option<(Frame, [u8; 6])> {
    let mac = Frame::new(ctx).header::<EthernetHdr>(0).ok()?.destination;
    let is_multicast = mac[0] & 1 != 0;
    if is_multicast || !is_single_host(&packet.source) {
        return None;
    }
    take_allowance()?;
    let front = ip_bytes + size_of::<IcmpHdr>();
    // SAFETY: the program's own context; the frame is parsed again after it.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(front as i32)) } != 0 {
        return None;
    }
    let surplus = packet.bytes as i32 + front as i32 - (NETWORK_OFFSET + total) as i32;
    // SAFETY: as above.
    if unsafe { bpf_xdp_adjust_tail(ctx.ctx, -surplus) } != 0 {
        // SAFETY: as above; takes back what was added.
        unsafe { bpf_xdp_adjust_head(ctx.ctx, front as i32) };
        return None;
    }
    Some((Frame::new(ctx), mac))
}

#[inline(always)]
fn take_allowance() -> Option<()> {
    let word = ICMP_ERRORS.get_ptr_mut(0)?;
    // SAFETY: this CPU's own value, and programs do not interrupt each other on one CPU's receive path.
    let allowance = Allowance(unsafe { *word }).take(clock::now())?;
    // SAFETY: as above.
    unsafe { *word = allowance.0 };
    Some(())
}

/// Writes the header before a quote; `sum` is that of the pseudo-header, where there is one.
#[inline(always)]
fn write<const N: usize>(
    header: &mut IcmpHdr,
    kind: [u8; 2],
    rest: [u8; 4],
    quote: &[[u8; 4]; N],
    sum: Delta,
) {
    header.kind = kind;
    header.rest = rest;
    let mut sum = headers::new(sum, kind).change32([0; 4], rest);
    for word in quote {
        sum = sum.change32([0; 4], *word);
    }
    header.checksum = headers::finish(sum);
}
