//! The state directory: what the command line has made and overridden, on disk before it is acknowledged.
//!
//! `state.json` is replaced whole (write aside, fsync, rename, fsync of the directory), and what it was stays
//! as `state.json.previous`. At every moment there is one that can be read.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::command::CommandError;
use crate::{
    api::schema::BackendChange,
    config::{edit, entry::ServiceEntry, render::service_to_entry, validate::validate_service},
    model::{AdminState, Desired, Limits, Origin, Service, ServiceName},
};

/// The format that is written, and the newest that is read.
const FORMAT: u32 = 1;
const CURRENT: &str = "state.json";
const PREVIOUS: &str = "state.json.previous";
/// A file that could not be read is kept under this name when a new one takes its place.
const UNREADABLE: &str = "state.json.unreadable";
const NEW: &str = "state.json.new";
const LINK: &str = "state.json.link";

/// What `state.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateFile {
    /// 1.
    pub format: u32,
    /// The services made on the command line.
    pub services: Vec<ServiceEntry>,
    /// What was overridden, on services of any origin.
    pub overrides: Vec<OverrideEntry>,
}

/// What was overridden on one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverrideEntry {
    /// The service.
    pub service: ServiceName,
    /// The backend.
    pub backend: SocketAddr,
    /// The weight, where it is overridden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// The admin state, where it is overridden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_state: Option<AdminState>,
}

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file cannot be used.
    #[error(
        "{path}: {reason}: put a good copy in its place, or remove it to begin with no services from the \
         command line"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The system refused.
    #[error("{path}: cannot {action}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        cause: io::Error,
    },
}

/// A state that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The state.
    pub state: StateFile,
    /// Set where `state.json` could not be used, so that this is the one before it: what is wrong and what to
    /// do.
    pub warning: Option<String>,
}

/// Reads the state; none where there is no `state.json`.
///
/// # Errors
/// `state.json` is there and cannot be used, and neither can the one before it.
pub fn load(dir: &Path) -> Result<Option<Loaded>, StateError> {
    let error = match read(&dir.join(CURRENT)) {
        Ok(state) => return Ok(state.map(|state| Loaded { state, warning: None })),
        Err(error) => error,
    };
    let previous = dir.join(PREVIOUS);
    match read(&previous) {
        Ok(Some(state)) => {
            let warning =
                format!("{error} (going on with {}, which lacks the last change)", previous.display());
            Ok(Some(Loaded { state, warning: Some(warning) }))
        }
        Ok(None) | Err(_) => Err(error),
    }
}

fn read(path: &Path) -> Result<Option<StateFile>, StateError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(StateError::Io { path: path.to_owned(), action: "read it", cause }),
    };
    parse(&text).map(Some).map_err(|reason| StateError::Unreadable { path: path.to_owned(), reason })
}

fn parse(text: &[u8]) -> Result<StateFile, String> {
    #[derive(Deserialize)]
    struct Header {
        format: u32,
    }
    // The format first: a newer one may have a shape that is not known here.
    let damaged = |cause: serde_json::Error| format!("damaged ({cause})");
    let header: Header = serde_json::from_slice(text).map_err(damaged)?;
    if header.format != FORMAT {
        let format = header.format;
        return Err(format!("has format {format}, and this version of flowgate reads format {FORMAT}"));
    }
    serde_json::from_slice(text).map_err(damaged)
}

