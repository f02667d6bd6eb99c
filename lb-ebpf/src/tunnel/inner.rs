//! The packet that goes into a tunnel.

use lb_common::{Reason, checksum::Delta};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use crate::{packet::Frame, parse::NETWORK_OFFSET};

const DONT_FRAGMENT: u8 = 0x40;

/// What of it the outer header depends on.
pub struct Inner {
    pub is_v4: bool,
    /// Its length, by its own account: what follows it in the frame is padding.
    pub bytes: u32,
    /// DSCP and ECN, which the outer header has as well (RFC 2983, 3.1; RFC 6040, 4.1).
    pub traffic_class: u8,
    /// Whether nobody may fragment it on the way, as is so for all of IPv6.
    pub dont_fragment: bool,
}

/// Reads it.
#[inline(always)]
pub fn read(frame: &Frame, is_v4: bool) -> Result<Inner, Reason> {
    if is_v4 {
        let header = frame.header::<Ipv4Hdr>(NETWORK_OFFSET)?;
        return Ok(Inner {
            is_v4,
            bytes: u32::from(u16::from_be_bytes(header.tot_len)),
            traffic_class: header.tos,
            dont_fragment: header.frags[0] & DONT_FRAGMENT != 0,
        });
    }
    let header = frame.header::<Ipv6Hdr>(NETWORK_OFFSET)?;
    let [first, second, ..] = header.vcf;
    Ok(Inner {
        is_v4,
        bytes: size_of::<Ipv6Hdr>() as u32 + u32::from(u16::from_be_bytes(header.payload_len)),
        traffic_class: first << 4 | second >> 4,
        dont_fragment: true,
    })
}

/// Takes the hop that this is from its TTL or hop limit (RFC 2003, 3.1), the packet being at `offset` now.
#[inline(always)]
pub fn hop(frame: &Frame, offset: usize, is_v4: bool) -> Result<(), Reason> {
    if is_v4 {
        let header = frame.header::<Ipv4Hdr>(offset)?;
        let (old, new) = ([header.ttl, header.proto], [header.ttl.wrapping_sub(1), header.proto]);
        header.ttl = new[0];
        header.check = Delta::NONE.change16(old, new).apply(header.check);
    } else {
        let header = frame.header::<Ipv6Hdr>(offset)?;
        header.hop_limit = header.hop_limit.wrapping_sub(1);
    }
    Ok(())
}
