//! Answers as text for people: pure functions from the API's shapes to lines, each ending with a newline.

mod backend;
mod changed;
mod decap;
mod diff;
mod facts;
mod flow;
mod paint;
mod service;
mod stats;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod units;

pub(crate) use self::{
    backend::{backend, backends},
    changed::changed,
    decap::decap,
    diff::config_diff,
    flow::{flow_count, flows, lookup},
    paint::Paint,
    service::{service, services},
    stats::stats,
    status::status,
};

/// Text of the agent's on one line: what moves a terminal's cursor or changes its colours is spelled out.
fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
