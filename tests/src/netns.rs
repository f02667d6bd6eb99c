//! Network namespaces: made, entered, and gone when the last handle is dropped.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

use crate::{
    cleanup::Cleanup,
    process::Process,
    shell,
    sweep::{self, NETNS_DIR},
};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A named network namespace with `lo` up.
///
/// Clones are handles of the same namespace. With the last one it is deleted, after every process in it
/// was killed: so whatever runs in it keeps a handle.
#[derive(Clone, Debug)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    file: Arc<File>,
    /// Dropped with the last handle; none for a namespace that is not ours to delete.
    cleanup: Option<Cleanup>,
}

impl Namespace {
    /// A new namespace named `fgt-PID-N-ROLE`, without IPv6 duplicate address detection, router
    /// advertisements or reverse path filters.
    ///
    /// # Errors
    /// Where it cannot be made: most likely for want of root.
    pub fn new(role: &str) -> Result<Self> {
        let name = format!("{}{}-{role}", sweep::own_prefix(), NEXT.fetch_add(1, Ordering::Relaxed));
        let gone = name.clone();
        let cleanup = Cleanup::new(move || {
            let _ = sweep::remove_namespace(&gone);
        });
        shell::run(Command::new("ip").args(["netns", "add", &name]))
            .context("network namespaces need root")?;
        let path = PathBuf::from(NETNS_DIR).join(&name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let namespace =
            Self { inner: Arc::new(Inner { name, file: Arc::new(file), cleanup: Some(cleanup) }) };
        namespace.ip("link set lo up")?;
        namespace.sysctls(&[
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.default.rp_filter", "0"),
            ("net.ipv4.conf.all.send_redirects", "0"),
            ("net.ipv4.conf.default.send_redirects", "0"),
            ("net.ipv6.conf.all.accept_ra", "0"),
            ("net.ipv6.conf.default.accept_ra", "0"),
            ("net.ipv6.conf.all.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_dad", "0"),
        ])?;
        Ok(namespace)
    }

    /// The namespace that this process is in, which stays when the handle is dropped.
    ///
    /// # Errors
    /// Where /proc cannot be read.
    pub fn of_this_process() -> Result<Self> {
        let path = "/proc/self/ns/net";
        let file = File::open(path).with_context(|| format!("open {path}"))?;
        let inner = Inner { name: "of this process".to_owned(), file: Arc::new(file), cleanup: None };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its name, for `ip netns exec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Runs `body` on a thread of its own inside the namespace: sockets made there belong to it for good.
    ///
    /// # Panics
    /// Where `body` does.
    pub fn run_in<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&self.inner.file).expect("setns");
                body()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A thread named `name` that runs `body` inside the namespace. It keeps the namespace.
    pub fn spawn_thread<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let handle = self.clone();
        thread::Builder::new()
            .name(name.to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                enter(&handle.inner.file).expect("setns");
                body()
            })
            .expect("threads can be made")
    }

    /// A program that will run inside the namespace, in a process group of its own.
    ///
    /// Only the network is the namespace's: files (bpffs among them) are everybody's, and /sys/class/net
    /// still lists the interfaces outside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.process_group(0);
        let file = Arc::clone(&self.inner.file);
        // SAFETY: between fork and exec this only makes a system call on a file that is already open.
        unsafe { command.pre_exec(move || enter(&file)) };
        command
    }

    /// Starts a program inside the namespace that is killed when the guard is dropped.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn spawn(&self, program: &str, args: &[&str]) -> Result<Process> {
        let mut command = self.command(program);
        command.args(args);
        Process::spawn(command, program)
    }

    /// Runs `ip` inside the namespace: one command a line, without the leading `ip`. All of them are run in
    /// one process, up to the first that fails.
    ///
    /// # Errors
    /// Where one is refused; the error has the lines.
    pub fn ip(&self, lines: &str) -> Result<String> {
        let lines: String = lines.lines().map(|line| format!("{}\n", line.trim())).collect();
        shell::run_with_input(Command::new("ip").args(["-n", self.name(), "-batch", "-"]), &lines)
            .with_context(|| format!("in namespace {}", self.name()))
    }

    /// Sets a kernel parameter of the namespace.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.sysctls(&[(key, value)])
    }

    /// Sets several kernel parameters of the namespace, in order.
    ///
    /// # Errors
    /// Names the first that the kernel refuses.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run_in(|| {
            for (key, value) in settings {
                let path = format!("/proc/sys/{}", key.replace('.', "/"));
                fs::write(&path, value)
                    .with_context(|| format!("set {key} = {value} in namespace {}", self.name()))?;
            }
            Ok(())
        })
    }

    /// Turns routing between its interfaces on or off, for IPv4 and IPv6.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_forwarding(&self, on: bool) -> Result<()> {
        let value = if on { "1" } else { "0" };
        self.sysctls(&[("net.ipv4.ip_forward", value), ("net.ipv6.conf.all.forwarding", value)])
    }

    /// The index of an interface.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn interface_index(&self, device: &str) -> Result<u32> {
        self.run_in(|| nix::net::if_::if_nametoindex(device))
            .with_context(|| format!("interface {device} in namespace {}", self.name()))
    }

    /// Leaves the namespace in place when the last handle is dropped.
    pub fn keep(self) {
        match Arc::try_unwrap(self.inner) {
            Ok(inner) => inner.cleanup.into_iter().for_each(Cleanup::forget),
            // Others hold it: this handle is never dropped, so theirs are never the last.
            Err(shared) => std::mem::forget(shared),
        }
    }
}

fn enter(file: &File) -> io::Result<()> {
    setns(file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}
