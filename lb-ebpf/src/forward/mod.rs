//! Writing the packet: one file for each kind of rewrite. Nothing here reads a map.

mod l2;
pub mod nat_v4;
pub mod nat_v6;
mod transport;

pub use l2::readdress;
pub use nat_v6::bytes_of;

use lb_common::{Reason, service::PROTOCOL_TCP};

use crate::{
    packet::{Frame, Packet},
    parse::NETWORK_OFFSET,
    steer::Way,
};

/// Writes a packet as it is to leave.
#[inline(always)]
pub fn forward(frame: &Frame, packet: &Packet, way: &Way) -> Result<(), Reason> {
    if way.rewrites {
        translate(frame, packet, way)?;
    }
    // This is all that `dsr` does: on to the next hop, as a switch would send it.
    l2::readdress(frame.header(0)?, &way.next_hop);
    Ok(())
}

/// `full-nat`, `nat`: other addresses and ports.
#[inline(always)]
fn translate(frame: &Frame, packet: &Packet, way: &Way) -> Result<(), Reason> {
    let addresses = if packet.destination.addr.is_v4() {
        nat_v4::readdress(frame.header(NETWORK_OFFSET)?, way.source[1], way.destination[1])
    } else {
        nat_v6::readdress(frame.header(NETWORK_OFFSET)?, way.source, way.destination)
    };
    let offset = packet.transport_offset();
    if packet.destination.protocol == PROTOCOL_TCP {
        transport::readdress_tcp(frame.header(offset)?, way.source_port, way.destination_port, addresses);
    } else {
        transport::readdress_udp(frame.header(offset)?, way.source_port, way.destination_port, addresses);
    }
    Ok(())
}
