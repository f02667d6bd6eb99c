//! Entries to model: the only place that makes the model from what others wrote.
//!
//! All problems are collected, so that one look at the answer is enough to mend a file.

mod address;
mod agent;
mod duration;
mod fragments;
mod health;
mod limits;
mod options;
mod service;
mod tunnel;

use std::path::Path;

use super::{
    document::{Document, Lines},
    entry::{FileEntry, ServiceEntry},
    error::{ConfigError, Problems, Scope},
    parse::parse,
    together::{Claim, clashes},
};
use crate::model::{Config, Origin, Service};

pub use duration::format_duration;
pub(super) use service::weight_fault;

/// Reads and validates the text of the file at `path`.
///
/// # Errors
/// See [`parse`] and [`validate_file`].
pub fn read(text: &str, path: &Path) -> Result<Config, ConfigError> {
    Ok(validate_file(&parse(text, path)?, text, path)?)
}

/// Validates one service by itself; what it means beside others is for `config::edit` to say.
///
/// # Errors
/// Everything that is not valid.
pub fn validate_service(entry: &ServiceEntry) -> Result<Service, Problems> {
    let mut problems = Problems::default();
    let scope = Scope::service(&entry.name, None, None);
    match service::validate(entry, &scope, &mut problems).service {
        Some(service) if problems.is_empty() => Ok(service),
        _ => Err(problems),
    }
}

/// Validates what [`parse`] made of `text`: each part by itself, and all services together.
///
/// No interfaces are well: the command line may name them.
///
/// # Errors
/// Everything that is not valid, in the order of the file.
pub fn validate_file(entry: &FileEntry, text: &str, path: &Path) -> Result<Config, Problems> {
    let mut problems = Problems::default();
    // The text was TOML when the entries were made of it; if it is not any more, problems go without their
    // lines.
    let document = Document::new(text).ok();
    let agent = agent::validate(&entry.agent, &mut problems);
    let limits = limits::validate(entry.limits, &mut problems);
    let lines = Lines::new(text);
    let mut claims = Vec::new();
    let mut services = Vec::new();
    for (index, spanned) in entry.services.iter().enumerate() {
        let line = lines.line(spanned.span().start);
        let scope = Scope::service(&spanned.get_ref().name, Some(&format!("line {line}")), Some(index));
        let draft = service::validate(spanned.get_ref(), &scope, &mut problems);
        claims.push(Claim { scope, ..draft.claim });
        services.extend(draft.service.map(|service| (service, Origin::File { path: path.to_owned(), line })));
    }
    problems.extend(clashes(&claims, &limits));
    if problems.is_empty() {
        return Ok(Config { agent, limits, services });
    }
    if let Some(document) = document {
        problems.locate(&document, path);
    }
    Err(problems)
}

#[cfg(test)]
mod tests;
