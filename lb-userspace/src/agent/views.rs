//! What the agent knows, in the words of the API.

use std::time::Instant;

use lb_common::{Reason, abi};

use super::{
    command::{Answer, CommandError},
    controller::Controller,
    plan::key_of,
};
use crate::{
    api::schema::{
        AgentStatus, BackendRow, FlowTotals, NextHopView, ReasonRow, ServiceDetail, ServiceRow,
        ServiceTotals, Stats, Status, TableRow,
    },
    config::{
        edit::find,
        render::{health_to_entry, service_to_options},
    },
    datapath::stats::flow_totals,
    model::{Backend, DesiredService, ServiceName},
    neigh::Mac,
    placement::{Placement, Share, WHOLE},
};

impl Controller {
    pub(super) fn status(&mut self) -> Answer<Status> {
        let services = self.service_rows()?;
        Ok(Status {
            agent: AgentStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                abi: abi::VERSION,
                pid: std::process::id(),
                uptime_seconds: self.started.elapsed().as_secs(),
                adopted: self.datapath.adopted,
                config: self.config_path.as_ref().map(|path| path.display().to_string()),
                pin_dir: self.settings.pin_dir.display().to_string(),
            },
            interfaces: self.interfaces.status(&self.datapath.maps),
            findings: self.findings(),
            services,
        })
    }

    pub(super) fn stats(&mut self) -> Answer<Stats> {
        let mut reasons = Vec::new();
        for interface in self.interfaces.iter() {
            let Some(attached) = interface.attached else { continue };
            let packets = self.datapath.maps.packets(attached.slot).map_err(failed)?;
            let row = |(reason, packets): (Reason, u64)| ReasonRow {
                interface: interface.settings.name.clone(),
                reason: reason.label().to_owned(),
                verdict: reason.verdict().as_str().to_owned(),
                packets,
            };
            reasons.extend(packets.into_iter().map(row));
        }
        let (steered, translated) = {
            let counts = self.meter.counts(&self.datapath.maps, Instant::now());
            (counts.steered, counts.translated)
        };
        let (steered_slots, translated_slots) = self.datapath.maps.flow_tables().slots();
        let table = |table: &str, slots, used| TableRow { table: table.to_owned(), slots, used };
        let services = self.desired.services.values().map(|entry| {
            Ok(ServiceTotals { service: entry.service.name.clone(), totals: self.service_totals(entry)? })
        });
        Ok(Stats {
            reasons,
            tables: vec![
                table("steered", steered_slots, steered),
                table("translated", translated_slots, translated),
            ],
            services: services.collect::<Answer<_>>()?,
        })
    }

    pub(super) fn service_rows(&mut self) -> Answer<Vec<ServiceRow>> {
        self.meter.counts(&self.datapath.maps, Instant::now());
        self.desired.services.values().map(|entry| self.service_row(entry)).collect()
    }

    pub(super) fn service_detail(&mut self, name: &ServiceName) -> Answer<ServiceDetail> {
        self.meter.counts(&self.datapath.maps, Instant::now());
        let entry = find(&self.desired, name)?;
        Ok(ServiceDetail {
            row: self.service_row(entry)?,
            options: service_to_options(&entry.service),
            priorities: self.placements.of(name).priorities.into_iter().collect(),
            panic: self.placements.of(name).panic,
            health_check: health_to_entry(&entry.service.health),
            ring_slots: self.datapath.maps.ring_slots(&key_of(&entry.service)),
            backend: self.rows_of(entry)?,
        })
    }

    pub(super) fn backend_rows(&mut self, service: Option<&ServiceName>) -> Answer<Vec<BackendRow>> {
        self.meter.counts(&self.datapath.maps, Instant::now());
        match service {
            Some(name) => self.rows_of(find(&self.desired, name)?),
            None => {
                let rows: Answer<Vec<_>> =
                    self.desired.services.values().map(|entry| self.rows_of(entry)).collect();
                Ok(rows?.into_iter().flatten().collect())
            }
        }
    }

    fn service_row(&self, entry: &DesiredService) -> Answer<ServiceRow> {
        let service = &entry.service;
        let key = key_of(service);
        let maps = &self.datapath.maps;
        let up = service
            .backends
            .iter()
            .filter(|backend| self.facts.standing(&self.desired, entry, backend.address).is_active());
        Ok(ServiceRow {
            name: service.name.clone(),
            address: service.address.ip(),
            port: service.address.port(),
            protocol: service.protocol,
            mode: service.mode,
            scheduler: service.scheduler,
            origin: entry.origin.clone(),
            backends_up: up.count(),
            backends: service.backends.len(),
            flows: service
                .backends
                .iter()
                .map(|backend| self.meter.flows_of(maps, &key, backend.address))
                .sum(),
            totals: self.service_totals(entry)?,
            rates: self.meter.rates(&key),
        })
    }

    fn service_totals(&self, entry: &DesiredService) -> Answer<FlowTotals> {
        let counters = self.datapath.maps.service_counters(&key_of(&entry.service)).map_err(failed)?;
        Ok(flow_totals(&counters))
    }

    fn rows_of(&self, entry: &DesiredService) -> Answer<Vec<BackendRow>> {
        let placement = self.placements.of(&entry.service.name);
        entry
            .service
            .backends
            .iter()
            .map(|backend| self.backend_row(entry, backend, placement.share(backend.address), &placement))
            .collect()
    }

    fn backend_row(
        &self,
        entry: &DesiredService,
        backend: &Backend,
        placed: Option<&Share>,
        placement: &Placement,
    ) -> Answer<BackendRow> {
        let standing = self.facts.standing(&self.desired, entry, backend.address);
        let service = &entry.service;
        let key = key_of(service);
        let maps = &self.datapath.maps;
        let counters = maps.backend_counters(&key, backend.address).map_err(failed)?;
        let since = self.standings.get(&(service.name.clone(), backend.address)).map(|(_, since)| *since);
        Ok(BackendRow {
            service: service.name.clone(),
            address: backend.address.ip(),
            port: backend.address.port(),
            weight: standing.weight,
            priority: backend.priority,
            max_flows: (backend.max_flows > 0).then_some(backend.max_flows),
            slow_start: f64::from(placed.map_or(WHOLE, |placed| placed.ramp_permille)) / f64::from(WHOLE),
            health: standing.health,
            active: placed.is_some_and(|placed| placed.ring_weight > 0),
            health_reason: standing.reason,
            admin_state: standing.admin_state,
            overridden: entry.overrides.contains_key(&backend.address),
            share: placed.map_or(0.0, |placed| placement.part_of_new_flows(placed)),
            next_hop: standing.next_hop.map(|(way, _)| NextHopView {
                interface: way.interface,
                address: way.gateway,
                mac: format_mac(way.mac),
            }),
            flows: self.meter.flows_of(maps, &key, backend.address),
            totals: flow_totals(&counters),
            health_since_seconds: since.map_or(0, |since| since.elapsed().as_secs()),
        })
    }
}

pub(super) fn format_mac(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn failed(error: impl std::fmt::Display) -> CommandError {
    CommandError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn mac_addresses_are_written_as_everywhere() {
        assert_eq!(super::format_mac([2, 0, 0, 0xab, 0xcd, 0xef]), "02:00:00:ab:cd:ef");
    }
}
