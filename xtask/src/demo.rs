//! `cargo xtask demo`: builds it and becomes it.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Result, anyhow};

use crate::{build, paths, process, setup, steps::Steps};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Handed to the demo as they are: --keep leaves it running; -- --help lists the others
    #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn demo(options: &Options, steps: &mut Steps) -> Result<()> {
    process::need_root_on_linux("demo")?;
    setup::for_running(steps)?;
    build::build(steps)?;
    steps.run("demo", || {
        let arguments = ["build", "--release", "--locked", "-p", "flowgate-tests"];
        process::run(process::cargo(arguments).args(["--bin", "demo"]), "mend what is said above")?;
        Ok("built")
    })?;
    let demo = paths::target().join("release/demo");
    // Signals and the terminal are the demo's own from here on.
    let error = Command::new(&demo).args(&options.arguments).env("FLOWGATE_BIN", paths::flowgate()).exec();
    Err(anyhow!("cannot start {}: {error}", demo.display()))
}
