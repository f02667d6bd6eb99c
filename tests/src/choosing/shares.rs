//! The share of each backend against its weight.

use anyhow::Result;
use flowgate::{datapath::apply::WantedService, ring};
use harness::random::Random;
use lb_common::{Mode, Scheduler};
use serde_json::{Value, json};

use super::{
    Scale, progress,
    stage::{self, Stage},
};

const SCHEDULERS: [(Scheduler, &str); 4] = [
    (Scheduler::Maglev, "maglev"),
    (Scheduler::SourceHash, "source-hash"),
    (Scheduler::RoundRobin, "round-robin"),
    (Scheduler::LeastConn, "least-conn"),
];

/// A backend's weight by its position.
type WeightOf = fn(usize) -> u16;

/// Weights with a name.
const WEIGHTS: [(&str, WeightOf); 3] = [
    ("equal", |_| 10),
    ("one of 1, others 1000", |at| if at == 0 { 1 } else { 1000 }),
    ("1000, 500, 250 … 1, and again", |at| 1000 >> (at % 10)),
];

/// How far shares are from the weights, in the words of a row.
struct Errors {
    /// The largest difference of a share, as a part of all flows.
    absolute: f64,
    /// The largest difference, as a part of the share that weights ask for.
    relative: f64,
}

impl Errors {
    fn of(counts: &[u64], weights: &[u16]) -> Self {
        let all = counts.iter().sum::<u64>() as f64;
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let mut errors = Self { absolute: 0.0, relative: 0.0 };
        for (count, weight) in counts.iter().zip(weights) {
            let fair = f64::from(*weight) / total;
            let error = (*count as f64 / all - fair).abs();
            errors.absolute = errors.absolute.max(error);
            errors.relative = errors.relative.max(error / fair);
        }
        errors
    }

    fn json(&self) -> Value {
        json!({ "absolute": self.absolute, "relative": self.relative })
    }
}

pub(super) fn measure(scale: &Scale) -> Result<Value> {
    let mut stage = Stage::new(Mode::Dsr, scale.share_flows);
    let mut rows = Vec::new();
    let mut first = 0;
    for (scheduler, name) in SCHEDULERS {
        for count in scale.share_backends {
            for (spread, weight) in WEIGHTS {
                let weights: Vec<u16> = (0..*count).map(weight).collect();
                let row = one(&mut stage, scheduler, &weights, first..first + scale.share_flows)?;
                rows.push(json!({ "scheduler": name, "backends": count, "weights": spread, "errors": row }));
                first = (first + scale.share_flows) % (1 << 23);
            }
            progress(format_args!("shares: {name}, {count} backends"));
        }
    }
    Ok(json!({ "flows": scale.share_flows, "rows": rows }))
}

fn one(
    stage: &mut Stage,
    scheduler: Scheduler,
    weights: &[u16],
    clients: std::ops::Range<u32>,
) -> Result<Value> {
    let backends = stage::backends(Mode::Dsr, weights);
    let flows = u64::from(clients.end - clients.start);
    stage.clear()?;
    stage.plane.apply(&[WantedService { scheduler, ..stage::service(Mode::Dsr, backends.clone()) }]);
    let before = stage.counts(&backends);
    let chosen = stage.begin(clients, false);
    let moved = stage.counts(&backends).since(before);
    moved.check(flows, flows)?;

    let layout = if scheduler == Scheduler::RoundRobin { ring::sequence } else { ring::build };
    let ring = layout(&stage::members(&backends), stage::ring_slots(&backends));
    let tally = |indices: &[u16]| {
        let mut counts = vec![0_u64; weights.len()];
        indices.iter().for_each(|index| counts[usize::from(*index) - 1] += 1);
        Errors::of(&counts, weights).json()
    };
    let by_chance = by_chance(weights, flows);
    Ok(json!({ "flows": tally(&chosen), "ring": tally(&ring), "by_chance": tally(&by_chance) }))
}

/// Backends drawn by a generator of random numbers, with no scheduler at all: what so many flows cannot but differ by.
fn by_chance(weights: &[u16], flows: u64) -> Vec<u16> {
    let mut random = Random::new(flows);
    let ends: Vec<u64> = weights
        .iter()
        .scan(0, |end, weight| {
            *end += u64::from(*weight);
            Some(*end)
        })
        .collect();
    let total = ends.last().copied().unwrap_or(1);
    let mut draw = || {
        let number = random.number() % total;
        ends.partition_point(|end| *end <= number) as u16 + 1
    };
    (0..flows).map(|_| draw()).collect()
}
