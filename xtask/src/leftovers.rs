//! What killed test runs have left behind.
//!
//! Tests begin the names of all they make with `fgt-` and the number of their process: what belongs to a living process
//! is left alone.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::process;

const PREFIX: &str = "fgt-";

/// Removes them; says what it did.
pub(crate) fn remove() -> Result<String> {
    let namespaces =
        process::capture(Command::new("ip").args(["netns", "list"]), "`ip` comes with the package iproute2")?;
    let mut removed = 0_usize;
    for name in abandoned(namespaces.lines().filter_map(|line| line.split(' ').next())) {
        remove_namespace(name)?;
        removed += 1;
    }
    for dir in [Path::new("/sys/fs/bpf"), &env::temp_dir()] {
        removed += remove_entries(dir)?;
    }
    Ok(match removed {
        0 => "none".to_owned(),
        _ => format!("removed {removed}"),
    })
}

fn remove_namespace(name: &str) -> Result<()> {
    let next_step = "as root, this works unless somebody else has just removed it";
    // A namespace lives on, nameless, while a process of the killed run is inside.
    let inside = process::capture(Command::new("ip").args(["netns", "pids", name]), next_step)?;
    for process in inside.split_whitespace() {
        // A shell's own `kill`, since minimal systems have no other. It may have ended by itself meanwhile.
        process::probe(Command::new("sh").args(["-c", "kill -KILL \"$0\"", process]));
    }
    process::run(Command::new("ip").args(["netns", "del", name]), next_step)
}

fn remove_entries(dir: &Path) -> Result<usize> {
    let entries: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let names = entries.iter().filter_map(|path| path.file_name()?.to_str());
    let mut removed = 0;
    for name in abandoned(names) {
        let path = dir.join(name);
        let outcome = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        outcome.with_context(|| format!("cannot remove {}: remove it by hand", path.display()))?;
        removed += 1;
    }
    Ok(removed)
}

fn abandoned<'a>(names: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    names.filter(|name| is_abandoned(name, |pid| Path::new("/proc").join(pid).exists()))
}

/// Names are `fgt-PID-…`: the first number is the process's, others are not.
fn is_abandoned(name: &str, is_alive: impl Fn(&str) -> bool) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| {
        let owner = rest.split('-').next().unwrap_or(rest);
        owner.parse::<u32>().is_ok() && !is_alive(owner)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ours_and_only_of_dead_processes() {
        let is_alive = |pid: &str| pid == "42";
        for (name, expected) in [
            ("fgt-41-client", true),
            ("fgt-41-42-client", true),
            ("fgt-42-client", false),
            ("fgt-42-41-client", false),
            ("fgt-client-41", false),
            ("fgt-client", false),
            ("blue", false),
            ("xfgt-41", false),
        ] {
            assert_eq!(is_abandoned(name, is_alive), expected, "{name}");
        }
    }
}
