//! Changes of the desired state: each takes one and makes another, or says why not; nothing is changed in
//! place.
//!
//! A service that the file declares is the file's to change; weight and admin state of a backend may be
//! overridden at run time on any service. An override is kept only where it differs from what is declared.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{
    entry::{BackendEntry, ServiceEntry},
    error::Problem,
    nearest, render, together,
    validate::{validate_service, weight_fault},
};
use crate::{
    agent::command::CommandError,
    api::schema::{BackendChange, NamedBackendChange, ServiceChange},
    model::{
        AdminState, Desired, DesiredService, Limits, Mode, Origin, Override, Scheduler, Service, ServiceName,
    },
};

/// Adds a service made on the command line.
///
/// # Errors
/// Its name or address is taken, it would loop, or it exceeds a limit.
pub fn add_service(desired: &Desired, service: Service, limits: &Limits) -> Result<Desired, CommandError> {
    add_services(desired, vec![service], limits)
}

/// Adds services made on the command line: all, or none.
///
/// # Errors
/// As [`add_service`].
pub fn add_services(
    desired: &Desired,
    services: Vec<Service>,
    limits: &Limits,
) -> Result<Desired, CommandError> {
    let mut added = desired.clone();
    for service in services {
        let name = service.name.clone();
        if let Some(other) = added.services.get(&name) {
            return Err(CommandError::Conflict(already_there(other)));
        }
        let entry = DesiredService { service, origin: Origin::Cli, overrides: BTreeMap::new() };
        added.services.insert(name, entry);
    }
    checked(added, |entry| !desired.services.contains_key(&entry.service.name), limits)
}

fn already_there(entry: &DesiredService) -> String {
    let way_out = match &entry.origin {
        Origin::File { path, line } => {
            format!("it belongs to {} line {line}: choose another name", path.display())
        }
        Origin::Cli => "change it with `flowgate service set`, or choose another name".to_owned(),
    };
    format!("service {} is there already; {way_out}", entry.service.name)
}

/// Changes a service made on the command line: what is absent from `change` stays.
///
/// # Errors
/// There is no such service, it belongs to the file, or the result is not valid.
pub fn set_service(
    desired: &Desired,
    name: &ServiceName,
    change: &ServiceChange,
    limits: &Limits,
) -> Result<Desired, CommandError> {
    let service = &owned(desired, name)?.service;
    let mut entry = render::service_to_entry(service);
    entry.mode = change.mode.or(entry.mode);
    entry.scheduler = change.scheduler.or(entry.scheduler);
    if entry.scheduler != Some(Scheduler::SourceHash) {
        // It went with the scheduler that it was for.
        entry.affinity_prefix = None;
    }
    // So do these with the mode.
    let mode = entry.mode.unwrap_or(service.mode);
    entry.tunnel_port = entry.tunnel_port.filter(|_| mode == Mode::Gue);
    entry.tunnel_dont_fragment = entry.tunnel_dont_fragment.filter(|_| mode.is_tunnel());
    overlay_options(&mut entry, change);
    entry.health = change.health.clone().or(entry.health);
    let service = validate_service(&entry).map_err(|problems| CommandError::Invalid(problems.to_string()))?;
    put(desired, service, limits)
}

fn overlay_options(entry: &mut ServiceEntry, change: &ServiceChange) {
    let options = change.clone();
    entry.affinity_prefix = options.affinity_prefix.or(entry.affinity_prefix.take());
    entry.idle_timeout = options.idle_timeout.or(entry.idle_timeout.take());
    entry.half_open_timeout = options.half_open_timeout.or(entry.half_open_timeout.take());
    entry.closing_timeout = options.closing_timeout.or(entry.closing_timeout.take());
    entry.on_down = options.on_down.or(entry.on_down.take());
    entry.refuse = options.refuse.or(entry.refuse.take());
    entry.answer_ping = options.answer_ping.or(entry.answer_ping.take());
    entry.fragments = options.fragments.or(entry.fragments.take());
    entry.slow_start = options.slow_start.or(entry.slow_start.take());
    entry.panic_threshold = options.panic_threshold.or(entry.panic_threshold.take());
    entry.panic_action = options.panic_action.or(entry.panic_action.take());
    entry.failover_below = options.failover_below.or(entry.failover_below.take());
    entry.tunnel_port = options.tunnel_port.or(entry.tunnel_port.take());
    entry.tunnel_dont_fragment = options.tunnel_dont_fragment.or(entry.tunnel_dont_fragment.take());
}

/// Removes a service made on the command line, and its backends.
///
/// # Errors
/// There is no such service, or it belongs to the file.
pub fn remove_service(desired: &Desired, name: &ServiceName) -> Result<Desired, CommandError> {
    owned(desired, name)?;
    let mut desired = desired.clone();
    desired.services.remove(name);
    Ok(desired)
}

