//! What a process that was killed has left behind, found by its name.
//!
//! Namespaces, temporary directories and pins are all named `fgt-PID-…`.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What every name begins with.
pub const PREFIX: &str = "fgt-";

/// Where `ip netns` keeps its names.
pub const NETNS_DIR: &str = "/run/netns";

/// The bpffs on which agents under test pin.
pub const BPFFS: &str = "/sys/fs/bpf";

/// What [`sweep_all`] did.
#[derive(Debug, Default)]
pub struct Swept {
    /// What was removed.
    pub removed: Vec<PathBuf>,
    /// What could not be removed, and why.
    pub failed: Vec<(PathBuf, String)>,
    /// Processes that are still using theirs.
    pub in_use_by: Vec<u32>,
}

/// What the names of this process begin with.
#[must_use]
pub fn own_prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Removes what this process has made.
pub fn sweep_own() {
    let own = std::process::id();
    for path in leftovers() {
        if owner(&path) == Some(own) {
            let _ = remove(&path);
        }
    }
}

/// Removes what processes that have ended left behind, and what `--keep` kept.
#[must_use]
pub fn sweep_all() -> Swept {
    let mut swept = Swept::default();
    for path in leftovers() {
        let Some(pid) = owner(&path) else { continue };
        if made_by_running_process(pid, &path) {
            if !swept.in_use_by.contains(&pid) {
                swept.in_use_by.push(pid);
            }
            continue;
        }
        match remove(&path) {
            Ok(()) => swept.removed.push(path),
            Err(reason) => swept.failed.push((path, reason)),
        }
    }
    swept
}

/// Ends every process in a namespace, other than this one, and removes the namespace.
///
/// # Errors
/// What `ip netns` says.
pub fn remove_namespace(name: &str) -> Result<(), String> {
    let ip = |args: &[&str]| {
        let output = Command::new("ip").args(args).output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
        }
    };
    for pid in ip(&["netns", "pids", name])?.lines().filter_map(|line| line.trim().parse().ok()) {
        if pid != std::process::id().cast_signed() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    ip(&["netns", "delete", name]).map(drop)
}

/// Namespaces first, since that ends the processes that use the rest.
fn leftovers() -> Vec<PathBuf> {
    let temporary = std::env::temp_dir();
    let places = [Path::new(NETNS_DIR), Path::new(BPFFS), temporary.as_path()];
    let mut found: Vec<PathBuf> = Vec::new();
    for place in places {
        let Ok(entries) = fs::read_dir(place) else { continue };
        let paths = entries.flatten().map(|entry| entry.path());
        found.extend(paths.filter(|path| owner(path).is_some()));
    }
    found
}

/// The process id in a name such as `fgt-4711-2-client`.
fn owner(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn remove(path: &Path) -> Result<(), String> {
    if path.parent() == Some(Path::new(NETNS_DIR)) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        return remove_namespace(name);
    }
    fs::remove_dir_all(path).map_err(|error| error.to_string())
}

/// Process ids are used again: the owner is one that was there before the thing was made.
fn made_by_running_process(pid: u32, path: &Path) -> bool {
    let Some(started) = started_at(pid) else { return false };
    let Ok(metadata) = fs::symlink_metadata(path) else { return false };
    started <= metadata.ctime()
}

/// When a running process was started, in seconds since 1970.
fn started_at(pid: u32) -> Option<i64> {
    /// `USER_HZ`: the same on every Linux.
    const TICKS_A_SECOND: i64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may contain anything; this is field 22.
    let ticks: i64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let booted: i64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + ticks / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_from_a_name() {
        assert_eq!(owner(Path::new("/run/netns/fgt-4711-2-client")), Some(4711));
        assert_eq!(owner(Path::new("/run/netns/fgt-x-2-client")), None);
        assert_eq!(owner(Path::new("/run/netns/other-4711-2")), None);
    }

    #[test]
    fn this_process_started_in_the_past_and_made_its_own_directories() {
        let scratch = crate::scratch::Scratch::new().unwrap();
        assert!(made_by_running_process(std::process::id(), scratch.path()));
        assert!(!made_by_running_process(u32::MAX, scratch.path()));
    }
}
