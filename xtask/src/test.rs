//! `cargo xtask test`: lint, then the host-level tests, then those on the real kernel.

use std::{
    env,
    fs::{self, File, TryLockError},
    io::{self, IsTerminal},
    path::Path,
};

use anyhow::{Context, Result, bail};

use crate::{
    build, leftovers, lint, paths, process, setup,
    steps::{Steps, say},
};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this, or the tests of tests/tests/NAME.rs; skips lint
    name: Option<String>,
    /// Only lint and host-level tests: needs no root
    #[arg(long)]
    quick: bool,
    /// Skip formatting, tidy and clippy
    #[arg(long)]
    no_lint: bool,
    /// Handed to the test programs, such as --nocapture
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

/// Some tests that cargo runs together.
#[derive(Debug, PartialEq, Eq)]
struct Stage {
    name: &'static str,
    /// Which targets, in cargo's words.
    targets: Vec<String>,
    /// Timing matters in them: one at a time.
    alone: bool,
}

pub(crate) fn test(options: &Options, steps: &mut Steps) -> Result<()> {
    if !options.quick {
        process::need_root_on_linux("test")?;
        setup::for_running(steps)?;
    }
    if options.no_lint || options.name.is_some() {
        build::ebpf(steps)?;
    } else {
        lint::lint(steps)?;
    }
    build::flowgate(steps)?;
    let _lock = if options.quick { None } else { Some(only_run()?) };
    if !options.quick {
        steps.run("leftovers of killed runs", leftovers::remove)?;
    }
    let kernel_tests = if options.quick { Vec::new() } else { kernel_tests()? };
    let (stages, filter) = plan(options.name.as_deref(), &kernel_tests);
    let mut count = Count::default();
    let mut failed = Vec::new();
    for stage in &stages {
        // The later stages still run: one wants to know all that is broken.
        if let Err(error) = run(stage, filter, &options.arguments, &mut count, steps) {
            failed.push(format!("{}: {error:#}", stage.name));
        }
    }
    eprint!("\n{}", steps.summary());
    eprintln!("\n{} tests passed, {} failed", count.passed, count.failed);
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    if count.passed == 0 {
        bail!("no test ran: see `ls tests/tests` for files, and use part of a test's name");
    }
    Ok(())
}

/// The stages, and the filter for cargo.
fn plan<'a>(name: Option<&'a str>, kernel_tests: &[String]) -> (Vec<Stage>, Option<&'a str>) {
    if let Some(file) = name.filter(|name| kernel_tests.iter().any(|file| file == name)) {
        return (kernel_stages(&[file.to_owned()]), None);
    }
    let targets = ["--lib", "--bins"].map(str::to_owned).to_vec();
    let host = Stage { name: "host-level tests", targets, alone: false };
    let stages = [host].into_iter().chain(kernel_stages(kernel_tests)).collect();
    (stages, name)
}

/// Packet tests run the programs without a wire; all others have namespaces, agents and clocks.
fn kernel_stages(files: &[String]) -> Vec<Stage> {
    let stage = |name, alone, of_packets: bool| {
        let targets: Vec<String> = files
            .iter()
            .filter(|file| file.starts_with("packet_") == of_packets)
            .map(|file| format!("--test={file}"))
            .collect();
        (!targets.is_empty()).then_some(Stage { name, targets, alone })
    };
    [stage("packet tests", false, true), stage("network tests", true, false)].into_iter().flatten().collect()
}

/// The names of the files in tests/tests.
fn kernel_tests() -> Result<Vec<String>> {
    let dir = paths::root().join("tests/tests");
    let mut names = Vec::new();
    if dir.exists() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            names.extend(test_name(&entry?.path()));
        }
    }
    names.sort();
    Ok(names)
}

fn test_name(file: &Path) -> Option<String> {
    let is_test = file.extension()? == "rs";
    is_test.then_some(file.file_stem()?.to_str()?.to_owned())
}

