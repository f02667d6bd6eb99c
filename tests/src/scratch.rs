//! Temporary directories that Ctrl-C takes away too.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{cleanup::Cleanup, sweep};

/// A temporary directory, removed with its contents on drop.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    cleanup: Cleanup,
}

impl Scratch {
    /// A new, empty directory that only root may enter.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn new() -> Result<Self> {
        let path = tempfile::Builder::new()
            .prefix(&sweep::own_prefix())
            .tempdir()
            .context("temporary directory")?
            .keep();
        let gone = path.clone();
        let cleanup = Cleanup::new(move || {
            let _ = fs::remove_dir_all(gone);
        });
        Ok(Self { path, cleanup })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it where it is.
    pub fn keep(self) -> PathBuf {
        self.cleanup.forget();
        self.path
    }
}
