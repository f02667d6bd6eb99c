//! Flowgate itself in a namespace: the real agent, asked by the real command line.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::{
        signal::Signal,
        statfs::{BPF_FS_MAGIC, statfs},
    },
};

use crate::{
    cleanup::Cleanup,
    netns::Namespace,
    process::Process,
    scratch::Scratch,
    sweep::{self, BPFFS},
    wait::wait_for,
};

/// An agent is given so long to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(15);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What an agent is started with.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    interfaces: Vec<String>,
    agent: String,
    file: String,
}

impl Setup {
    /// An agent on these interfaces, without services.
    #[must_use]
    pub fn on(interfaces: &[&str]) -> Self {
        let interfaces = interfaces.iter().map(|&name| name.to_owned()).collect();
        Self { interfaces, ..Self::default() }
    }

    /// More lines for the `[agent]` section: `debug_packets = true`.
    #[must_use]
    pub fn agent(mut self, lines: &str) -> Self {
        let _ = writeln!(self.agent, "{lines}");
        self
    }

    /// The rest of the file: `[limits]` and every `[[service]]`.
    #[must_use]
    pub fn file(mut self, text: &str) -> Self {
        let _ = writeln!(self.file, "{text}");
        self
    }
}

/// A Flowgate agent with its own socket, state and pins. Dropped, it and its data plane are gone.
#[derive(Debug)]
pub struct Agent {
    netns: Namespace,
    setup: Setup,
    /// None while it is stopped or killed.
    process: Option<Process>,
    /// What earlier processes of it have said.
    old_logs: String,
    pin_dir: PathBuf,
    scratch: Scratch,
    /// Takes the data plane away.
    cleanup: Cleanup,
}

impl Agent {
    /// Starts an agent and waits until it answers.
    ///
    /// # Errors
    /// Where it does not; the error has its log.
    pub fn start(netns: &Namespace, setup: Setup) -> Result<Self> {
        let binary = binary()?;
        mount_bpffs()?;
        let scratch = Scratch::new()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pin_dir = Path::new(BPFFS).join(format!("{}{number}", sweep::own_prefix()));
        let (pins, inside) = (pin_dir.clone(), netns.clone());
        let cleanup = Cleanup::new(move || {
            let detach = ["detach", "--all", "--pin-dir"];
            let _ = inside.command(binary).args(detach).arg(&pins).output();
            let _ = fs::remove_dir_all(&pins);
        });
        let netns = netns.clone();
        let mut agent =
            Self { netns, setup, process: None, old_logs: String::new(), pin_dir, scratch, cleanup };
        agent.write_file(&agent.setup.file)?;
        agent.restart()?;
        Ok(agent)
    }

