//! A child process that does not outlive its guard, and what it said.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{cleanup::Cleanup, scratch::Scratch, wait::wait_for};

/// A running program. Its whole process group is killed on drop.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    log: PathBuf,
    /// None once the child has been waited for: its id may be somebody else's by then.
    cleanup: Option<Cleanup>,
    /// Holds the log.
    _scratch: Scratch,
}

impl Process {
    /// Starts `command` in a process group of its own, with its output in a file.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn spawn(mut command: Command, what: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let log = scratch.path().join("log");
        let output = File::create(&log)?;
        command.process_group(0).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("cannot start {what}"))?;
        let group = Pid::from_raw(child.id().cast_signed());
        let cleanup = Some(Cleanup::new(move || {
            let _ = killpg(group, Signal::SIGKILL);
        }));
        Ok(Self { what: what.to_owned(), child, log, cleanup, _scratch: scratch })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far, to standard output and standard error.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("(no log: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// How it ended; none while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        if status.is_some() {
            self.forget_cleanup();
        }
        status
    }

    /// Sends a signal to it alone.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        nix::sys::signal::kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("send {signal} to {}", self.what))
    }

    /// Waits for its end, at most for `limit`.
    ///
    /// # Errors
    /// Where it is still running then; the error has its log.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} has ended", self.what);
        wait_for(&what, limit, || {
            self.exit_status().with_context(|| format!("it runs; its log:\n{}", self.log()))
        })
    }

    /// Kills the process group at once, with SIGKILL.
    pub fn kill9(&mut self) {
        if self.cleanup.is_some() {
            let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
            let _ = self.child.wait();
            self.forget_cleanup();
        }
    }

    fn forget_cleanup(&mut self) {
        if let Some(cleanup) = self.cleanup.take() {
            cleanup.forget();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}
