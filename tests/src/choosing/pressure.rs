//! What a full table of flows, and a flood of SYNs, cost flows that are live.

use anyhow::{Result, ensure};
use lb_common::{Mode, Reason};
use serde_json::{Value, json};

use super::{
    Scale, progress,
    stage::{self, Stage},
};

/// Enough of them that full-nat's ports are plenty.
pub(super) const BACKENDS: usize = 100;
const MODES: [(Mode, &str); 2] = [(Mode::Dsr, "dsr"), (Mode::FullNat, "full-nat")];

/// Live flows that are forgotten while others are begun, by how full the table is in the end.
pub(super) fn measure_fill(scale: &Scale) -> Result<Value> {
    let mut rows = Vec::new();
    let mut slots = 0;
    for (mode, name) in MODES {
        let mut stage = Stage::new(mode, scale.fill_flows);
        slots = stage.slots;
        for percent in [25, 50, 75, 100] {
            let flows = (stage.slots * percent / 100) as u32;
            rows.push(json!({ "mode": name, "percent": percent, "result": fill(&mut stage, mode, flows)? }));
            progress(format_args!("fill: {name}, {percent} %"));
        }
    }
    Ok(json!({ "slots": slots, "rows": rows }))
}

fn fill(stage: &mut Stage, mode: Mode, flows: u32) -> Result<Value> {
    let backends = stage::backends(mode, &[10; BACKENDS]);
    stage.clear()?;
    stage.plane.apply(&[stage::service(mode, backends.clone())]);
    let before = stage.counts(&backends);
    let refused_before = refused_for_ports(stage);
    let begun = stage.begin(0..flows, true);
    let refused = begun.iter().filter(|backend| **backend == 0).count() as u64;
    let moved = stage.counts(&backends).since(before);
    let for_ports = refused_for_ports(stage) - refused_before;
    ensure!(
        for_ports == refused && moved.others == refused,
        "{refused} refused, {for_ports} for ports: {moved:?}"
    );
    let sent = u64::from(flows) - refused;
    // Of steered flows a few are taken for another with the same tag, and are not counted.
    let counted = sent - sent / 10_000;
    ensure!(moved.forwarded == 2 * sent && moved.flows >= counted, "{sent} flows: {moved:?}");
    let known = stage.plane.flows();
    let (known, elsewhere) = match mode {
        Mode::Dsr => (known.steered, known.translated),
        _ => (known.translated, known.steered),
    };
    ensure!(elsewhere == 0, "{elsewhere} flows are in the other mode's table");
    Ok(json!({ "begun": sent, "refused": refused, "evicted": sent.saturating_sub(known) }))
}

fn refused_for_ports(stage: &Stage) -> u64 {
    stage.plane.counters().packets(0, Reason::PortsExhausted)
}

/// Established flows that are lost in a flood of SYNs.
pub(super) fn measure_flood(scale: &Scale) -> Result<Value> {
    let mut rows = Vec::new();
    let mut slots = 0;
    for (mode, name) in MODES {
        let mut stage = Stage::new(mode, scale.flood_established * 2);
        slots = stage.slots;
        let backends = stage::backends(mode, &[10; BACKENDS]);
        stage.plane.apply(&[stage::service(mode, backends.clone())]);
        let established = 0..scale.flood_established;
        let first = stage.begin(established.clone(), true);
        ensure!(!first.contains(&0), "{name}: a flow is refused before the flood");
        let before = stage.counts(&backends);
        let part = scale.flood_syns / 10;
        for number in 0..10 {
            let start = scale.flood_established + number * part;
            stage.begin(start..start + part, false);
            progress(format_args!("flood: {name}, {} SYNs", (number + 1) * part));
        }
        let flood = stage.counts(&backends).since(before);
        ensure!(flood.forwarded + flood.others == u64::from(10 * part), "{name}: {flood:?}");
        let before = stage.counts(&backends);
        let after = stage.go_on(established);
        // Who is not known any more is begun anew, and counted as such.
        let lost = stage.counts(&backends).since(before);
        let moved = first.iter().zip(&after).filter(|(first, after)| first != after).count();
        rows.push(json!({
            "mode": name, "established": scale.flood_established, "syns": 10 * part, "syns_refused": flood.others,
            "lost": lost.flows + lost.others, "moved": moved,
        }));
    }
    Ok(json!({ "slots": slots, "rows": rows }))
}
