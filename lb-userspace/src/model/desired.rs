//! The desired state: what the file declares, what the command line has added, and what it overrides.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{AdminState, Service, ServiceName};

/// Everything that the operator wants, by service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Every service, by name.
    pub services: BTreeMap<ServiceName, DesiredService>,
}

/// One service, where it was declared, and what was overridden at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredService {
    /// The service as declared.
    pub service: Service,
    /// Who owns it.
    pub origin: Origin,
    /// What was overridden, by backend.
    pub overrides: BTreeMap<SocketAddr, Override>,
}

impl DesiredService {
    /// The weight in force: the override's, or the declared one. 0 for a backend that is not there.
    #[must_use]
    pub fn weight(&self, backend: SocketAddr) -> u16 {
        let declared = || self.service.backend(backend).map_or(0, |backend| backend.weight);
        self.overrides.get(&backend).and_then(|set| set.weight).unwrap_or_else(declared)
    }

    /// The admin state in force.
    #[must_use]
    pub fn admin_state(&self, backend: SocketAddr) -> AdminState {
        self.overrides.get(&backend).and_then(|set| set.admin_state).unwrap_or(AdminState::Enabled)
    }
}

/// Who owns a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Origin {
    /// The configuration file: only the file can change it.
    File {
        /// The file.
        path: PathBuf,
        /// The line of its `[[service]]`, from 1.
        line: usize,
    },
    /// The command line: it lives in the state directory.
    Cli,
}

/// What an operator has set at run time on one backend; durable until `backend reset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// The weight, in place of the declared one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// The admin state, in place of `enabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_state: Option<AdminState>,
}

impl Override {
    /// Whether nothing is overridden.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
