//! `flow list` and `flow count`: the tables of flows at one moment, read beside the controller, which goes on.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lb_common::{Timeouts, abi::CLIENT_ITSELF, life::TICK_SHIFT_NS};

use super::{
    command::{Answer, CommandError},
    controller::Controller,
    plan::key_of,
};
use crate::{
    api::schema::{
        TableRow,
        flows::{FlowCount, FlowCountQuery, FlowGroup, FlowList, FlowQuery, FlowRow, GroupBy},
    },
    config::edit::find,
    datapath::{
        flows::{clients::Clients, list, list::FlowFilter, now_tick, tally::Tally},
        tables::FlowTables,
    },
    model::{FlowState, Mode, ServiceName},
};

const DEFAULT_LIMIT: usize = 100;
/// More than anybody reads: an answer has a size, too.
const MAX_LIMIT: usize = 100_000;
/// Groups of clients that are listed.
const CLIENT_GROUPS: usize = 20;

/// What it takes to give flows names.
pub(super) struct FlowSnapshot {
    tables: Arc<FlowTables>,
    timeouts: Vec<Option<Timeouts>>,
    /// By the backend's index.
    backends: Vec<Option<(ServiceName, SocketAddr)>>,
    sources: HashMap<u8, IpAddr>,
}

/// The state in the words of the API; none for a place that holds no flow.
pub(super) fn state_of(state: lb_common::FlowState) -> Option<FlowState> {
    use lb_common::FlowState as Known;
    match state {
        Known::HalfOpen => Some(FlowState::HalfOpen),
        Known::Established => Some(FlowState::Established),
        Known::HalfClosed | Known::PeerClosed => Some(FlowState::HalfClosed),
        Known::Closing => Some(FlowState::Closing),
        Known::Datagrams => Some(FlowState::Datagrams),
        Known::Empty | Known::Claimed => None,
    }
}

/// Ticks in seconds, rounded down.
pub(super) fn seconds(ticks: u16) -> u64 {
    (u64::from(ticks) << TICK_SHIFT_NS) / 1_000_000_000
}

impl Controller {
    pub(super) fn flow_snapshot(&self) -> FlowSnapshot {
        let maps = &self.datapath.maps;
        let names: HashMap<_, _> = self
            .desired
            .services
            .values()
            .map(|entry| (key_of(&entry.service), entry.service.name.clone()))
            .collect();
        let name = |(key, address)| Some((names.get(&key)?.clone(), address));
        FlowSnapshot {
            tables: maps.flow_tables(),
            timeouts: maps.timeouts_by_backend(),
            backends: maps.backends_by_index().into_iter().map(|backend| backend.and_then(name)).collect(),
            sources: maps.sources_by_index().into_iter().collect(),
        }
    }

    /// Refuses what cannot be answered, before anybody starts to read.
    pub(super) fn check_flow_query(&self, query: &FlowQuery) -> Answer<()> {
        self.check_names(query.service.as_ref(), query.backend)?;
        if query.from_port.is_some() && query.from_address.is_none() {
            return Err(CommandError::Invalid("from_port: give from_address as well".to_owned()));
        }
        if query.limit.is_some_and(|limit| limit > MAX_LIMIT) {
            return Err(CommandError::Invalid(format!("limit: use at most {MAX_LIMIT}")));
        }
        let Some(name) = query.service.as_ref().filter(|_| query.from_address.is_some()) else {
            return Ok(());
        };
        match find(&self.desired, name)?.service.mode {
            Mode::FullNat => Ok(()),
            mode @ (Mode::Nat | Mode::Dsr | Mode::Ipip | Mode::Gue) => Err(CommandError::Invalid(format!(
                "service {name} has mode {mode}, and of its flows no client's address is kept: leave --from out, or ask \
                 `flowgate lookup` where a client's packets go"
            ))),
        }
    }

    pub(super) fn check_names(
        &self,
        service: Option<&ServiceName>,
        backend: Option<SocketAddr>,
    ) -> Answer<()> {
        if let Some(name) = service {
            find(&self.desired, name)?;
        }
        let Some(backend) = backend else { return Ok(()) };
        let in_scope = |name: &ServiceName| service.is_none_or(|wanted| wanted == name);
        let known = self
            .desired
            .services
            .values()
            .any(|entry| in_scope(&entry.service.name) && entry.service.backend(backend).is_some());
        if known {
            return Ok(());
        }
        let whose =
            service.map_or("no service has".to_owned(), |name| format!("service {name} does not have"));
        Err(CommandError::NotFound(format!(
            "{whose} a backend {backend}: `flowgate backend list` shows what there is"
        )))
    }
}

impl FlowSnapshot {
    /// The flows that are asked for.
    pub(super) fn list(&self, query: &FlowQuery) -> FlowList {
        let state = query.state.map(|state| match state {
            FlowState::HalfOpen => lb_common::FlowState::HalfOpen,
            FlowState::Established => lb_common::FlowState::Established,
            FlowState::HalfClosed => lb_common::FlowState::HalfClosed,
            FlowState::Closing => lb_common::FlowState::Closing,
            FlowState::Datagrams => lb_common::FlowState::Datagrams,
        });
        let filter = FlowFilter {
            backends: Some(self.wanted(query.service.as_ref(), query.backend)),
            from: query.from_address.map(|address| (address, query.from_port)),
            state,
        };
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
        let listing = self.tables.list(&filter, limit, &self.timeouts, now_tick());
        FlowList {
            flows: listing.rows.iter().filter_map(|row| self.row(row)).collect(),
            more: listing.more,
            not_compared: listing.not_compared,
        }
    }

