//! The configuration file, read again: all of it or nothing.

use std::{fs, path::Path};

use super::{
    command::{Answer, CommandError},
    controller::Controller,
};
use crate::{
    api::schema::Changed,
    config::{edit, render::render, validate},
    model::Config,
};

/// Reads and validates a configuration file.
///
/// # Errors
/// It cannot be read, or is not valid: all that is wrong, a line each.
pub(super) fn read(path: &Path) -> Result<Config, String> {
    let text = fs::read_to_string(path).map_err(|error| {
        format!(
            "cannot read the configuration {}: {error}: check the path and its permissions",
            path.display()
        )
    })?;
    validate::read(&text, path).map_err(|error| error.to_string())
}

impl Controller {
    pub(super) fn reload(&mut self) -> Answer<Changed> {
        let Some(path) = &self.config_path else {
            return Err(CommandError::Conflict(
                "the agent was started without a file, so there is none to reload: start it with --config FILE"
                    .to_owned(),
            ));
        };
        let config = read(path).map_err(CommandError::Invalid)?;
        let wanted = edit::replace_file_services(&self.desired, config.services, &self.limits)?;
        let mut changed = self.change_to(wanted)?;
        if config.limits != self.limits {
            changed.changes.push(
                "limits differ from those that run: they change with `flowgate detach` and a start of the agent"
                    .to_owned(),
            );
        }
        Ok(changed)
    }

    /// The state in force, as a file that the agent accepts.
    pub(super) fn config_text(&self) -> String {
        render(&self.settings, &self.limits, &self.desired)
    }
}
