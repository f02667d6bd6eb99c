//! Writing the packet: one file for each kind of rewrite. Nothing here reads a map.

mod l2;
mod nat_v4;
mod nat_v6;
mod transport;

use lb_common::{NextHop, Reason, service::PROTOCOL_TCP};

use crate::{
    packet::{Frame, Packet},
    parse::NETWORK_OFFSET,
    steer::Translation,
};

/// `full-nat`: other addresses and ports, and on to the next hop.
#[inline(always)]
pub fn translate(
    frame: &Frame,
    packet: &Packet,
    to: &Translation<'_>,
    next_hop: &NextHop,
) -> Result<(), Reason> {
    let addresses = if packet.destination.addr.is_v4() {
        nat_v4::readdress(frame.header(NETWORK_OFFSET)?, to.source.v4_octets(), to.destination.v4_octets())
    } else {
        nat_v6::readdress(frame.header(NETWORK_OFFSET)?, to.source.0, to.destination.0)
    };
    let offset = packet.transport_offset();
    if packet.destination.protocol == PROTOCOL_TCP {
        transport::readdress_tcp(frame.header(offset)?, to.source_port, to.destination_port, addresses);
    } else {
        transport::readdress_udp(frame.header(offset)?, to.source_port, to.destination_port, addresses);
    }
    direct(frame, next_hop)
}

/// `dsr`: on to the next hop, as a switch would send it.
#[inline(always)]
pub fn direct(frame: &Frame, next_hop: &NextHop) -> Result<(), Reason> {
    l2::readdress(frame.header(0)?, next_hop);
    Ok(())
}
