//! What the agent knows, in the words of the API.

use std::time::Instant;

use lb_common::{Reason, abi};

use super::{
    command::{Answer, CommandError},
    controller::Controller,
    facts::Standing,
    plan::key_of,
};
use crate::{
    api::schema::{
        AgentStatus, BackendRow, FlowTotals, NextHopView, ReasonRow, ServiceDetail, ServiceRow,
        ServiceTotals, Stats, Status, TableRow,
    },
    config::{edit::find, render::health_to_entry, validate::format_duration},
    datapath::stats::flow_totals,
    model::{Backend, DesiredService, ServiceName},
    neigh::Mac,
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
            idle_timeout: format_duration(entry.service.idle_timeout),
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
        let standing = |backend: &Backend| self.facts.standing(&self.desired, entry, backend.address);
        let standings: Vec<_> =
            entry.service.backends.iter().map(|backend| (*backend, standing(backend))).collect();
        let on_ring = |standing: &Standing| if standing.is_active() { u32::from(standing.weight) } else { 0 };
        let total: u32 = standings.iter().map(|(_, standing)| on_ring(standing)).sum();
        let share = |standing: &Standing| f64::from(on_ring(standing)) / f64::from(total.max(1));
        standings
            .into_iter()
            .map(|(backend, standing)| {
                let share = share(&standing);
                self.backend_row(entry, &backend, standing, share)
            })
            .collect()
    }

    fn backend_row(
        &self,
        entry: &DesiredService,
        backend: &Backend,
        standing: Standing,
        share: f64,
    ) -> Answer<BackendRow> {
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
            health: standing.health,
            active: standing.is_active(),
            health_reason: standing.reason,
            admin_state: standing.admin_state,
            overridden: entry.overrides.contains_key(&backend.address),
            share,
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

fn format_mac(mac: Mac) -> String {
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
