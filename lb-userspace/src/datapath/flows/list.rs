//! Single flows out of the tables, the most recently used first.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering,
};

use lb_common::{
    FlowState, Timeouts,
    flow_table::{BUCKET_SLOTS, Slot},
    nat_table::{KEY_CLAIMED, NatReply, NatValue, ReplyPeer, ReplyWord},
};

use super::{newest::Newest, tally::is_flow};
use crate::datapath::tables::FlowTables;

/// Which flows are wanted: those that meet every condition.
#[derive(Clone, Debug, Default)]
pub struct FlowFilter {
    /// By index of the backend: whether its flows are wanted; none for all backends.
    pub backends: Option<Vec<bool>>,
    /// The client's address and, where given, its port. Steered flows cannot be compared with it.
    pub from: Option<(IpAddr, Option<u16>)>,
    /// The state.
    pub state: Option<FlowState>,
}

/// A flow as the tables have it. The order is that of a list: by age, then by place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowRow {
    /// Ticks since the last packet.
    pub age_ticks: u16,
    /// Ticks until it is forgotten, if no packet comes.
    pub left_ticks: u16,
    /// Index of its slot; steered flows and translated flows have tables of their own.
    place: (bool, usize),
    /// The backend's index.
    pub backend: u16,
    /// How far it has come.
    pub state: FlowState,
    /// What only a translated flow is known by.
    pub translated: Option<TranslatedFlow>,
}

/// The two ends of a translated flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TranslatedFlow {
    /// The client.
    pub client: SocketAddr,
    /// The index in `SOURCES` of the address that the backend sees.
    pub source: u8,
    /// The port that the backend sees.
    pub source_port: u16,
}

/// The answer to a [`FlowFilter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowListing {
    /// The most recently used flows.
    pub rows: Vec<FlowRow>,
    /// How many more there are.
    pub more: u64,
    /// Steered flows that met every condition but the client's address, which is not known of them.
    pub not_compared: u64,
}

impl FlowFilter {
    fn wants(&self, backend: u16, state: FlowState) -> bool {
        let has = |wanted: &Vec<bool>| wanted.get(usize::from(backend)).copied().unwrap_or(false);
        // Which side has closed is nobody's question.
        let state = if state == FlowState::PeerClosed { FlowState::HalfClosed } else { state };
        self.backends.as_ref().is_none_or(has) && self.state.is_none_or(|wanted| wanted == state)
    }

    fn wants_client(&self, client: SocketAddr) -> bool {
        self.from.is_none_or(|(address, port)| {
            address == client.ip() && port.is_none_or(|port| port == client.port())
        })
    }
}

impl FlowTables {
    /// The `limit` most recently used of the flows that `filter` wants; `timeouts` as for [`FlowTables::count`].
    /// Memory is bounded by `limit`, time by the size of the tables.
    #[must_use]
    pub fn list(
        &self,
        filter: &FlowFilter,
        limit: usize,
        timeouts: &[Option<Timeouts>],
        now: u16,
    ) -> FlowListing {
        let mut newest = Newest::new(limit);
        let mut not_compared = 0;
        let steered = (0..self.steered.len()).flat_map(|bucket| {
            let words = self.steered.get(bucket).0;
            words.into_iter().enumerate().map(move |(slot, word)| (bucket * BUCKET_SLOTS + slot, Slot(word)))
        });
        for row in steered.filter_map(|(place, slot)| steered_row(place, slot, timeouts, now)) {
            if !filter.wants(row.backend, row.state) {
                continue;
            }
            if filter.from.is_some() {
                not_compared += 1;
            } else {
                newest.offer(row);
            }
        }
        for place in 0..self.replies.len() {
            let Some(row) = self.translated_row(place, timeouts, now) else { continue };
            if filter.wants(row.backend, row.state)
                && row.translated.is_some_and(|flow| filter.wants_client(flow.client))
            {
                newest.offer(row);
            }
        }
        let (rows, more) = newest.into_sorted();
        FlowListing { rows, more, not_compared }
    }

    pub(super) fn translated_row(
        &self,
        place: usize,
        timeouts: &[Option<Timeouts>],
        now: u16,
    ) -> Option<FlowRow> {
        let reply = self.whole_reply(place)?;
        let (word, peer) = (ReplyWord(reply.word), ReplyPeer(reply.peer));
        let limits = timeouts.get(usize::from(peer.backend())).copied().flatten()?;
        let forward = self.forward_half(word, peer)?.life();
        // Packets of either direction keep the flow, and the half that is used less lags behind.
        let newer = if forward.age(now) <= word.life().age(now) { forward } else { word.life() };
        if !is_flow(newer) || newer.expired_for(now, limits) {
            return None;
        }
        let age_ticks = newer.age(now);
        let port = u16::from_be_bytes(peer.client_port());
        Some(FlowRow {
            age_ticks,
            left_ticks: limits.of(newer.state()).saturating_sub(age_ticks),
            place: (true, place),
            backend: peer.backend(),
            state: forward.state(),
            translated: Some(TranslatedFlow {
                client: SocketAddr::new(reply.client.into(), port),
                source: word.source(),
                source_port: peer.nat_port(),
            }),
        })
    }

    /// A reply whose parts belong together; none where it is free or being written.
    fn whole_reply(&self, place: usize) -> Option<NatReply> {
        let word = self.replies.word(place, std::mem::offset_of!(NatReply, word));
        let before = ReplyWord(word.load(Ordering::Acquire));
        if !is_flow(before.life()) {
            return None;
        }
        let reply = self.replies.get(place);
        std::sync::atomic::fence(Ordering::Acquire);
        let after = ReplyWord(word.load(Ordering::Relaxed));
        let same = is_flow(after.life())
            && (before.forward_slot(), before.source()) == (after.forward_slot(), after.source());
        same.then_some(NatReply { word: after.0, ..reply })
    }

    /// The forward half of a reply; none where its place has become another flow's.
    fn forward_half(&self, word: ReplyWord, peer: ReplyPeer) -> Option<NatValue> {
        let slot = word.forward_slot() as usize;
        let (bucket, slot) = (slot / BUCKET_SLOTS, slot % BUCKET_SLOTS);
        if bucket >= self.translated.len() {
            return None;
        }
        let key = self.translated.word(bucket, slot * 8).load(Ordering::Acquire);
        let value = NatValue(self.translated.word(bucket, (BUCKET_SLOTS + slot) * 8).load(Ordering::Acquire));
        let is_half = (value.backend(), value.port(), value.source())
            == (peer.backend(), peer.nat_port(), word.source());
        (key > KEY_CLAIMED && is_flow(value.life()) && is_half).then_some(value)
    }
}

fn steered_row(place: usize, slot: Slot, timeouts: &[Option<Timeouts>], now: u16) -> Option<FlowRow> {
    let (life, backend) = (slot.life(), slot.backend());
    let limits = timeouts.get(usize::from(backend)).copied().flatten()?;
    if !is_flow(life) || life.expired_for(now, limits) {
        return None;
    }
    let age_ticks = life.age(now);
    let left_ticks = limits.of(life.state()).saturating_sub(age_ticks);
    Some(FlowRow {
        age_ticks,
        left_ticks,
        place: (false, place),
        backend,
        state: life.state(),
        translated: None,
    })
}

#[cfg(test)]
pub(super) mod tests;
