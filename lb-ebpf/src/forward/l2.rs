//! Ethernet: both MAC addresses, since a bridge learns from the source.

/// The first eight bytes of a frame, and the four after them: both MAC addresses.
pub type MacBytes = ([u8; 8], [u8; 4]);

/// Addresses a frame, of which `macs` are the first bytes, to a next hop ([`lb_common::NextHop::of_words`]).
#[inline(always)]
pub fn readdress(macs: &mut MacBytes, next_hop: &[u64; 2]) {
    macs.0 = next_hop[0].to_le_bytes();
    macs.1 = (next_hop[1] as u32).to_le_bytes();
}

const _: () = assert!(size_of::<MacBytes>() == 12 && align_of::<MacBytes>() == 1);
