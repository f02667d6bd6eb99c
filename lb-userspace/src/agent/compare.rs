//! `config diff`: what a file would change, and whom that would move.

use std::{net::SocketAddr, path::Path, time::Instant};

use super::{command::Answer, controller::Controller, placements::candidate_of, plan::key_of};
use crate::{
    agent::command::CommandError,
    api::schema::{BackendShift, ConfigDiff, ConfigText, ServiceShift},
    config::{
        diff::{Change, diff},
        edit, validate,
    },
    model::{AdminState, Backend, Desired, DesiredService, Health, OnDown, ServiceName},
    placement::{Candidate, Placement, Policy, place},
};

impl Controller {
    /// What would be changed if the file had this text. Nothing is.
    pub(super) fn config_diff(&mut self, proposed: &ConfigText) -> Answer<ConfigDiff> {
        let config = validate::read(&proposed.text, Path::new(&proposed.path))
            .map_err(|problems| CommandError::Invalid(problems.to_string()))?;
        let wanted = edit::replace_file_services(&self.desired, config.services, &self.limits)?;
        let changes = diff(&self.desired, &wanted);
        let mut touched: Vec<&ServiceName> = changes.iter().map(Change::service).collect();
        touched.dedup();
        // Who decides by these numbers is not told of a moment ago.
        self.meter.forget_counts();
        self.meter.counts(&self.datapath.maps, Instant::now());
        let services: Vec<_> = touched.into_iter().map(|name| self.shift(name, &wanted)).collect();
        Ok(ConfigDiff {
            changes: changes.iter().map(ToString::to_string).collect(),
            flows_moved: services.iter().map(|service| service.flows_moved).sum(),
            services,
        })
    }

    fn shift(&self, name: &ServiceName, wanted: &Desired) -> ServiceShift {
        let (before, after) = (self.desired.services.get(name), wanted.services.get(name));
        // Flows of another mode are in another table, or look otherwise to their backends.
        let same_place = before.zip(after).is_some_and(|(before, after)| {
            let (before, after) = (&before.service, &after.service);
            key_of(before) == key_of(after) && before.mode == after.mode
        });
        let placed_before = before.map(|_| self.placements.of(name));
        let placed_after = after.map(|entry| self.placed(wanted, entry));
        let part = |placement: &Option<Placement>, backend| {
            let placement = placement.as_ref()?;
            placement.share(backend).map(|share| placement.part_of_new_flows(share))
        };
        let mut backends: Vec<_> = [before, after].into_iter().flatten().flat_map(addresses).collect();
        backends.sort_unstable();
        backends.dedup();
        let backends: Vec<_> = backends
            .into_iter()
            .map(|backend| {
                let flows = before.map_or(0, |entry| {
                    self.meter.flows_of(&self.datapath.maps, &key_of(&entry.service), backend)
                });
                let stays = same_place && after.is_some_and(|entry| self.keeps_flows(wanted, entry, backend));
                BackendShift {
                    backend,
                    share_before: part(&placed_before, backend),
                    share_after: part(&placed_after, backend),
                    flows,
                    flows_moved: if stays { 0 } else { flows },
                }
            })
            .collect();
        ServiceShift {
            service: name.clone(),
            flows_moved: backends.iter().map(|backend| backend.flows_moved).sum(),
            backends,
        }
    }
}

impl Controller {
    /// Whether flows of a backend stay where they are: it is still there, not disabled, and not one that is down in a
    /// service that lets go of such flows.
    fn keeps_flows(&self, wanted: &Desired, entry: &DesiredService, backend: SocketAddr) -> bool {
        let standing = self.facts.standing(wanted, entry, backend);
        let is_left = standing.health == Health::Down && entry.service.on_down != OnDown::Keep;
        entry.service.backend(backend).is_some() && standing.admin_state != AdminState::Disabled && !is_left
    }

    /// What would be decided for a service, health being what it is; backends that nobody has probed yet are taken for
    /// up.
    fn placed(&self, wanted: &Desired, entry: &DesiredService) -> Placement {
        let candidate = |backend: &Backend| {
            let standing = self.facts.standing(wanted, entry, backend.address);
            let candidate = candidate_of(backend, &standing);
            if standing.health == Health::Checking {
                return Candidate { health: Health::Up, is_reachable: true, ..candidate };
            }
            candidate
        };
        let candidates: Vec<_> = entry.service.backends.iter().map(candidate).collect();
        place(&candidates, &Policy::from(&entry.service), &self.placements.of(&entry.service.name))
    }
}

fn addresses(entry: &DesiredService) -> impl Iterator<Item = SocketAddr> + '_ {
    entry.service.backends.iter().map(|backend| backend.address)
}
