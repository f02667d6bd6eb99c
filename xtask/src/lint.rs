//! `cargo xtask lint`: formatting, the architecture's rules, and no warning anywhere.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{build, paths, process, steps::Steps, tidy};

pub(crate) fn lint(steps: &mut Steps) -> Result<()> {
    // The quick ones first; clippy needs the eBPF object, lb-userspace embeds it.
    steps.run("format", format)?;
    steps.run("tidy", tidy::tidy)?;
    if !build::ebpf(steps)? {
        bail!("lb-ebpf compiles with warnings: mend what is said above");
    }
    steps.run("clippy", clippy)
}

fn format() -> Result<&'static str> {
    need_component("fmt", "rustfmt")?;
    process::run(&mut process::cargo(["fmt", "--all", "--check"]), "run `cargo fmt --all`")?;
    process::run(
        process::cargo(["fmt", "--check"]).current_dir(paths::root().join("lb-ebpf")),
        "run `cargo fmt` in lb-ebpf",
    )?;
    Ok("clean")
}

fn clippy() -> Result<&'static str> {
    need_component("clippy", "clippy")?;
    let what = ["clippy", "--workspace", "--all-targets", "--release", "--locked"];
    process::run(process::cargo(what).args(["--", "-D", "warnings"]), "mend what is said above")?;
    Ok("clean")
}

fn need_component(subcommand: &str, component: &str) -> Result<()> {
    match process::probe(&mut process::cargo([subcommand, "--version"])) {
        Some(_) => Ok(()),
        None => {
            println!("xtask: installing {component}: rustup component add {component}");
            let mut rustup = Command::new("rustup");
            let next_step =
                format!("`cargo {subcommand}` is missing: install {component} for your toolchain");
            process::run(rustup.args(["component", "add", component]), &next_step)
        }
    }
}
