//! Where things are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The repository.
pub(crate) fn root() -> PathBuf {
    // Cargo's answer at run time first: a build cache may have been moved.
    let own = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent().map_or_else(|| own.clone(), Path::to_path_buf)
}

/// Where everything is built, whatever CARGO_TARGET_DIR says:
/// lb-userspace/build.rs looks for the eBPF object there.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// The program that `cargo xtask build` makes.
pub(crate) fn flowgate() -> PathBuf {
    target().join("release/flowgate")
}

/// Tools of our own version, apart from those the user has installed.
pub(crate) fn tools() -> Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(
            env::var_os("HOME")
                .context("neither HOME nor XDG_CACHE_HOME is set: set HOME, that is where tools are kept")?,
        )
        .join(".cache"),
    };
    Ok(cache.join("flowgate/tools"))
}
