//! How many flows change backend when one backend changes: with the table of flows, and on a node that has none.

use std::ops::Range;

use anyhow::{Result, ensure};
use flowgate::{datapath::apply::WantedBackend, ring};
use harness::dataplane::Stream;
use lb_common::{Addr, Mode, hash::ring_hash, ring::RingRef};
use serde_json::{Value, json};

use super::{
    Scale, progress,
    stage::{self, Stage},
};

const WEIGHT: u16 = 10;

type Change = fn(&mut Vec<WantedBackend>);

/// What happens to the last backend, by name; it is back as it was before the next.
const CHANGES: [(&str, Change); 6] = [
    ("one is added", |backends| {
        let number = backends.len() as u16 + 1;
        backends.push(stage::backend(Mode::Dsr, number, WEIGHT));
    }),
    ("one is removed", |backends| drop(backends.pop())),
    ("one drains", |backends| of_last(backends, |last| last.ring_weight = 0)),
    ("one goes down", |backends| of_last(backends, |last| (last.ring_weight, last.down) = (0, true))),
    ("one weighs double", |backends| of_last(backends, |last| last.ring_weight *= 2)),
    ("one weighs half", |backends| of_last(backends, |last| last.ring_weight /= 2)),
];

fn of_last(backends: &mut [WantedBackend], change: impl Fn(&mut WantedBackend)) {
    if let Some(last) = backends.last_mut() {
        change(last);
    }
}

pub(super) fn measure(scale: &Scale) -> Result<Value> {
    // Room for four times as many flows: what is asked here is not what a full table costs.
    let mut stage = Stage::new(Mode::Dsr, scale.disruption_flows * 2);
    let mut rows = Vec::new();
    for count in scale.disruption_backends {
        let whole = stage::backends(Mode::Dsr, &vec![WEIGHT; *count]);
        for (name, change) in CHANGES {
            let mut changed = whole.clone();
            change(&mut changed);
            let table = with_table(&mut stage, &whole, &changed, 0..scale.disruption_flows)?;
            let ring = without_table(&whole, &changed, 0..scale.disruption_flows);
            rows.push(
                json!({ "backends": count, "change": name, "with_table": table, "without_table": ring }),
            );
            progress(format_args!("disruption: {count} backends, {name}"));
        }
    }
    Ok(json!({ "flows": scale.disruption_flows, "slots": stage.slots, "rows": rows }))
}

/// Established flows that have another backend after the change, and after it was taken back: those of a backend that was
/// removed, and all others.
fn with_table(
    stage: &mut Stage,
    whole: &[WantedBackend],
    changed: &[WantedBackend],
    clients: Range<u32>,
) -> Result<Value> {
    let flows = u64::from(clients.end - clients.start);
    let removed = (changed.len() < whole.len()).then_some(whole.len() as u16);
    stage.clear()?;
    stage.plane.apply(&[stage::service(Mode::Dsr, whole.to_vec())]);
    let start = stage.counts(whole);
    let before = stage.begin(clients.clone(), true);
    let moved = stage.counts(whole).since(start);
    let shared = moved.check(2 * flows, flows)?;
    let choices = choices(whole, clients.clone());
    let others = before.iter().zip(&choices).filter(|(before, choice)| before != choice).count() as u64;
    ensure!(others <= shared, "the program has chosen otherwise than the ring says for {others} flows");

    stage.plane.apply(&[stage::service(Mode::Dsr, changed.to_vec())]);
    let after = stage.go_on(clients.clone());
    stage.plane.apply(&[stage::service(Mode::Dsr, whole.to_vec())]);
    let back = stage.go_on(clients);
    let (mut of_removed, mut others) = (0_u64, 0_u64);
    for ((before, after), back) in before.iter().zip(&after).zip(&back) {
        if before != after || after != back {
            let count = if Some(*before) == removed { &mut of_removed } else { &mut others };
            *count += 1;
        }
    }
    Ok(json!({ "moved": others, "moved_of_removed": of_removed, "shared": shared }))
}

/// Flows that a node with an empty table sends elsewhere after the change, and those of them that had to move.
fn without_table(whole: &[WantedBackend], changed: &[WantedBackend], clients: Range<u32>) -> Value {
    let (before, after) = (choices(whole, clients.clone()), choices(changed, clients));
    let concerned = whole.len().max(changed.len()) as u16;
    let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    let had_to = moved.iter().filter(|(before, after)| **before == concerned || **after == concerned).count();
    json!({ "moved": moved.len(), "had_to": had_to })
}

/// The backend of each client's flow by the ring alone.
fn choices(backends: &[WantedBackend], clients: Range<u32>) -> Vec<u16> {
    let ring = ring::build(&stage::members(backends), stage::ring_slots(backends));
    let place = RingRef { first_line: 0, slots: ring.len() as u32 };
    let choice = |client| {
        let client = Stream::client(client);
        let words = Addr::from(std::net::IpAddr::V4(*client.ip())).words();
        ring[place.slot(ring_hash(words, client.port().to_be_bytes())) as usize]
    };
    clients.map(choice).collect()
}
