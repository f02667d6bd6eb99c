//! What the data plane is to do, from what is wanted and what is true. Pure.

use lb_common::{
    Addr, NextHop, ServiceKey, Timeouts,
    life::{CLOSING_TICKS, HALF_OPEN_TICKS, ticks_of_ms},
    service,
};

use super::facts::{Facts, Standing};
use crate::{
    datapath::apply::{WantedBackend, WantedService},
    model::{AdminState, Desired, DesiredService, Health, Mode, Protocol, Scheduler, Service},
    ring,
};

/// Every service as the data plane is to have it.
pub(super) fn plan(desired: &Desired, facts: &Facts) -> Vec<WantedService> {
    desired.services.values().map(|entry| plan_service(desired, facts, entry)).collect()
}

/// What names a service in packets.
pub(super) fn key_of(service: &Service) -> ServiceKey {
    let protocol = match service.protocol {
        Protocol::Tcp => service::PROTOCOL_TCP,
        Protocol::Udp => service::PROTOCOL_UDP,
    };
    ServiceKey::new(Addr::from(service.address.ip()), service.address.port().to_be_bytes(), protocol)
}

fn plan_service(desired: &Desired, facts: &Facts, entry: &DesiredService) -> WantedService {
    let service = &entry.service;
    let backends = service.backends.iter().map(|backend| {
        let standing = facts.standing(desired, entry, backend.address);
        WantedBackend {
            address: backend.address,
            usable: standing.admin_state != AdminState::Disabled,
            down: standing.health != Health::Up,
            reset: false,
            ring_weight: if standing.is_active() { standing.weight } else { 0 },
            ramp_permille: 1000,
            max_flows: 0,
            next_hop: next_hop_of(&standing),
            sources: standing.sources,
        }
    });
    WantedService {
        key: key_of(service),
        mode: match service.mode {
            Mode::FullNat => lb_common::Mode::FullNat,
            Mode::Dsr => lb_common::Mode::Dsr,
        },
        scheduler: match service.scheduler {
            Scheduler::Maglev => lb_common::Scheduler::Maglev,
        },
        affinity_bits: if service.address.is_ipv4() { 32 } else { 128 },
        timeouts: timeouts_of(service),
        reject: false,
        // By all backends, not those that are up: health must not change a ring's size, which moves flows.
        ring_slots: ring::size(service.backends.len()),
        backends: backends.collect(),
    }
}

/// When a service's flows are forgotten. dsr does not see the server's FIN: there a client's ends the flow.
fn timeouts_of(service: &Service) -> Timeouts {
    let idle = ticks_of_ms(u64::try_from(service.idle_timeout.as_millis()).unwrap_or(u64::MAX));
    Timeouts::new(idle, HALF_OPEN_TICKS, CLOSING_TICKS, idle)
}

fn next_hop_of(standing: &Standing) -> Option<NextHop> {
    standing.next_hop.as_ref().map(|(way, slot)| NextHop {
        destination_mac: way.mac,
        source_mac: way.source_mac,
        interface_slot: *slot,
    })
}

#[cfg(test)]
mod tests;
