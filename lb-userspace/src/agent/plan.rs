//! What the data plane is to do, from what is wanted and what is true. Pure.

use std::time::Duration;

use lb_common::{
    Addr, NextHop, ServiceKey, Timeouts, TunnelOptions, life::ticks_of_ms, service, tunnel::DontFragment,
};

use super::{
    facts::{Facts, Standing},
    placements::Placements,
};
use crate::{
    datapath::apply::{WantedBackend, WantedService},
    model::{
        AdminState, Backend, Desired, DesiredService, Fragments, Health, Mode, OnDown, Protocol, Refuse,
        Scheduler, Service, TunnelDontFragment,
    },
    placement::{Share, WHOLE},
    ring,
};

/// Every service as the data plane is to have it.
pub(super) fn plan(desired: &Desired, facts: &Facts, placements: &Placements) -> Vec<WantedService> {
    desired.services.values().map(|entry| plan_service(desired, facts, placements, entry)).collect()
}

fn mode_of(mode: Mode) -> lb_common::Mode {
    match mode {
        Mode::FullNat => lb_common::Mode::FullNat,
        Mode::Nat => lb_common::Mode::Nat,
        Mode::Dsr => lb_common::Mode::Dsr,
        Mode::Ipip => lb_common::Mode::Ipip,
        Mode::Gue => lb_common::Mode::Gue,
    }
}

fn tunnel_of(service: &Service) -> TunnelOptions {
    let dont_fragment = match service.tunnel_dont_fragment {
        TunnelDontFragment::Copy => DontFragment::Copy,
        TunnelDontFragment::Set => DontFragment::Set,
        TunnelDontFragment::Clear => DontFragment::Clear,
    };
    TunnelOptions::new(service.tunnel_port, dont_fragment)
}

/// What names a service in packets.
pub(super) fn key_of(service: &Service) -> ServiceKey {
    let protocol = match service.protocol {
        Protocol::Tcp => service::PROTOCOL_TCP,
        Protocol::Udp => service::PROTOCOL_UDP,
    };
    ServiceKey::new(Addr::from(service.address.ip()), service.address.port().to_be_bytes(), protocol)
}

fn plan_service(
    desired: &Desired,
    facts: &Facts,
    placements: &Placements,
    entry: &DesiredService,
) -> WantedService {
    let service = &entry.service;
    let placement = placements.of(&service.name);
    let backends = service.backends.iter().map(|backend| {
        let standing = facts.standing(desired, entry, backend.address);
        plan_backend(service, backend, standing, placement.share(backend.address))
    });
    WantedService {
        key: key_of(service),
        mode: mode_of(service.mode),
        scheduler: match service.scheduler {
            Scheduler::Maglev => lb_common::Scheduler::Maglev,
            Scheduler::SourceHash => lb_common::Scheduler::SourceHash,
            Scheduler::RoundRobin => lb_common::Scheduler::RoundRobin,
            Scheduler::LeastConn => lb_common::Scheduler::LeastConn,
        },
        affinity_bits: service.affinity_prefix.unwrap_or(if service.address.is_ipv4() { 32 } else { 128 }),
        timeouts: timeouts_of(service),
        reject: service.refuse == Refuse::Reject,
        answer_ping: service.answer_ping,
        fragments_by_address: service.fragments == Fragments::ByAddress,
        tunnel: tunnel_of(service),
        // By all backends, not those that are up: health must not change a ring's size, which moves flows.
        ring_slots: ring::size(service.backends.iter().map(|backend| backend.weight)),
        backends: backends.collect(),
    }
}

fn plan_backend(
    service: &Service,
    backend: &Backend,
    standing: Standing,
    share: Option<&Share>,
) -> WantedBackend {
    let is_down = standing.health != Health::Up && !share.is_some_and(|share| share.in_spite_of_health);
    // Without a verdict flows that have begun are left alone, whatever the service wants of those of the dead.
    let is_dead = is_down && standing.health == Health::Down;
    let moves = is_dead && service.on_down == OnDown::Rehash;
    WantedBackend {
        address: backend.address,
        usable: standing.admin_state != AdminState::Disabled && !moves,
        down: is_down,
        reset: is_dead && service.on_down == OnDown::Reset,
        ring_weight: share.map_or(0, |share| share.ring_weight),
        ramp_permille: share.map_or(WHOLE, |share| share.ramp_permille),
        max_flows: backend.max_flows,
        next_hop: next_hop_of(&standing),
        sources: standing.sources.addresses,
        source_host_bits: standing.sources.host_bits,
    }
}

/// When a service's flows are forgotten. A connection of which one side has ended goes on for the other.
fn timeouts_of(service: &Service) -> Timeouts {
    let ticks = |timeout: Duration| ticks_of_ms(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    let idle = ticks(service.idle_timeout);
    Timeouts::new(idle, ticks(service.half_open_timeout), ticks(service.closing_timeout), idle)
}

fn next_hop_of(standing: &Standing) -> Option<NextHop> {
    standing.next_hop.as_ref().map(|(way, slot)| NextHop {
        destination_mac: way.mac,
        source_mac: way.source_mac,
        interface_slot: *slot as u16,
        // What is larger than the largest packet is no bound.
        mtu: u16::try_from(way.mtu).unwrap_or(u16::MAX),
    })
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