/// Adds a backend to a service made on the command line.
///
/// # Errors
/// There is no such service, it belongs to the file, it has that backend, or the result is not valid.
pub fn add_backend(
    desired: &Desired,
    name: &ServiceName,
    backend: &BackendEntry,
    limits: &Limits,
) -> Result<Desired, CommandError> {
    let service = &owned(desired, name)?.service;
    let mut entry = render::service_to_entry(service);
    let address = backend
        .address
        .parse()
        .ok()
        .map(|ip| SocketAddr::new(ip, backend.port.unwrap_or_else(|| service.address.port())));
    if let Some(there) = address.and_then(|address| service.backend(address)) {
        return Err(CommandError::Conflict(format!(
            "backend {name} {} is there already: change it with `flowgate backend set`",
            there.address
        )));
    }
    entry.backends.push(backend.clone());
    let service = validate_service(&entry).map_err(|problems| CommandError::Invalid(problems.to_string()))?;
    put(desired, service, limits)
}

/// Overrides a backend's weight or admin state, whoever declared it, and changes the rest of one that was made on the
/// command line: what is absent from `change` stays.
///
/// # Errors
/// There is no such service or backend, a value is not valid, or the file has to be changed.
pub fn set_backend(
    desired: &Desired,
    name: &ServiceName,
    backend: SocketAddr,
    change: BackendChange,
) -> Result<Desired, CommandError> {
    let mut desired = desired.clone();
    if change.priority.is_some() || change.max_flows.is_some() {
        desired = redeclare_backend(&desired, name, backend, change)?;
    }
    override_backend(&mut desired, name, backend, change)?;
    Ok(desired)
}

