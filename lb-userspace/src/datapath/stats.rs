//! Counters, in the words of the API.

use lb_common::{BackendCounter, Reason, Verdict, counters::BackendCounters};

use crate::api::schema::{FlowTotals, PacketTotals};

/// A backend's, or several backends', counters as totals.
#[must_use]
pub fn flow_totals(counters: &BackendCounters) -> FlowTotals {
    let value = |counter: BackendCounter| counters[counter as usize];
    FlowTotals {
        packets_in: value(BackendCounter::PacketsIn),
        bytes_in: value(BackendCounter::BytesIn),
        packets_out: value(BackendCounter::PacketsOut),
        bytes_out: value(BackendCounter::BytesOut),
        flows: value(BackendCounter::Flows),
    }
}

/// Packets by what became of them.
#[must_use]
pub fn packet_totals(packets: &[(Reason, u64)]) -> PacketTotals {
    let mut totals = PacketTotals::default();
    for (reason, count) in packets {
        match reason.verdict() {
            Verdict::Forward => totals.forwarded += count,
            Verdict::Pass => totals.passed += count,
            Verdict::Answer => totals.answered += count,
            Verdict::Drop => totals.dropped += count,
        }
    }
    totals
}
