//! Whose backend a server is (mode `nat`): there before a flow begins, and gone as soon as nobody wants it, so that there
//! is room for others.

use std::{
    collections::{HashMap, HashSet},
    iter,
    net::SocketAddr,
};

use lb_common::{Features, Mode, Server, ServiceKey, server::SERVER_SERVICES};

use super::{Reconciler, WantedBackend, WantedService};
use crate::datapath::{DatapathError, live::LiveService};

/// What names a server in its answers.
fn key_of(service: &ServiceKey, backend: SocketAddr) -> ServiceKey {
    ServiceKey::new(backend.ip().into(), backend.port().to_be_bytes(), service.protocol)
}

/// Every server of services of mode `nat`, once for each service.
fn servers_of(wanted: &[WantedService]) -> impl Iterator<Item = ServiceKey> {
    let services = wanted.iter().filter(|service| service.mode == Mode::Nat);
    services.flat_map(|service| service.backends.iter().map(|backend| key_of(&service.key, backend.address)))
}

/// What the packets of services ask of the program.
#[must_use]
pub fn features_of(wanted: &[WantedService]) -> Features {
    let modes = wanted.iter().fold(Features::NONE, |all, service| all.and(Features::mode(service.mode)));
    let mut seen = HashSet::new();
    let is_shared = servers_of(wanted).any(|server| !seen.insert(server));
    let pings = wanted.iter().any(|service| service.answer_ping);
    let fragments = wanted.iter().any(|service| service.fragments_by_address);
    let asked = |is_asked, feature| if is_asked { feature } else { Features::NONE };
    modes
        .and(asked(is_shared, Features::SHARED_SERVERS))
        .and(asked(pings, Features::ANSWERED_PINGS))
        .and(asked(fragments, Features::FRAGMENTS_BY_ADDRESS))
}

impl Reconciler {
    /// Writes down which services share a server with another, before any new one begins flows there.
    pub(super) fn note_sharers(&mut self, wanted: &[WantedService]) -> Result<(), DatapathError> {
        let mut services: HashMap<ServiceKey, usize> = HashMap::new();
        for key in servers_of(wanted) {
            *services.entry(key).or_default() += 1;
        }
        self.shared_servers =
            services.into_iter().filter(|(_, count)| *count > 1).map(|(key, _)| key).collect();
        for wanted in wanted {
            if let Some(mut service) = self.live.services.remove(&wanted.key) {
                let done = self.change_sources_with_mode(&mut service, wanted);
                if done.is_ok() {
                    self.put_settings(&mut service, wanted);
                }
                self.live.services.insert(wanted.key, service);
                done?;
            }
        }
        Ok(())
    }

    /// Whether a service shares a server with another, or has: flows from then may still be in the other table.
    pub(super) fn shares_servers(&self, service: &LiveService, wanted: &WantedService) -> bool {
        let shared =
            |backend: &WantedBackend| self.shared_servers.contains(&key_of(&wanted.key, backend.address));
        let has_shared = service.features.has(Features::SHARED_SERVERS);
        wanted.mode == Mode::Nat && (has_shared || wanted.backends.iter().any(shared))
    }

    /// Adds a service to each of its servers.
    pub(super) fn put_servers(
        &mut self,
        service: &LiveService,
        wanted: &WantedService,
    ) -> Result<(), DatapathError> {
        if wanted.mode != Mode::Nat {
            return Ok(());
        }
        let index = service.index as u16;
        for backend in &wanted.backends {
            let key = key_of(&wanted.key, backend.address);
            let known = self.live.servers.get(&key).copied().unwrap_or_default();
            if known.services().any(|service| service == index) {
                continue;
            }
            let server = Server::of(known.services().chain(iter::once(index))).ok_or_else(|| {
                DatapathError::Refused(format!(
                    "{} is a backend of more than {SERVER_SERVICES} services of mode nat: use mode full-nat for some",
                    backend.address
                ))
            })?;
            self.set_server(key, server)?;
        }
        Ok(())
    }

    /// Takes services off servers that are not their backends any more.
    pub(super) fn forget_servers(&mut self, wanted: &[WantedService]) -> Result<(), DatapathError> {
        let mut servers: HashMap<ServiceKey, Vec<u16>> = HashMap::new();
        for service in wanted.iter().filter(|service| service.mode == Mode::Nat) {
            let Some(live) = self.live.services.get(&service.key) else { continue };
            for backend in &service.backends {
                servers.entry(key_of(&service.key, backend.address)).or_default().push(live.index as u16);
            }
        }
        let surplus = self.live.servers.iter().filter_map(|(key, server)| {
            let wanted = servers.get(key).map_or(&[][..], Vec::as_slice);
            let kept = Server::of(server.services().filter(|service| wanted.contains(service)));
            kept.filter(|kept| kept != server).map(|kept| (*key, kept))
        });
        for (key, server) in surplus.collect::<Vec<_>>() {
            self.set_server(key, server)?;
        }
        Ok(())
    }

    fn set_server(&mut self, key: ServiceKey, server: Server) -> Result<(), DatapathError> {
        self.tables.set_server(&key, server)?;
        if server == Server::default() {
            self.live.servers.remove(&key);
        } else {
            self.live.servers.insert(key, server);
        }
        Ok(())
    }
}
