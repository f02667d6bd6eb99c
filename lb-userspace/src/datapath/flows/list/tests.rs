use lb_common::{Addr, Life};
use proptest::prelude::*;

use super::*;
use crate::datapath::memory::Memory;

/// Small tables, and backends 1 and 2.
pub(in crate::datapath::flows) struct Scene {
    pub(in crate::datapath::flows) tables: FlowTables,
    pub(in crate::datapath::flows) timeouts: Vec<Option<Timeouts>>,
}

impl Scene {
    pub(in crate::datapath::flows) const NOW: u16 = 1000;

    pub(in crate::datapath::flows) fn new() -> Self {
        let timeouts = Some(Timeouts::new(100, 64, 32, 32));
        Self {
            tables: FlowTables {
                steered: Memory::anonymous(8),
                translated: Memory::anonymous(8),
                replies: Memory::anonymous(64),
            },
            timeouts: vec![None, timeouts, timeouts],
        }
    }

    fn life(&self, state: FlowState, age: u16) -> Life {
        Life::new(state, self.timeouts[1].expect("a backend").classes(), Self::NOW - age)
    }

    pub(in crate::datapath::flows) fn steer(&self, at: usize, backend: u16, state: FlowState, age: u16) {
        let word = Slot::new(at as u32, backend, self.life(state, age)).0;
        self.tables.steered.publish(at / BUCKET_SLOTS, at % BUCKET_SLOTS * 8, word);
    }

    /// A flow from port 40000 + `at` of `client`, by port 50000 + `at`.
    pub(in crate::datapath::flows) fn translate(
        &self,
        at: usize,
        backend: u16,
        state: FlowState,
        age: u16,
        client: [u8; 4],
    ) {
        let (life, port) = (self.life(state, age), at as u16);
        let (bucket, slot) = (at / BUCKET_SLOTS, at % BUCKET_SLOTS);
        let value = NatValue::new(50_000 + port, backend, 3, life).0;
        self.tables.translated.publish(bucket, (BUCKET_SLOTS + slot) * 8, value);
        self.tables.translated.publish(bucket, slot * 8, 77 + at as u64);
        let reply = NatReply {
            word: ReplyWord::new(at as u32, 3, life).0,
            peer: ReplyPeer::new((40_000 + port).to_be_bytes(), 50_000 + port, backend, 0).0,
            client: Addr::from_v4(client),
        };
        self.tables.replies.set(at, reply);
    }

    fn list(&self, filter: &FlowFilter) -> FlowListing {
        self.tables.list(filter, 100, &self.timeouts, Self::NOW)
    }
}

#[test]
fn a_translated_flow_has_both_its_ends() {
    let scene = Scene::new();
    scene.translate(9, 1, FlowState::Established, 4, [10, 0, 0, 1]);
    let listing = scene.list(&FlowFilter::default());
    assert_eq!((listing.rows.len(), listing.more), (1, 0));
    let row = listing.rows[0];
    assert_eq!((row.backend, row.state, row.age_ticks, row.left_ticks), (1, FlowState::Established, 4, 96));
    let client = "10.0.0.1:40009".parse().expect("an address");
    assert_eq!(row.translated, Some(TranslatedFlow { client, source: 3, source_port: 50_009 }));
}

#[test]
fn steered_flows_are_not_compared_with_a_client() {
    let scene = Scene::new();
    scene.steer(0, 2, FlowState::Established, 0);
    scene.translate(1, 1, FlowState::Established, 0, [10, 0, 0, 1]);
    scene.translate(2, 1, FlowState::Established, 0, [10, 0, 0, 2]);
    let from = |port| FlowFilter { from: Some(([10, 0, 0, 1].into(), port)), ..FlowFilter::default() };
    let listing = scene.list(&from(None));
    assert_eq!((listing.rows.len(), listing.not_compared), (1, 1));
    assert_eq!(scene.list(&from(Some(40_001))).rows.len(), 1);
    assert_eq!(scene.list(&from(Some(40_002))).rows.len(), 0);
}

#[test]
fn a_reply_whose_forward_place_is_another_flows_is_no_flow() {
    let scene = Scene::new();
    scene.translate(1, 1, FlowState::Established, 0, [10, 0, 0, 1]);
    let other = NatValue::new(1, 1, 3, scene.life(FlowState::Established, 0)).0;
    scene.tables.translated.publish(0, (BUCKET_SLOTS + 1) * 8, other);
    assert!(scene.list(&FlowFilter::default()).rows.is_empty());
    let wild = ReplyWord::new(u32::MAX, 3, scene.life(FlowState::Established, 0)).0;
    scene.tables.replies.publish(1, 0, wild);
    assert!(scene.list(&FlowFilter::default()).rows.is_empty());
}

proptest! {
    #[test]
    fn every_live_flow_that_is_wanted_is_listed_once_the_newest_first(
        flows in proptest::collection::vec((0u16..3, 0u16..130, any::<bool>()), 0..64),
        limit in 0usize..70,
        only_two: bool,
    ) {
        let scene = Scene::new();
        let mut ages = Vec::new();
        for (at, (backend, age, steered)) in flows.into_iter().enumerate() {
            if steered {
                scene.steer(at, backend, FlowState::Established, age);
            } else {
                scene.translate(at, backend, FlowState::Established, age, [10, 0, 0, 1]);
            }
            if backend > 0 && age <= 100 && (backend == 2 || !only_two) {
                ages.push(age);
            }
        }
        ages.sort_unstable();
        let backends = only_two.then(|| vec![false, false, true]);
        let filter = FlowFilter { backends, state: Some(FlowState::Established), ..FlowFilter::default() };
        let listing = scene.tables.list(&filter, limit, &scene.timeouts, Scene::NOW);
        let listed: Vec<_> = listing.rows.iter().map(|row| row.age_ticks).collect();
        prop_assert_eq!(listed.as_slice(), &ages[..limit.min(ages.len())]);
        prop_assert_eq!(listing.more, (ages.len() - listed.len()) as u64);
    }
}