/// [`set_backend`] for several backends of one service: all, or none.
///
/// # Errors
/// As [`set_backend`]; or none is named, or one twice.
pub fn set_backends(
    desired: &Desired,
    name: &ServiceName,
    changes: &[NamedBackendChange],
) -> Result<Desired, CommandError> {
    find(desired, name)?;
    if changes.is_empty() {
        return Err(CommandError::Invalid(format!("service {name}: no backend is named")));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut changed = desired.clone();
    for NamedBackendChange { backend, change } in changes {
        if !seen.insert(*backend) {
            return Err(CommandError::Invalid(format!("backend {name} {backend} is named twice")));
        }
        changed = set_backend(&changed, name, *backend, *change)?;
    }
    Ok(changed)
}

/// Changes what has no override: only a service of the command line can be told so.
fn redeclare_backend(
    desired: &Desired,
    name: &ServiceName,
    backend: SocketAddr,
    change: BackendChange,
) -> Result<Desired, CommandError> {
    let owner = owned(desired, name)?;
    existing(owner, backend)?;
    let mut entry = render::service_to_entry(&owner.service);
    let at = owner.service.backends.iter().position(|known| known.address == backend);
    if let Some(declared) = at.and_then(|at| entry.backends.get_mut(at)) {
        declared.priority = change.priority.or(declared.priority);
        declared.max_flows = change.max_flows.or(declared.max_flows);
    }
    let service = validate_service(&entry).map_err(|problems| CommandError::Invalid(problems.to_string()))?;
    let mut desired = desired.clone();
    if let Some(entry) = desired.services.get_mut(name) {
        entry.service = service;
    }
    Ok(desired)
}

/// [`set_backend`] in place, for a state that is being put together and that nobody has seen yet.
///
/// # Errors
/// As [`set_backend`]; nothing is changed then.
pub(crate) fn override_backend(
    desired: &mut Desired,
    name: &ServiceName,
    backend: SocketAddr,
    change: BackendChange,
) -> Result<(), CommandError> {
    if let Some(fault) = change.weight.and_then(weight_fault) {
        return Err(CommandError::Invalid(format!("backend {name} {backend}: {fault}")));
    }
    change_overrides(desired, name, backend, |set| Override {
        weight: change.weight.or(set.weight),
        admin_state: change.admin_state.or(set.admin_state),
    })
}

/// Ends the overrides of a backend.
///
/// # Errors
/// There is no such service or backend.
pub fn reset_backend(
    desired: &Desired,
    name: &ServiceName,
    backend: SocketAddr,
) -> Result<Desired, CommandError> {
    let mut desired = desired.clone();
    change_overrides(&mut desired, name, backend, |_| Override::default())?;
    Ok(desired)
}

/// Removes a backend from a service made on the command line.
///
/// # Errors
/// There is no such service or backend, or the service belongs to the file.
pub fn remove_backend(
    desired: &Desired,
    name: &ServiceName,
    backend: SocketAddr,
) -> Result<Desired, CommandError> {
    existing(owned(desired, name)?, backend)?;
    let mut desired = desired.clone();
    if let Some(entry) = desired.services.get_mut(name) {
        entry.service.backends.retain(|other| other.address != backend);
        tidy_overrides(entry);
    }
    Ok(desired)
}

/// Puts the services of a file that has been read again in the place of those that it declared before: all,
/// or none.
///
/// Overrides stay with their backends, and end with those that are gone.
///
/// # Errors
/// One clashes with a service made on the command line, or all together exceed a limit.
pub fn replace_file_services(
    desired: &Desired,
    services: Vec<(Service, Origin)>,
    limits: &Limits,
) -> Result<Desired, CommandError> {
    let mut replaced = desired.clone();
    replaced.services.retain(|_, entry| entry.origin == Origin::Cli);
    let mut clashes = Vec::new();
    for (service, origin) in services {
        let name = service.name.clone();
        if let Some(other) = replaced.services.get(&name) {
            clashes.push(name_clash(&name, &origin, &other.origin));
            continue;
        }
        let before = desired.services.get(&name).filter(|entry| entry.origin != Origin::Cli);
        let overrides = before.map(|entry| entry.overrides.clone()).unwrap_or_default();
        let mut entry = DesiredService { service, origin, overrides };
        tidy_overrides(&mut entry);
        replaced.services.insert(name, entry);
    }
    let together = together::check(&replaced, |entry| entry.origin != Origin::Cli, limits);
    clashes.extend(together.iter().map(Problem::to_string));
    if clashes.is_empty() { Ok(replaced) } else { Err(CommandError::Conflict(clashes.join("\n"))) }
}

fn name_clash(name: &ServiceName, origin: &Origin, other: &Origin) -> String {
    let scope = together::scope(name.as_str(), origin);
    let way_out = match other {
        Origin::Cli => format!(
            "a service made on the command line has this name: rename one, or run `flowgate service remove \
             {name}`"
        ),
        Origin::File { path, line } => {
            format!("the name is also that of the service at {} line {line}: choose another", path.display())
        }
    };
    format!("{}: {way_out}", scope.subject())
}

/// Puts a changed service of the command line in place, its overrides kept.
fn put(desired: &Desired, service: Service, limits: &Limits) -> Result<Desired, CommandError> {
    let name = service.name.clone();
    let mut desired = desired.clone();
    if let Some(entry) = desired.services.get_mut(&name) {
        entry.service = service;
        tidy_overrides(entry);
    }
    checked(desired, |entry| entry.service.name == name, limits)
}

/// The state, if nothing in it clashes.
fn checked(
    desired: Desired,
    suspects: impl Fn(&DesiredService) -> bool,
    limits: &Limits,
) -> Result<Desired, CommandError> {
    let clashes = together::check(&desired, suspects, limits);
    if clashes.is_empty() {
        return Ok(desired);
    }
    let lines: Vec<String> = clashes.iter().map(Problem::to_string).collect();
    Err(CommandError::Conflict(lines.join("\n")))
}

fn change_overrides(
    desired: &mut Desired,
    name: &ServiceName,
    backend: SocketAddr,
    change: impl FnOnce(Override) -> Override,
) -> Result<(), CommandError> {
    existing(find(desired, name)?, backend)?;
    if let Some(entry) = desired.services.get_mut(name) {
        let set = entry.overrides.get(&backend).copied().unwrap_or_default();
        entry.overrides.insert(backend, change(set));
        tidy_overrides(entry);
    }
    Ok(())
}

/// Drops overrides of backends that are not there, and what says the same as the declaration.
fn tidy_overrides(entry: &mut DesiredService) {
    let DesiredService { service, overrides, .. } = entry;
    overrides.retain(|address, set| {
        let Some(backend) = service.backend(*address) else { return false };
        set.weight = set.weight.filter(|weight| *weight != backend.weight);
        set.admin_state = set.admin_state.filter(|state| *state != AdminState::Enabled);
        !set.is_empty()
    });
}

/// The service of that name.
///
/// # Errors
/// There is none; the nearest name is given.
pub fn find<'a>(desired: &'a Desired, name: &ServiceName) -> Result<&'a DesiredService, CommandError> {
    desired.services.get(name).ok_or_else(|| {
        let hint = match nearest(name.as_str(), desired.services.keys().map(ServiceName::as_str)) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "`flowgate service list` shows what there is".to_owned(),
        };
        CommandError::NotFound(format!("there is no service {name}: {hint}"))
    })
}

/// The service of that name, where it is not the file's.
fn owned<'a>(desired: &'a Desired, name: &ServiceName) -> Result<&'a DesiredService, CommandError> {
    let entry = find(desired, name)?;
    match &entry.origin {
        Origin::Cli => Ok(entry),
        Origin::File { path, line } => Err(CommandError::Conflict(format!(
            "service {name} belongs to {} line {line}: change it there and run `flowgate config reload`",
            path.display()
        ))),
    }
}

fn existing(entry: &DesiredService, backend: SocketAddr) -> Result<(), CommandError> {
    let service = &entry.service;
    if service.backend(backend).is_some() {
        return Ok(());
    }
    let addresses: Vec<String> = service.backends.iter().map(|backend| backend.address.to_string()).collect();
    // Another port of the same host is what was most likely meant.
    let same_host = service.backends.iter().find(|other| other.address.ip() == backend.ip());
    let same_host = same_host.map(|other| other.address.to_string());
    let name = &service.name;
    let wanted = backend.to_string();
    let hint = match same_host.as_deref().or_else(|| nearest(&wanted, addresses.iter().map(String::as_str))) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("`flowgate backend list {name}` shows what there is"),
    };
    Err(CommandError::NotFound(format!("service {name} has no backend {backend}: {hint}")))
}

#[cfg(test)]
mod tests;
