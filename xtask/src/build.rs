//! `cargo xtask build`: one file with the eBPF object inside.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{
    ebpf, linker, paths, process,
    steps::Steps,
    toolchain::{self, Toolchain},
};

pub(crate) fn build(steps: &mut Steps) -> Result<()> {
    ebpf(steps)?;
    flowgate(steps)
}

/// The program, around the eBPF object there is.
pub(crate) fn flowgate(steps: &mut Steps) -> Result<()> {
    steps.run("flowgate", || {
        process::run(
            &mut process::cargo(["build", "--release", "--locked", "-p", "flowgate"]),
            "mend what is said above",
        )?;
        Ok(paths::flowgate().display().to_string())
    })
}

/// The eBPF object, with what it takes to build it; says whether there were no warnings.
pub(crate) fn ebpf(steps: &mut Steps) -> Result<bool> {
    if !cfg!(target_os = "linux") {
        bail!("Flowgate is made of XDP programs and an agent for Linux: build it on Linux");
    }
    if process::find("cc").is_none() {
        bail!("no C compiler (`cc`), which Rust links with: `apt-get install gcc libc6-dev`");
    }
    let (toolchain, linker) = tools(steps)?;
    steps.take("eBPF programs", || {
        let clean = ebpf::build(&toolchain, &linker)?;
        Ok(("target/ebpf/bpfel-unknown-none/release/flowgate-ebpf".to_owned(), clean))
    })
}

/// The compiler and the linker for eBPF.
pub(crate) fn tools(steps: &mut Steps) -> Result<(Toolchain, PathBuf)> {
    let toolchain = steps.take("eBPF toolchain", || {
        let toolchain = toolchain::ensure()?;
        Ok((toolchain.describe(), toolchain))
    })?;
    let linker = steps.take("bpf-linker", || {
        let linker = linker::ensure()?;
        Ok((linker.display().to_string(), linker))
    })?;
    Ok((toolchain, linker))
}
