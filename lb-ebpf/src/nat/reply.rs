//! The backend's packets.

use lb_common::{
    Explanation, FlowState, Life,
    abi::CLIENT_ITSELF,
    life::Course,
    nat_table::{ReplyPeer, ReplyWord},
};

use super::{
    NAT_REPLIES, ON_FIN,
    refresh::{REFRESHED, refresh_by_reply},
    reply_index,
};
use crate::{
    atomic,
    backend::{self, BackendRef},
    clock, explain, globals,
    packet::Packet,
    service::ServiceRef,
    steer::{Way, words_of},
};

/// Whether a packet answers a translated flow; where it goes, if it does. `PEEKS`: the flow is left as it is.
#[inline(always)]
pub fn answers<const PEEKS: bool>(packet: &Packet, way: &mut Way) -> Option<()> {
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
        (word, peer, atomic::read_words(&raw const (*entry).client))
    };
    let life = word.life();
    if peer.nat_port() != port || matches!(life.state(), FlowState::Empty | FlowState::Claimed) {
        return None;
    }
    let backend = BackendRef::at(peer.backend())?;
    if *backend.addr() != packet.source || backend.port() != packet.source_port {
        return None;
    }
    let is_clients = globals::shares_servers() && word.source() == CLIENT_ITSELF;
    let source = if is_clients { client } else { words_of(backend::source(word.source())?) };
    if source != words_of(&packet.destination.addr) {
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
    if used != life && !PEEKS && !globals::explains() {
        // Given to another flow at this moment: then it is nobody's answer any more.
        if refresh_by_reply(index, word.0, used.put(0)) != REFRESHED {
            return None;
        }
    }
    way.answers(&service, client, peer.client_port());
    way.backend = backend.index;
    way.client_hop = peer.client_hop();
    Some(())
}
