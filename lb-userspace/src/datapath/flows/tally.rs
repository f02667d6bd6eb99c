//! How many flows each backend has in each state.

use lb_common::{
    FlowState, Life, Timeouts,
    flow_table::Slot,
    nat_table::{KEY_CLAIMED, NatValue},
};

use crate::datapath::tables::FlowTables;

/// States that a word's four bits can name.
const STATES: usize = 16;

/// Flows of one backend, by the number of their state.
pub type StateCounts = [u64; STATES];

/// Flows that are remembered at one moment, those that are closing among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By index of the backend.
    pub steered: Vec<StateCounts>,
    /// By index of the backend; a flow's state is that of its forward half.
    pub translated: Vec<StateCounts>,
}

impl FlowTables {
    /// Counts all flows of backends, by state; `timeouts` as for [`FlowTables::count`].
    #[must_use]
    pub fn tally(&self, timeouts: &[Option<Timeouts>], now: u16) -> Tally {
        let add = |counts: &mut Vec<StateCounts>, backend: u16, life: Life| {
            let timeouts = timeouts.get(usize::from(backend)).copied().flatten();
            if timeouts.is_some_and(|timeouts| is_flow(life) && !life.expired_for(now, timeouts)) {
                counts[usize::from(backend)][life.state() as usize] += 1;
            }
        };
        let none = vec![[0; STATES]; timeouts.len()];
        let mut tally = Tally { steered: none.clone(), translated: none };
        for index in 0..self.steered.len() {
            for word in self.steered.get(index).0.into_iter().map(Slot) {
                add(&mut tally.steered, word.backend(), word.life());
            }
        }
        for index in 0..self.translated.len() {
            let bucket = self.translated.get(index);
            for (key, value) in bucket.keys.into_iter().zip(bucket.values.map(NatValue)) {
                if key > KEY_CLAIMED {
                    add(&mut tally.translated, value.backend(), value.life());
                }
            }
        }
        tally
    }
}

/// Whether a word holds a flow, and not a place that is free or being written.
pub(super) fn is_flow(life: Life) -> bool {
    !matches!(life.state(), FlowState::Empty | FlowState::Claimed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::{flows::list::tests::Scene, memory::Memory};
    use lb_common::flow_table::BUCKET_SLOTS;

    #[test]
    fn both_tables_are_counted_by_backend_and_state() {
        let scene = Scene::new();
        scene.steer(0, 2, FlowState::Established, 0);
        scene.translate(3, 1, FlowState::Established, 1, [10, 0, 0, 1]);
        scene.translate(4, 1, FlowState::Datagrams, 1, [10, 0, 0, 2]);
        // Expired, and of no backend.
        scene.translate(5, 1, FlowState::Established, 101, [10, 0, 0, 3]);
        scene.steer(1, 0, FlowState::Established, 0);
        let tally = scene.tables.tally(&scene.timeouts, Scene::NOW);
        assert_eq!(tally.steered[2][FlowState::Established as usize], 1);
        assert_eq!(tally.translated[1][FlowState::Established as usize], 1);
        assert_eq!(tally.translated[1][FlowState::Datagrams as usize], 1);
        assert_eq!(tally.steered.iter().chain(&tally.translated).flatten().sum::<u64>(), 3);
    }

    /// Prints how long 2^24 slots take, of which ten million hold a flow.
    #[test]
    fn a_large_table_is_counted_whole() {
        const SLOTS: usize = 1 << 24;
        const FLOWS: u64 = 10_000_000;
        let tables = FlowTables {
            steered: Memory::anonymous(SLOTS / BUCKET_SLOTS),
            translated: Memory::anonymous(1),
            replies: Memory::anonymous(1),
        };
        let timeouts = [None, Some(Timeouts::new(100, 64, 32, 32))];
        let life = Life::new(FlowState::Established, timeouts[1].expect("one").classes(), 7);
        for flow in 0..FLOWS {
            let slot = (flow * SLOTS as u64 / FLOWS) as usize;
            let word = Slot::new(flow as u32, 1, life).0;
            tables.steered.publish(slot / BUCKET_SLOTS, slot % BUCKET_SLOTS * 8, word);
        }
        let start = std::time::Instant::now();
        let tally = tables.tally(&timeouts, 8);
        println!("{FLOWS} flows in {SLOTS} slots: {:?}", start.elapsed());
        assert_eq!(tally.steered[1][FlowState::Established as usize], FLOWS);
    }
}
