//! The system's packages: which are missing, and installing them.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{process, steps};

/// Whether this is a system of Debian's family.
pub(crate) fn has_apt() -> bool {
    process::find("apt-get").is_some()
}

/// Installs packages in one call, as root; refuses with the command to run otherwise.
pub(crate) fn install(packages: &[&str], why: &str) -> Result<()> {
    let names = packages.join(" ");
    if !has_apt() {
        bail!("{why}: install {names} (the names are Debian's) with your package manager");
    }
    if !process::is_root() {
        bail!("{why}: run `sudo apt-get install --no-install-recommends {names}`, then this again");
    }
    steps::say(format_args!("{why}: installing {names} with apt-get"));
    update()?;
    process::run(
        apt_get(&["install", "-y", "-qq", "--no-install-recommends"]).args(packages),
        "read apt-get's message above; `apt-get update` and a free dpkg lock often help",
    )
}

/// Refreshes the package lists; a broken source of somebody else's must not stop us.
pub(crate) fn update() -> Result<()> {
    let output = process::output(&mut apt_get(&["update", "-qq"]))?;
    if !output.status.success() {
        steps::say("`apt-get update` failed, going on with the package lists there are");
    }
    Ok(())
}

/// The version that apt would install, as (major, minor).
pub(crate) fn candidate(package: &str) -> Option<(u32, u32)> {
    let policy = process::probe(Command::new("apt-cache").args(["policy", package]))?;
    parse_candidate(&policy)
}

fn parse_candidate(policy: &str) -> Option<(u32, u32)> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    parse_version(version.split_once(':').map_or(version, |(_epoch, rest)| rest))
}

/// `1.96.0+dfsg1-1` is (1, 96).
pub(crate) fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_candidate() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n";
        assert_eq!(parse_candidate(policy), Some((1, 96)));
        assert_eq!(parse_candidate("x:\n  Candidate: 1:6.1-1\n"), Some((6, 1)));
        assert_eq!(parse_candidate("x:\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn reads_versions() {
        assert_eq!(parse_version("22.1.8"), Some((22, 1)));
        assert_eq!(parse_version("1.97.0-nightly"), Some((1, 97)));
        assert_eq!(parse_version("nightly"), None);
    }
}