    /// Starts it again, with the same file, socket, state and pins, and waits until it answers. One that runs
    /// is killed first.
    ///
    /// # Errors
    /// Where it does not answer; the error has its log.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9();
        let mut command = self.netns.command(binary()?);
        command.args(["agent", "--config"]).arg(self.config_path());
        self.process = Some(Process::spawn(command, "flowgate agent")?);
        self.wait_until_it_answers()
    }

    /// Kills it with SIGKILL: nothing is taken away or said good-bye to.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
            self.keep_log(&process);
        }
    }

    /// Ends it with SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// Where it is not running, or does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the agent is not running")?;
        process.signal(Signal::SIGTERM)?;
        let status = process.wait(PATIENCE);
        self.keep_log(&process);
        status
    }

    /// Sends it SIGHUP: it is to read its file again.
    ///
    /// # Errors
    /// Where it is not running.
    pub fn hang_up(&self) -> Result<()> {
        self.process.as_ref().context("the agent is not running")?.signal(Signal::SIGHUP)
    }

    /// Whether its process is there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.exit_status().is_none())
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// What it has said, those that ran before it included.
    #[must_use]
    pub fn log(&self) -> String {
        let current = self.process.as_ref().map(Process::log).unwrap_or_default();
        format!("{}{current}", self.old_logs)
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.scratch.path().join("flowgate.sock")
    }

    /// Where it keeps what the command line has made.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.scratch.path().join("state")
    }

    /// Where it pins.
    #[must_use]
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// The file that it was started with.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.scratch.path().join("flowgate.toml")
    }

    /// Replaces everything in the file but `[agent]`; `config reload` makes the agent read it.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write_file(&self, text: &str) -> Result<()> {
        // None here: the setup's own lines name them.
        let interfaces = match &self.setup.interfaces[..] {
            [] => String::new(),
            names => format!("interfaces = {names:?}\n"),
        };
        let content = format!(
            "[agent]\n{interfaces}socket = {:?}\nstate_dir = {:?}\npin_dir = {:?}\n{}\n{text}",
            self.socket(),
            self.state_dir(),
            self.pin_dir,
            self.setup.agent,
        );
        fs::write(self.config_path(), content).context("write the agent's file")
    }

    /// `flowgate ARGS… --socket SOCKET` in the agent's namespace.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.netns.command(binary().unwrap_or_else(|_| "flowgate".into()));
        command.args(args).arg("--socket").arg(self.socket());
        command
    }

    /// Runs [`Agent::command`], whatever comes of it.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn cli(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.command(args);
        command.output().with_context(|| format!("flowgate {}", args.join(" ")))
    }

    /// Runs [`Agent::command`], and gives its standard output.
    ///
    /// # Errors
    /// Where it does not end with 0: the error has what it printed, and the agent's log.
    pub fn cli_ok(&self, args: &[&str]) -> Result<String> {
        self.cli_quiet(args).with_context(|| format!("the agent's log:\n{}", self.log()))
    }

    /// Runs [`Agent::command`] with `--output json`, and gives what it says.
    ///
    /// # Errors
    /// As [`Agent::cli_ok`], and where it is not JSON.
    pub fn cli_json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let text = self.cli_ok(&[args, &["--output", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("flowgate {}: {text}", args.join(" ")))
    }

    /// Packets so far, of all interfaces, by a reason.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn packets(&self, reason: &str) -> Result<u64> {
        let stats = self.cli_json(&["stats", "--all"])?;
        let rows = stats["reasons"].as_array().context("reasons")?;
        let of_reason = rows.iter().filter(|row| row["reason"] == reason);
        Ok(of_reason.filter_map(|row| row["packets"].as_u64()).sum())
    }

    /// One row of `backend list`, for `address` written as `10.10.0.11:8080` or `[2001:db8::11]:8080`.
    ///
    /// # Errors
    /// Where there is no such backend.
    pub fn backend(&self, service: &str, address: std::net::SocketAddr) -> Result<serde_json::Value> {
        let rows = self.cli_json(&["backend", "list", service])?;
        let wanted = |row: &&serde_json::Value| {
            row["address"] == address.ip().to_string() && row["port"] == address.port()
        };
        let found = rows.as_array().and_then(|rows| rows.iter().find(wanted));
        found.cloned().with_context(|| format!("service {service} has no backend {address}: {rows}"))
    }

    /// Waits until every backend of every service gets new flows, or is up and would if its priority were in use, and
    /// gives the time that it took.
    ///
    /// # Errors
    /// With the rows of those that do not, and the agent's log.
    pub fn wait_until_all_up(&self, limit: Duration) -> Result<Duration> {
        let begun = std::time::Instant::now();
        let all_up = || {
            let rows = self.cli_json(&["backend", "list"])?;
            let rows = rows.as_array().context("backend list is no array")?;
            ensure!(!rows.is_empty(), "there is no backend");
            let is_spared = |row: &serde_json::Value| row["priority"] != 0 && row["health"] == "up";
            let waiting: Vec<_> =
                rows.iter().filter(|row| row["active"] != true && !is_spared(row)).collect();
            ensure!(waiting.is_empty(), "not active: {waiting:?}");
            Ok(())
        };
        wait_for("every backend is active", limit, all_up)?;
        Ok(begun.elapsed())
    }

    /// Leaves agent, data plane and files in place when this is dropped.
    pub fn keep(self) {
        std::mem::forget(self.process);
        self.scratch.keep();
        self.cleanup.forget();
        self.netns.keep();
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let begun = std::time::Instant::now();
        loop {
            let Err(error) = self.cli_quiet(&["status", "--output", "json"]) else { return Ok(()) };
            let ended = self.process.as_mut().and_then(Process::exit_status);
            if let Some(status) = ended {
                bail!("the agent ended at once ({status}); its log:\n{}", self.log());
            }
            if begun.elapsed() > PATIENCE {
                let log = self.log();
                return Err(error.context(format!("no answer within {PATIENCE:?}; the agent's log:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn cli_quiet(&self, args: &[&str]) -> Result<String> {
        let output = self.cli(args)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "flowgate {}: {}: {stderr}{stdout}", args.join(" "), output.status);
        Ok(stdout)
    }

    fn keep_log(&mut self, process: &Process) {
        self.old_logs.push_str(&process.log());
        self.old_logs.push_str("--- it ended here\n");
    }
}

/// The binary under test: `$FLOWGATE_BIN`, or what the release build of this repository made.
///
/// # Errors
/// Where it is not there.
pub fn binary() -> Result<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/flowgate");
    let binary = env::var_os("FLOWGATE_BIN").map_or(built, PathBuf::from);
    ensure!(
        binary.is_file(),
        "{} is not there: `cargo xtask build` makes it, or FLOWGATE_BIN says where it is",
        binary.display()
    );
    Ok(binary.canonicalize()?)
}

/// Mounts bpffs where it is not mounted yet, as on a fresh machine.
///
/// # Errors
/// Where the kernel refuses.
pub fn mount_bpffs() -> Result<()> {
    static MOUNTING: Mutex<()> = Mutex::new(());
    let _alone = MOUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    if statfs(BPFFS).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount bpffs at {BPFFS}"))
}
