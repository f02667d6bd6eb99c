//! Ethernet: both MAC addresses, since a bridge learns from the source.

use lb_common::NextHop;

use crate::packet::EthernetHdr;

/// Addresses a frame to a next hop. This is all that `dsr` does.
#[inline(always)]
pub fn readdress(ethernet: &mut EthernetHdr, next_hop: &NextHop) {
    ethernet.destination = next_hop.destination_mac;
    ethernet.source = next_hop.source_mac;
}
