//! Other programs: run them, and name them and the next step when they fail.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, BufRead, BufReader},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::paths;

/// Cargo, in the repository, building into its `target`.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(paths::root()).env("CARGO_TARGET_DIR", paths::target());
    command
}

/// Runs a command whose output the user sees.
pub(crate) fn run(command: &mut Command, next_step: &str) -> Result<()> {
    let status = command.status().map_err(|error| not_started(command, &error))?;
    if !status.success() {
        bail!(failure(&shown(command), status, next_step));
    }
    Ok(())
}

/// Runs a command and hands on each line of its standard output as it comes.
pub(crate) fn run_reading(command: &mut Command, next_step: &str, mut read: impl FnMut(&str)) -> Result<()> {
    let mut child = start(command.stdout(Stdio::piped()))?;
    let lines = lines_of(child.stdout.take().expect("it is piped"));
    // The end of the command, not of its output: a process that a failed test has left behind
    // may hold the pipe open for ever.
    let status = loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => read(&line),
            Err(RecvTimeoutError::Disconnected) => {
                break child.wait().context("cannot wait for it")?;
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = child.try_wait().context("cannot wait for it")? {
                    break status;
                }
            }
        }
    };
    if !status.success() {
        bail!(failure(&shown(command), status, next_step));
    }
    Ok(())
}

const PATIENCE: Duration = Duration::from_millis(200);

fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Tests print whatever they like, also what is not UTF-8.
        for line in BufReader::new(output).split(b'\n').map_while(io::Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Starts a command, for a caller that reads along.
pub(crate) fn start(command: &mut Command) -> Result<Child> {
    command.spawn().map_err(|error| not_started(command, &error))
}

/// Runs a command and hands back what it printed, also when it failed.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command.output().map_err(|error| not_started(command, &error))
}

/// Runs a command and hands back its standard output.
pub(crate) fn capture(command: &mut Command, next_step: &str) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        let failure = failure(&shown(command), output.status, next_step);
        bail!("{failure}\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a command prints, or nothing where it is absent or fails: for probing.
pub(crate) fn probe(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The program of that name on PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        // An ordinary user's PATH often lacks these, yet ip and ethtool live there.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| is_executable(file))
}

pub(crate) fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the effective user.
    fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0)
}

/// Refuses to go on where tests and demo cannot work.
pub(crate) fn need_root_on_linux(task: &str) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("`{task}` loads XDP programs into a Linux kernel: run it on Linux");
    }
    if !is_root() {
        bail!(
            "`{task}` loads XDP programs and makes network namespaces: \
             run as root: sudo -E env PATH=$PATH cargo xtask {task}"
        );
    }
    Ok(())
}

fn not_started(command: &Command, error: &io::Error) -> anyhow::Error {
    let program = command.get_program().to_string_lossy();
    if error.kind() == io::ErrorKind::NotFound {
        anyhow!("`{program}` not found: install it, or add its directory to PATH")
    } else {
        anyhow!("`{}` did not start: {error}", shown(command))
    }
}

fn failure(shown: &str, status: ExitStatus, next_step: &str) -> String {
    format!("`{shown}` failed ({status}): {next_step}")
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    [name].into_iter().chain(command.get_args()).map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_failure_names_the_command_and_the_next_step() {
        let error = run(Command::new("false").arg("--really"), "try again").expect_err("it fails");
        assert_eq!(error.to_string(), "`false --really` failed (exit status: 1): try again");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("no-such-program"), "").expect_err("it is not there");
        assert_eq!(
            error.to_string(),
            "`no-such-program` not found: install it, or add its directory to PATH"
        );
    }

    #[test]
    fn lines_are_read_as_they_come() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; printf 'two\\377'; exit 1"]);
        let mut lines = Vec::new();
        run_reading(&mut command, "", |line| lines.push(line.to_owned())).expect_err("it fails");
        assert_eq!(lines, ["one", "two\u{fffd}"]);
    }

    #[test]
    fn a_process_left_behind_does_not_hold_us_up() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo $!"]);
        let mut left_behind = String::new();
        let start = Instant::now();
        run_reading(&mut command, "", |line| left_behind = line.to_owned()).expect("it ends");
        assert!(start.elapsed() < Duration::from_secs(30));
        run(Command::new("kill").arg(left_behind), "").expect("it was still running");
    }

    #[test]
    fn captured_errors_are_shown() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo why >&2; exit 3"]);
        let error = capture(&mut command, "look above").expect_err("it fails").to_string();
        assert!(error.ends_with("look above\nwhy"), "{error}");
    }

    #[test]
    fn finds_programs_and_misses_what_is_not_there() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program"), None);
        assert!(!is_executable(Path::new("/")));
    }
}
