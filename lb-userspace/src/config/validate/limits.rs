//! `[limits]`.

use std::ops::RangeInclusive;

use lb_common::fragment::LEAST_SLOTS;

use crate::{
    config::{
        entry::LimitsEntry,
        error::{Problems, Scope},
    },
    model::Limits,
};

/// The limits, the defaults filled in; a value out of range is a problem, and the default stands in for it.
pub(super) fn validate(entry: LimitsEntry, problems: &mut Problems) -> Limits {
    let scope = Scope::section("limits");
    let default = Limits::default();
    let mut within = |value: Option<u32>, default: u32, field: &str, range: RangeInclusive<u32>| match value {
        None => default,
        Some(value) if range.contains(&value) => value,
        Some(value) => {
            let (low, high) = (range.start(), range.end());
            let message = format!("{field} = {value} is out of range: use {low} to {high}");
            problems.push(scope.problem(field, message));
            default
        }
    };
    let fragments = match entry.fragments {
        Some(0) => 0,
        fragments => within(fragments, default.fragments, "fragments", LEAST_SLOTS..=16_777_216),
    };
    Limits {
        fragments,
        flows: within(entry.flows, default.flows, "flows", 1024..=134_217_728),
        services: within(entry.services, default.services, "services", 1..=16_384),
        backends: within(entry.backends, default.backends, "backends", 1..=65_535),
        ring_slots: within(entry.ring_slots, default.ring_slots, "ring_slots", 65_536..=268_435_456),
    }
}
