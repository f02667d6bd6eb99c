//! `cargo xtask setup`: what build, test and demo need.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use crate::{build, packages, process, steps::Steps};

/// Programs that tests and demo call, and the Debian packages they come from.
const PROGRAMS: [(&str, &str); 5] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("curl", "curl"),
    ("iperf3", "iperf3"),
    ("ping", "iputils-ping"),
];

const BPFFS: &str = "/sys/fs/bpf";

/// For every task.
pub(crate) fn everything(steps: &mut Steps) -> Result<()> {
    build::tools(steps)?;
    for_running(steps)
}

/// For tests and demo: the programs they call, and a place for pinned maps.
pub(crate) fn for_running(steps: &mut Steps) -> Result<()> {
    steps.run("programs for tests and demo", programs)?;
    steps.run(BPFFS, mount_bpffs)
}

fn programs() -> Result<String> {
    let missing = missing(|program| process::find(program).is_some());
    if missing.is_empty() {
        return Ok("already there".to_owned());
    }
    let names = missing.join(", ");
    packages::install(&missing, &format!("tests and demo need {names}"))?;
    Ok(format!("installed {names}"))
}

/// The packages of the programs that are not there.
fn missing(is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    PROGRAMS.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect()
}

fn mount_bpffs() -> Result<&'static str> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    if is_mounted(&mounts) {
        return Ok("already mounted");
    }
    process::run(
        Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]),
        "as root, on a kernel with CONFIG_BPF_SYSCALL, this works",
    )?;
    Ok("mounted")
}

fn is_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(BPFFS) && words.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing() {
        assert!(missing(|_| true).is_empty());
        assert_eq!(missing(|program| program != "ip"), ["iproute2"]);
        assert_eq!(missing(|program| program == "curl"), ["iproute2", "ethtool", "iperf3", "iputils-ping"]);
    }

    #[test]
    fn reads_proc_mounts() {
        assert!(is_mounted("sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,relatime 0 0\n"));
        assert!(!is_mounted("sysfs /sys sysfs rw 0 0\nbpf /mnt bpf rw 0 0\n"));
        assert!(!is_mounted("tmpfs /sys/fs/bpf tmpfs rw 0 0\n"));
    }
}
