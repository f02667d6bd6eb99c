//! The decapsulator, for backends: takes the header off that `ipip` or `gue` has put in front of a packet, and hands the
//! packet to the kernel. Whatever is not such a packet, or not from where it may be, is the kernel's as it came.

use aya_ebpf::{
    Global,
    bindings::xdp_action,
    btf_maps::{LpmTrie, PerCpuArray, lpm_trie::Key},
    helpers::bpf_xdp_adjust_head,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::{
    Addr,
    checksum::Delta,
    decap::{DECAP_GUE, DECAP_OUTCOMES, DECAP_SOURCES_MAX, DECAP_VERSION_BITS, DecapOutcome, source_key},
    service::PROTOCOL_UDP,
    tunnel::{PROTOCOL_IPIP, PROTOCOL_IPV6, decapsulated_traffic_class},
};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};

use crate::{
    packet::{EthernetHdr, Frame},
    parse::{ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, NETWORK_OFFSET, is_fragment},
};

#[btf_map]
static DECAP_SOURCES: LpmTrie<[u8; 20], u32, { DECAP_SOURCES_MAX as usize }> = LpmTrie::new();
#[btf_map]
static DECAP_COUNTERS: PerCpuArray<u64, { DECAP_OUTCOMES as usize }> = PerCpuArray::new();

#[unsafe(no_mangle)]
static DECAP_MODE: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
static DECAP_PORT: Global<u16> = Global::new(0);

const IPV4_BYTES: usize = size_of::<Ipv4Hdr>();
const IPV6_BYTES: usize = size_of::<Ipv6Hdr>();
const UDP_BYTES: usize = size_of::<UdpHdr>();

/// Takes tunnels' headers off.
#[xdp]
#[inline(always)]
pub fn decap(ctx: XdpContext) -> u32 {
    let outcome = match decapsulate(&ctx) {
        Ok(()) => DecapOutcome::Decapsulated,
        Err(outcome) => outcome,
    };
    if let Some(counter) = DECAP_COUNTERS.get_ptr_mut(outcome as u32) {
        // SAFETY: this CPU's own value, and programs do not interrupt each other on one CPU's receive path.
        unsafe { *counter += 1 };
    }
    match outcome {
        DecapOutcome::Malformed | DecapOutcome::Congested => xdp_action::XDP_DROP,
        DecapOutcome::Decapsulated
        | DecapOutcome::NotTunnel
        | DecapOutcome::SourceNotAllowed
        | DecapOutcome::NotWhole => xdp_action::XDP_PASS,
    }
}

/// What an outer header says.
struct Outer {
    traffic_class: u8,
    /// IP version of the packet in it, where the header tells: 4 or 6; else 0.
    version: u8,
    /// How long the packet in it is.
    bytes: usize,
}

#[inline(always)]
fn decapsulate(ctx: &XdpContext) -> Result<(), DecapOutcome> {
    let frame = Frame::new(ctx);
    let ethernet = frame.header::<EthernetHdr>(0).map_err(|_| DecapOutcome::NotTunnel)?;
    // One branch for each length of the header, so that offsets are constants to the verifier.
    match (ethernet.ether_type, DECAP_MODE.load() == DECAP_GUE) {
        (ETHER_TYPE_IPV4, false) => open::<IPV4_BYTES>(ctx, &frame, &v4(&frame)?),
        (ETHER_TYPE_IPV4, true) => open::<{ IPV4_BYTES + UDP_BYTES }>(ctx, &frame, &v4(&frame)?),
        (ETHER_TYPE_IPV6, false) => open::<IPV6_BYTES>(ctx, &frame, &v6(&frame)?),
        (ETHER_TYPE_IPV6, true) => open::<{ IPV6_BYTES + UDP_BYTES }>(ctx, &frame, &v6(&frame)?),
        _ => Err(DecapOutcome::NotTunnel),
    }
}

#[inline(always)]
fn v4(frame: &Frame) -> Result<Outer, DecapOutcome> {
    let header = frame.header::<Ipv4Hdr>(NETWORK_OFFSET).map_err(|_| DecapOutcome::NotTunnel)?;
    if !is_tunnels(header.proto) {
        return Err(DecapOutcome::NotTunnel);
    }
    let version = version_of(header.proto);
    if header.vihl != 0x45 || is_fragment(header) {
        return Err(DecapOutcome::NotWhole);
    }
    let bytes = usize::from(u16::from_be_bytes(header.tot_len));
    let outer = Outer { traffic_class: header.tos, version, bytes: bytes.saturating_sub(IPV4_BYTES) };
    let source = Addr::from_v4(header.src_addr);
    from_udp(frame, NETWORK_OFFSET + IPV4_BYTES, outer, source_key(&source, true))
}

