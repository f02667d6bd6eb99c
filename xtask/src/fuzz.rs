//! `cargo xtask fuzz`: made-up and damaged frames for the real program, judged by a model.

use std::process::Command;

use anyhow::Result;

use crate::{build, paths, process, setup, steps::Steps};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// The first seed: a run that has failed says which one makes the same frames again
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

pub(crate) fn fuzz(options: &Options, steps: &mut Steps) -> Result<()> {
    process::need_root_on_linux("fuzz")?;
    setup::for_running(steps)?;
    build::build(steps)?;
    steps.run("build fuzz", || {
        let arguments = ["build", "--release", "--locked", "-p", "flowgate-tests", "--bin", "fuzz"];
        process::run(&mut process::cargo(arguments), "mend what is said above")?;
        Ok("built")
    })?;
    steps.run("fuzz", || {
        let mut command = Command::new(paths::target().join("release/fuzz"));
        command.args(["--minutes", &options.minutes.to_string()]);
        command.args(options.seed.iter().flat_map(|seed| ["--seed".to_owned(), seed.to_string()]));
        process::run(&mut command, "it says which frame became what, and the seed that makes it again")?;
        Ok("every frame became what the model says")
    })
}
