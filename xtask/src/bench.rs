//! `cargo xtask bench`: makes figures with the real program, as JSON and as tables in the documents.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    build, paths, process, setup,
    steps::{Steps, say},
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which figures; all of them where none is named
    #[arg(value_enum, value_name = "SUB")]
    bench: Option<Bench>,
    /// Only try whether it runs: takes seconds, and leaves the documents alone
    #[arg(long)]
    quick: bool,
    /// Handed on as they are, after `--`: -- --help lists them
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

/// Some figures that are made together, by a program of the tests' crate of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Bench {
    /// How backends are chosen: shares, disruption, full tables, floods, and how long a change takes
    Choosing,
}

impl Bench {
    const ALL: [Self; 1] = [Self::Choosing];

    /// The program, and the names of its files.
    fn name(self) -> &'static str {
        match self {
            Self::Choosing => "choosing",
        }
    }

    fn json(self, quick: bool) -> PathBuf {
        let kind = if quick { "-quick" } else { "" };
        paths::target().join(format!("bench/{}{kind}.json", self.name()))
    }

    /// The page that has its figures.
    fn page(self) -> PathBuf {
        paths::root().join(format!("docs/{}.md", self.name()))
    }
}

pub(crate) fn bench(options: &Options, steps: &mut Steps) -> Result<()> {
    process::need_root_on_linux("bench")?;
    setup::for_running(steps)?;
    build::build(steps)?;
    let benches = options.bench.as_ref().map_or(&Bench::ALL[..], std::slice::from_ref);
    for bench in benches {
        one(*bench, options, steps)?;
    }
    Ok(())
}

fn one(bench: Bench, options: &Options, steps: &mut Steps) -> Result<()> {
    let name = bench.name();
    steps.run(&format!("build {name}"), || {
        let arguments = ["build", "--release", "--locked", "-p", "flowgate-tests", "--bin", name];
        process::run(&mut process::cargo(arguments), "mend what is said above")?;
        Ok("built")
    })?;
    let json = bench.json(options.quick);
    steps.run(name, || {
        let mut command = Command::new(paths::target().join("release").join(name));
        command.args(arguments(bench, options)).env("FLOWGATE_BIN", paths::flowgate());
        process::run(&mut command, "what it says last is where it stopped")?;
        Ok(format!("figures in {}", json.display()))
    })?;
    if !options.quick {
        say(format_args!("{name}: tables in {}", bench.page().display()));
    }
    Ok(())
}

/// What the program is told.
fn arguments(bench: Bench, options: &Options) -> Vec<std::ffi::OsString> {
    let mut arguments = vec!["--json".into(), bench.json(options.quick).into()];
    if options.quick {
        arguments.push("--quick".into());
    } else {
        arguments.extend(["--page".into(), bench.page().into()]);
    }
    arguments.extend(options.arguments.iter().map(Into::into));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_touches_no_page() {
        let options = |quick| Options { bench: None, quick, arguments: vec!["--syns".to_owned()] };
        let quick = arguments(Bench::Choosing, &options(true));
        assert!(quick.iter().any(|argument| argument == "--quick"));
        assert!(!quick.iter().any(|argument| argument == "--page"));
        let full = arguments(Bench::Choosing, &options(false));
        assert!(full.iter().any(|argument| argument == "--page"));
        assert_eq!(full.last().and_then(|last| last.to_str()), Some("--syns"));
        assert_ne!(Bench::Choosing.json(true), Bench::Choosing.json(false));
    }
}
