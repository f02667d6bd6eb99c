//! The backend's packets.

use lb_common::{
    Addr, Explanation, FlowState, Life,
    life::Course,
    nat_table::{ReplyPeer, ReplyWord},
};

use super::{NAT_REPLIES, ON_FIN, refresh::refresh_by_reply, reply_index};
use crate::{
    atomic,
    backend::{self, BackendRef},
    clock, explain, globals,
    packet::Packet,
    service::ServiceRef,
};

/// The reply half of a flow, as a packet uses it.
pub struct Reply {
    pub backend_index: u16,
    pub service: ServiceRef,
    pub client: Addr,
    pub client_port: [u8; 2],
    /// Index of the neighbour that the client's packets come from.
    pub client_hop: u16,
}

/// The flow that a packet answers, if it answers one.
#[inline(always)]
pub fn reply(packet: &Packet) -> Option<Reply> {
    let (first, count) = globals::nat_ports();
    let port = u16::from_be_bytes(packet.destination.port);
    if port.wrapping_sub(first) >= count {
        return None;
    }
    let destination = &packet.destination;
    let index =
        reply_index(&packet.source, packet.source_port, &destination.addr, port, destination.protocol);
    let entry = NAT_REPLIES.get_ptr_mut(index)?;
    // SAFETY: words of a map's value; the word is read again below.
    let (word, peer, client) = unsafe {
        let word = ReplyWord(atomic::read(&raw const (*entry).word));
        let peer = ReplyPeer(atomic::read(&raw const (*entry).peer));
        (word, peer, atomic::read_addr(&raw const (*entry).client))
    };
    let life = word.life();
    if peer.nat_port() != port || matches!(life.state(), FlowState::Empty | FlowState::Claimed) {
        return None;
    }
    let backend = BackendRef::at(peer.backend())?;
    if *backend.addr() != packet.source || backend.port() != packet.source_port {
        return None;
    }
    if *backend::source(word.source())? != packet.destination.addr {
        return None;
    }
    let service = ServiceRef::at(backend.service())?;
    let now = clock::now();
    if service.protocol() != packet.destination.protocol || life.expired_for(now, service.timeouts()) {
        return None;
    }
    // SAFETY: as above.
    let again = unsafe { atomic::read(&raw const (*entry).word) };
    if (again ^ word.0) >> Life::BITS != 0 || Life::of(again).state() as u8 == FlowState::Claimed as u8 {
        return None;
    }
    explain::service(service.index);
    explain::flow(Explanation::IS_ANSWER, index, life);
    explain::backend(backend.index);
    explain::translation(port, word.source());
    let course = Course { classes: service.classes(), on_fin: ON_FIN };
    let used = life.after(packet.destination.protocol, packet.tcp_flags, now, course);
    if used != life && !globals::explains() {
        refresh_by_reply(index, used.put(0));
    }
    Some(Reply {
        backend_index: backend.index,
        service,
        client,
        client_port: peer.client_port(),
        client_hop: peer.client_hop(),
    })
}
