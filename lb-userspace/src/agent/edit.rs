//! Commands that change the desired state: valid first, then on disk, then in the maps, then acknowledged.

use std::net::SocketAddr;

use tracing::{error, info};

use super::{
    command::{Answer, CommandError},
    controller::Controller,
    state::{self, StateFile},
};
use crate::{
    api::schema::{BackendChange, BackendsChange, Changed, ServiceChange},
    config::{
        diff::diff,
        edit,
        entry::{BackendEntry, ServiceEntry},
        validate::validate_service,
    },
    model::{Desired, ServiceName},
};

impl Controller {
    pub(super) fn service_add(&mut self, entry: &ServiceEntry) -> Answer<Changed> {
        let service =
            validate_service(entry).map_err(|problems| CommandError::Invalid(problems.to_string()))?;
        self.change_to(edit::add_service(&self.desired, service, &self.limits)?)
    }

    pub(super) fn service_set(&mut self, name: &ServiceName, change: &ServiceChange) -> Answer<Changed> {
        self.change_to(edit::set_service(&self.desired, name, change, &self.limits)?)
    }

    pub(super) fn service_remove(&mut self, name: &ServiceName) -> Answer<Changed> {
        self.change_to(edit::remove_service(&self.desired, name)?)
    }

    pub(super) fn backend_add(&mut self, service: &ServiceName, entry: &BackendEntry) -> Answer<Changed> {
        self.change_to(edit::add_backend(&self.desired, service, entry, &self.limits)?)
    }

    pub(super) fn backend_set(
        &mut self,
        service: &ServiceName,
        backend: SocketAddr,
        change: BackendChange,
    ) -> Answer<Changed> {
        self.change_to(edit::set_backend(&self.desired, service, backend, change)?)
    }

    pub(super) fn backends_set(&mut self, service: &ServiceName, change: &BackendsChange) -> Answer<Changed> {
        self.change_to(edit::set_backends(&self.desired, service, &change.backends)?)
    }

    pub(super) fn backend_reset(&mut self, service: &ServiceName, backend: SocketAddr) -> Answer<Changed> {
        self.change_to(edit::reset_backend(&self.desired, service, backend)?)
    }

    pub(super) fn backend_remove(&mut self, service: &ServiceName, backend: SocketAddr) -> Answer<Changed> {
        self.change_to(edit::remove_backend(&self.desired, service, backend)?)
    }

    /// Makes `wanted` the desired state, or leaves everything as it was.
    pub(super) fn change_to(&mut self, wanted: Desired) -> Answer<Changed> {
        let changes: Vec<_> = diff(&self.desired, &wanted).iter().map(ToString::to_string).collect();
        if changes.is_empty() {
            // What a reload moves from one line to another is no change to anybody but us.
            self.desired = wanted;
            return Ok(Changed::default());
        }
        self.save(&wanted)?;
        let before = std::mem::replace(&mut self.desired, wanted);
        self.watch();
        if let Err(problem) = self.apply() {
            self.take_back(before);
            return Err(CommandError::Failed(format!("{problem}; nothing was changed")));
        }
        self.meter.forget_counts();
        for change in &changes {
            info!(change, "changed");
        }
        Ok(Changed { changes })
    }

    fn save(&self, desired: &Desired) -> Answer<()> {
        let file = StateFile::of(desired, &self.left_out);
        let saved = tokio::task::block_in_place(|| state::save(&self.settings.state_dir, &file));
        saved.map_err(|problem| {
            CommandError::Failed(format!(
                "{problem}; nothing was changed, since it would not survive a restart"
            ))
        })
    }

    fn take_back(&mut self, before: Desired) {
        self.desired = before;
        self.watch();
        if let Err(problem) = self.save(&self.desired) {
            error!(%problem, "the state on disk is that of a change that was taken back");
        }
        self.apply_or_log();
    }
}