/// Writes the state; once it returns, it is on disk. Makes the directory where there is none.
///
/// # Errors
/// The system refused; what was there before is still there.
pub fn save(dir: &Path, state: &StateFile) -> Result<(), StateError> {
    let failed = |name: &str, action| {
        let path = dir.join(name);
        move |cause| StateError::Io { path, action, cause }
    };
    DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(failed("", "make the directory"))?;
    let mut text = serde_json::to_vec_pretty(state).map_err(|cause| failed(NEW, "write it")(cause.into()))?;
    text.push(b'\n');
    write_new(&dir.join(NEW), &text).map_err(failed(NEW, "write it"))?;
    keep_current(dir).map_err(failed(PREVIOUS, "keep the previous state"))?;
    fs::rename(dir.join(NEW), dir.join(CURRENT)).map_err(failed(CURRENT, "replace it"))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("", "sync the directory"))
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    remove(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Gives `state.json` a second name, so that it outlives being replaced. One that cannot be read does not
/// push out the one before it.
fn keep_current(dir: &Path) -> io::Result<()> {
    let current = dir.join(CURRENT);
    let name = match read(&current) {
        Ok(None) => return Ok(()),
        Ok(Some(_)) => PREVIOUS,
        Err(_) => UNREADABLE,
    };
    let link = dir.join(LINK);
    remove(&link)?;
    fs::hard_link(&current, &link)?;
    fs::rename(&link, dir.join(name))?;
    // rename(2) does nothing where both names are one file already, as after a crash right behind it.
    remove(&link)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

impl StateFile {
    /// What of the desired state is to be kept. `left_out` is what [`StateFile::restore`] could not put in
    /// place: it stays in the file until the operator decides.
    #[must_use]
    pub fn of(desired: &Desired, left_out: &[ServiceEntry]) -> Self {
        let made = desired.services.values().filter(|entry| entry.origin == Origin::Cli);
        let services =
            made.map(|entry| service_to_entry(&entry.service)).chain(left_out.iter().cloned()).collect();
        let overrides = desired.services.values().flat_map(|entry| {
            entry.overrides.iter().map(|(backend, set)| OverrideEntry {
                service: entry.service.name.clone(),
                backend: *backend,
                weight: set.weight,
                admin_state: set.admin_state,
            })
        });
        Self { format: FORMAT, services, overrides: overrides.collect() }
    }

    /// Puts the services of the command line beside those of the file, and the overrides upon both. What does
    /// not fit is left out, with a warning each: an agent that starts with most services is better than one
    /// that does not.
    ///
    /// # Errors
    /// The file's services by themselves exceed the limits or clash.
    pub fn restore(&self, file: Vec<(Service, Origin)>, limits: &Limits) -> Result<Restored, CommandError> {
        let desired = edit::replace_file_services(&Desired::default(), file, limits)?;
        let mut restored = Restored { desired, left_out: Vec::new(), warnings: Vec::new() };
        restored.add_services(&self.services, limits);
        for entry in &self.overrides {
            let change = BackendChange {
                weight: entry.weight,
                admin_state: entry.admin_state,
                ..BackendChange::default()
            };
            if let Err(reason) =
                edit::override_backend(&mut restored.desired, &entry.service, entry.backend, change)
            {
                restored.warnings.push(format!("an override has ended: {reason}"));
            }
        }
        Ok(restored)
    }
}

/// The desired state as it was, as far as it still fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The desired state.
    pub desired: Desired,
    /// Services of the command line that do not fit; for [`StateFile::of`].
    pub left_out: Vec<ServiceEntry>,
    /// What does not fit, and why.
    pub warnings: Vec<String>,
}

impl Restored {
    fn add_services(&mut self, entries: &[ServiceEntry], limits: &Limits) {
        let valid: Result<Vec<Service>, _> = entries.iter().map(validate_service).collect();
        if let Some(Ok(desired)) = valid.ok().map(|all| edit::add_services(&self.desired, all, limits)) {
            self.desired = desired;
            return;
        }
        // One by one, to find those that do not fit.
        for entry in entries {
            let service =
                validate_service(entry).map_err(|problems| CommandError::Invalid(problems.to_string()));
            match service.and_then(|service| edit::add_service(&self.desired, service, limits)) {
                Ok(desired) => self.desired = desired,
                Err(reason) => {
                    let name = &entry.name;
                    self.warnings
                        .push(format!("service {name}, made on the command line, is left out: {reason}"));
                    self.left_out.push(entry.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