fn run(
    stage: &Stage,
    filter: Option<&str>,
    arguments: &[String],
    count: &mut Count,
    steps: &mut Steps,
) -> Result<()> {
    say(stage.name);
    steps.run(stage.name, || {
        // The same packages and profile everywhere: dependencies are compiled once.
        let mut command = process::cargo(["test", "--workspace", "--release", "--locked"]);
        command
            .arg("--no-fail-fast")
            .args(&stage.targets)
            .args(filter)
            .arg("--")
            .args(defaults(stage, arguments, io::stdout().is_terminal()))
            .args(arguments)
            .env("FLOWGATE_BIN", paths::flowgate());
        let before = count.passed;
        process::run_reading(&mut command, "look above for `failures:`", |line| {
            println!("{line}");
            count.add(line);
        })?;
        Ok(format!("{} passed", count.passed - before))
    })
}

/// What the test programs are told unless the user says otherwise.
fn defaults(stage: &Stage, arguments: &[String], in_colour: bool) -> Vec<&'static str> {
    [("--test-threads", "--test-threads=1", stage.alone), ("--color", "--color=always", in_colour)]
        .into_iter()
        .filter(|(name, _, wanted)| *wanted && !arguments.iter().any(|own| own.starts_with(name)))
        .map(|(_, argument, _)| argument)
        .collect()
}

/// The sum of the lines `test result: ok. 3 passed; 0 failed; …`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
}

impl Count {
    fn add(&mut self, line: &str) {
        let Some((_, numbers)) =
            line.strip_prefix("test result: ").and_then(|result| result.split_once(". "))
        else {
            return;
        };
        for part in numbers.split("; ") {
            match part.split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

/// Waits for its turn: two runs at once would spoil each other's timing.
fn only_run() -> Result<File> {
    let path = env::temp_dir().join("flowgate-tests.lock");
    let lock = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => return Ok(lock),
        Err(TryLockError::WouldBlock) => say("another test run is going on, waiting for its end"),
        Err(TryLockError::Error(error)) => bail!("cannot lock {}: {error}", path.display()),
    }
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<String> {
        ["cli_errors", "net_drain", "packet_v4", "packet_v6"].map(str::to_owned).to_vec()
    }

    fn stage(name: &'static str, targets: &[&str], alone: bool) -> Stage {
        let targets = targets.iter().map(|&target| target.to_owned()).collect();
        Stage { name, targets, alone }
    }

    #[test]
    fn everything_in_three_stages() {
        let expected = vec![
            stage("host-level tests", &["--lib", "--bins"], false),
            stage("packet tests", &["--test=packet_v4", "--test=packet_v6"], false),
            stage("network tests", &["--test=cli_errors", "--test=net_drain"], true),
        ];
        assert_eq!(plan(None, &files()), (expected, None));
    }

    #[test]
    fn a_file_runs_alone_and_whole() {
        let expected = vec![stage("network tests", &["--test=net_drain"], true)];
        assert_eq!(plan(Some("net_drain"), &files()), (expected, None));
    }

    #[test]
    fn any_other_name_is_a_filter() {
        let (stages, filter) = plan(Some("drain"), &files());
        assert_eq!((stages.len(), filter), (3, Some("drain")));
    }

    #[test]
    fn without_kernel_tests_there_is_one_stage() {
        assert_eq!(plan(None, &[]).0.len(), 1);
    }

    #[test]
    fn results_are_summed() {
        let mut count = Count::default();
        for line in [
            "test result: ok. 39 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            "test a ... ok",
            "test result: \u{1b}[31mFAILED\u{1b}[m. 1 passed; 2 failed; 0 ignored",
        ] {
            count.add(line);
        }
        assert_eq!(count, Count { passed: 40, failed: 2 });
    }

    #[test]
    fn the_users_own_arguments_win() {
        let alone = stage("network tests", &[], true);
        let own = ["--test-threads=4".to_owned()];
        assert_eq!(defaults(&alone, &[], true), ["--test-threads=1", "--color=always"]);
        assert_eq!(defaults(&alone, &own, true), ["--color=always"]);
        assert!(defaults(&stage("packet tests", &[], false), &[], false).is_empty());
    }

    #[test]
    fn only_rust_files_are_tests() {
        assert_eq!(test_name(Path::new("tests/net_drain.rs")).as_deref(), Some("net_drain"));
        assert_eq!(test_name(Path::new("tests/README.md")), None);
        assert_eq!(test_name(Path::new("tests/common")), None);
    }
}