    fn row(&self, row: &list::FlowRow) -> Option<FlowRow> {
        let (service, backend) = self.backends.get(usize::from(row.backend))?.clone()?;
        let source = |flow: list::TranslatedFlow| {
            let its_own = (flow.source == CLIENT_ITSELF).then(|| flow.client.ip());
            Some(SocketAddr::new(
                its_own.or_else(|| self.sources.get(&flow.source).copied())?,
                flow.source_port,
            ))
        };
        Some(FlowRow {
            service,
            backend,
            client: row.translated.map(|flow| flow.client),
            source: row.translated.and_then(source),
            state: state_of(row.state)?,
            idle_seconds: seconds(row.age_ticks),
            forgotten_in_seconds: seconds(row.left_ticks),
        })
    }

    /// The flows that are asked for, counted.
    pub(super) fn count(&self, query: &FlowCountQuery) -> FlowCount {
        let now = now_tick();
        let wanted = self.wanted(query.service.as_ref(), query.backend);
        let tally = self.tables.tally(&self.timeouts, now);
        let (groups, rest) = match query.by {
            None => (Vec::new(), 0),
            Some(GroupBy::Client) => {
                largest_clients(self.tables.clients(&wanted, &self.timeouts, now), CLIENT_GROUPS)
            }
            Some(by) => (self.groups(&tally, &wanted, by), 0),
        };
        let total = |counts: &[[u64; 16]]| counts.iter().flatten().sum::<u64>();
        let (steered_slots, translated_slots) = self.tables.slots();
        let table = |table: &str, slots, used| TableRow { table: table.to_owned(), slots, used };
        FlowCount {
            flows: self.each(&tally, &wanted).map(|(_, _, flows)| flows).sum(),
            tables: vec![
                table("steered", steered_slots, total(&tally.steered)),
                table("translated", translated_slots, total(&tally.translated)),
            ],
            groups,
            rest,
        }
    }

    /// Which backends are asked for, by index.
    fn wanted(&self, service: Option<&ServiceName>, backend: Option<SocketAddr>) -> Vec<bool> {
        let is_wanted = |known: &Option<(ServiceName, SocketAddr)>| {
            known.as_ref().is_some_and(|(name, address)| {
                service.is_none_or(|wanted| wanted == name) && backend.is_none_or(|wanted| wanted == *address)
            })
        };
        self.backends.iter().map(is_wanted).collect()
    }

    /// Backend, state and number of all that is wanted.
    fn each<'a>(
        &'a self,
        tally: &'a Tally,
        wanted: &'a [bool],
    ) -> impl Iterator<Item = (usize, FlowState, u64)> + 'a {
        let tables = tally.steered.iter().enumerate().chain(tally.translated.iter().enumerate());
        tables.filter(|(index, _)| wanted.get(*index).copied().unwrap_or(false)).flat_map(
            |(index, counts)| {
                counts.iter().enumerate().filter_map(move |(state, flows)| {
                    let state = state_of(lb_common::FlowState::from_bits(state as u64))?;
                    (*flows > 0).then_some((index, state, *flows))
                })
            },
        )
    }

    fn groups(&self, tally: &Tally, wanted: &[bool], by: GroupBy) -> Vec<FlowGroup> {
        let mut groups: HashMap<String, u64> = HashMap::new();
        for (index, state, flows) in self.each(tally, wanted) {
            let Some((service, backend)) = &self.backends[index] else { continue };
            let name = match by {
                GroupBy::Service => service.to_string(),
                GroupBy::State => state.to_string(),
                GroupBy::Backend | GroupBy::Client => format!("{service} {backend}"),
            };
            *groups.entry(name).or_default() += flows;
        }
        sorted(groups.into_iter().map(|(name, flows)| FlowGroup { name, flows }).collect())
    }
}

/// The largest groups of clients, and the flows of all others.
fn largest_clients(clients: Clients, count: usize) -> (Vec<FlowGroup>, u64) {
    let group = |(prefix, flows): (IpAddr, u64)| {
        let bits = if prefix.is_ipv4() { 24 } else { 64 };
        FlowGroup { name: format!("{prefix}/{bits}"), flows }
    };
    let mut groups = sorted(clients.by_prefix.into_iter().map(group).collect());
    let rest = groups.split_off(count.min(groups.len()));
    (groups, clients.rest + rest.iter().map(|group| group.flows).sum::<u64>())
}

/// The largest first, then by name.
fn sorted(mut groups: Vec<FlowGroup>) -> Vec<FlowGroup> {
    groups.sort_unstable_by(|one, two| two.flows.cmp(&one.flows).then_with(|| one.name.cmp(&two.name)));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_groups_come_first_and_the_rest_is_summed() {
        let by_prefix = [([10, 0, 1, 0], 5), ([10, 0, 2, 0], 9), ([10, 0, 3, 0], 1), ([10, 0, 0, 0], 5)];
        let by_prefix = by_prefix.into_iter().map(|(prefix, flows)| (IpAddr::from(prefix), flows)).collect();
        let (groups, rest) = largest_clients(Clients { by_prefix, rest: 100 }, 3);
        let names: Vec<_> = groups.iter().map(|group| (group.name.as_str(), group.flows)).collect();
        assert_eq!(names, [("10.0.2.0/24", 9), ("10.0.0.0/24", 5), ("10.0.1.0/24", 5)]);
        assert_eq!(rest, 101);
    }

    #[test]
    fn ticks_are_a_little_more_than_seconds() {
        assert_eq!([0, 1, 14, 280].map(seconds), [0, 1, 15, 300]);
    }
}