#[inline(always)]
fn v6(frame: &Frame) -> Result<Outer, DecapOutcome> {
    let header = frame.header::<Ipv6Hdr>(NETWORK_OFFSET).map_err(|_| DecapOutcome::NotTunnel)?;
    if header.vcf[0] >> 4 != 6 || !is_tunnels(header.next_hdr) {
        return Err(DecapOutcome::NotTunnel);
    }
    let outer = Outer {
        traffic_class: header.vcf[0] << 4 | header.vcf[1] >> 4,
        version: version_of(header.next_hdr),
        bytes: usize::from(u16::from_be_bytes(header.payload_len)),
    };
    let source = Addr(header.src_addr);
    from_udp(frame, NETWORK_OFFSET + IPV6_BYTES, outer, source_key(&source, false))
}

/// Whether what follows the outer IP header may be the tunnel's.
#[inline(always)]
fn is_tunnels(protocol: u8) -> bool {
    if DECAP_MODE.load() == DECAP_GUE {
        protocol == PROTOCOL_UDP
    } else {
        protocol == PROTOCOL_IPIP || protocol == PROTOCOL_IPV6
    }
}

#[inline(always)]
fn version_of(protocol: u8) -> u8 {
    match protocol {
        PROTOCOL_IPIP => 4,
        PROTOCOL_IPV6 => 6,
        _ => 0,
    }
}

/// Looks at the UDP header, where there is one, and at the sender.
#[inline(always)]
fn from_udp(frame: &Frame, offset: usize, outer: Outer, source: [u8; 20]) -> Result<Outer, DecapOutcome> {
    let mut outer = outer;
    if DECAP_MODE.load() == DECAP_GUE {
        let header = frame.header::<UdpHdr>(offset).map_err(|_| DecapOutcome::NotTunnel)?;
        if u16::from_be_bytes(header.dst) != DECAP_PORT.load() {
            return Err(DecapOutcome::NotTunnel);
        }
        let bytes = usize::from(u16::from_be_bytes(header.len));
        // A datagram that claims more than its packet holds nothing.
        outer.bytes = if bytes <= outer.bytes { bytes.saturating_sub(UDP_BYTES) } else { 0 };
    }
    let key = Key::new(DECAP_VERSION_BITS + 128, source);
    if DECAP_SOURCES.get(&key).is_none() {
        return Err(DecapOutcome::SourceNotAllowed);
    }
    Ok(outer)
}

/// Takes `HEADERS` bytes of outer headers off.
#[inline(always)]
fn open<const HEADERS: usize>(ctx: &XdpContext, frame: &Frame, outer: &Outer) -> Result<(), DecapOutcome> {
    let offset = NETWORK_OFFSET + HEADERS;
    let malformed = |_| DecapOutcome::Malformed;
    let version = *frame.header::<u8>(offset).map_err(malformed)? >> 4;
    let told = outer.version == 0 || outer.version == version;
    let ether_type = match version {
        4 if told => {
            let header = frame.header::<Ipv4Hdr>(offset).map_err(malformed)?;
            let bytes = usize::from(u16::from_be_bytes(header.tot_len));
            fits(frame, offset, bytes, size_of::<Ipv4Hdr>(), outer)?;
            let class =
                decapsulated_traffic_class(header.tos, outer.traffic_class).ok_or(DecapOutcome::Congested)?;
            header.check =
                Delta::NONE.change16([header.vihl, header.tos], [header.vihl, class]).apply(header.check);
            header.tos = class;
            ETHER_TYPE_IPV4
        }
        6 if told => {
            let header = frame.header::<Ipv6Hdr>(offset).map_err(malformed)?;
            let bytes = size_of::<Ipv6Hdr>() + usize::from(u16::from_be_bytes(header.payload_len));
            fits(frame, offset, bytes, size_of::<Ipv6Hdr>(), outer)?;
            let [first, second, ..] = header.vcf;
            let class = decapsulated_traffic_class(first << 4 | second >> 4, outer.traffic_class)
                .ok_or(DecapOutcome::Congested)?;
            header.vcf[0] = first & 0xf0 | class >> 4;
            header.vcf[1] = class << 4 | second & 0x0f;
            ETHER_TYPE_IPV6
        }
        _ => return Err(DecapOutcome::Malformed),
    };
    let (destination, source) = {
        let ethernet = frame.header::<EthernetHdr>(0).map_err(malformed)?;
        (ethernet.destination, ethernet.source)
    };
    let moved = frame.header::<EthernetHdr>(HEADERS).map_err(malformed)?;
    crate::headers::ethernet(moved, source, destination, ether_type);
    // SAFETY: the program's own context; the frame is not looked at after it.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, HEADERS as i32) } != 0 {
        return Err(DecapOutcome::Malformed);
    }
    Ok(())
}

/// Whether a packet of so many `bytes` at `offset` is whole.
#[inline(always)]
fn fits(frame: &Frame, offset: usize, bytes: usize, least: usize, outer: &Outer) -> Result<(), DecapOutcome> {
    let is_whole = bytes >= least && bytes <= outer.bytes && offset + bytes <= frame.bytes();
    if is_whole { Ok(()) } else { Err(DecapOutcome::Malformed) }
}
