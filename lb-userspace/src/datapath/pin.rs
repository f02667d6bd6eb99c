//! Where maps, programs and links are kept while no agent runs: `PIN_DIR/v<ABI>/{maps,programs,links}`.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::programs::{
    links::{FdLink, PinnedLink},
    loaded_links,
};
use lb_common::abi;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{FsType, statfs},
};

use super::DatapathError;

/// The magic number of bpffs (`BPF_FS_MAGIC`, include/uapi/linux/magic.h).
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);
const BPF_FS_MOUNT_POINT: &str = "/sys/fs/bpf";

/// The pins of one data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The pins of this build's ABI under `pin_dir`.
    #[must_use]
    pub fn new(pin_dir: &Path) -> Self {
        Self { root: pin_dir.join(format!("v{}", abi::VERSION)) }
    }

    /// The directory of this ABI.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A map's pin.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// The pin of the program in an interface's slot.
    #[must_use]
    pub fn program(&self, slot: u32) -> PathBuf {
        self.root.join("programs").join(slot.to_string())
    }

    /// The pin of the link in an interface's slot.
    #[must_use]
    pub fn link(&self, slot: u32) -> PathBuf {
        self.root.join("links").join(slot.to_string())
    }

    /// Makes the directories, on a mounted bpffs.
    pub(super) fn prepare(&self) -> Result<(), DatapathError> {
        let pin_dir = self.root.parent().unwrap_or(&self.root);
        ensure_bpffs(pin_dir)?;
        for directory in ["maps", "programs", "links"] {
            let path = self.root.join(directory);
            fs::create_dir_all(&path).map_err(|error| make_error(&path, &error))?;
        }
        self.check_owner()
    }

    /// bpffs lets everybody make directories: what somebody else has made is not trusted.
    fn check_owner(&self) -> Result<(), DatapathError> {
        let owner = fs::metadata(&self.root).map_err(|error| make_error(&self.root, &error))?.uid();
        if owner == nix::unistd::geteuid().as_raw() {
            return Ok(());
        }
        Err(DatapathError::Refused(format!(
            "{} belongs to user {owner}: remove it, or give the agent another pin_dir",
            self.root.display()
        )))
    }

    /// Makes sure that this is the only agent of the data plane, as long as the lock lives.
    ///
    /// # Errors
    /// Another agent holds it, or the directories cannot be made.
    pub fn lock(&self) -> Result<PinLock, DatapathError> {
        self.prepare()?;
        match self.try_lock() {
            Ok(lock) => Ok(lock),
            Err(Errno::EWOULDBLOCK) => Err(self.taken("stop it, or give this one another --pin-dir")),
            Err(error) => Err(DatapathError::kernel(format!("cannot lock {}", self.root.display()), &error)),
        }
    }

    fn try_lock(&self) -> Result<PinLock, Errno> {
        let directory = fs::File::open(&self.root)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        Flock::lock(directory, FlockArg::LockExclusiveNonblock).map(PinLock).map_err(|(_, error)| error)
    }

    fn taken(&self, way_out: &str) -> DatapathError {
        DatapathError::Refused(format!(
            "another agent is running the data plane at {}: {way_out}",
            self.root.display()
        ))
    }

    /// Other ABIs' data planes under the same directory, which this build cannot adopt.
    #[must_use]
    pub fn other_versions(&self) -> Vec<PathBuf> {
        let Some(pin_dir) = self.root.parent() else { return Vec::new() };
        let Ok(entries) = fs::read_dir(pin_dir) else { return Vec::new() };
        let is_version = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('v')) && *path != self.root
        };
        entries.filter_map(Result::ok).map(|entry| entry.path()).filter(is_version).collect()
    }
}

/// Held by the one agent of a data plane.
#[derive(Debug)]
pub struct PinLock(#[expect(dead_code, reason = "held, not read")] Flock<fs::File>);

/// Takes the data plane away where no agent runs it.
///
/// # Errors
/// An agent runs it, or a pin cannot be removed.
pub fn detach_unattended(pin_dir: &Path, all: bool) -> Result<Vec<String>, DatapathError> {
    let pins = Pins::new(pin_dir);
    match pins.try_lock() {
        Err(Errno::EWOULDBLOCK) => Err(pins.taken("name its --socket, or stop it first")),
        _ => detach(pin_dir, all),
    }
}

/// Takes the data plane away: links first, so that no packet meets half of it, then the rest.
///
/// `all` takes the data planes of other ABIs too. What was there is returned, one line each.
///
/// # Errors
/// A pin that cannot be removed.
pub fn detach(pin_dir: &Path, all: bool) -> Result<Vec<String>, DatapathError> {
    let pins = Pins::new(pin_dir);
    let mut roots = vec![pins.root.clone()];
    if all {
        roots.extend(pins.other_versions());
    }
    let mut removed = Vec::new();
    for root in roots.iter().filter(|root| root.exists()) {
        let paths: Vec<_> = entries(&root.join("links")).collect();
        let (links, held) = (paths.len(), links_at(&paths));
        remove(root)?;
        wait_until_gone(&held);
        let interfaces = if links == 1 { "1 interface".to_owned() } else { format!("{links} interfaces") };
        removed.push(format!("data plane at {} removed ({interfaces})", root.display()));
    }
    // Left where something else lives in it.
    let _ = fs::remove_dir(pin_dir);
    Ok(removed)
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The kernel's numbers of pinned links; without those that cannot be opened.
fn links_at(paths: &[PathBuf]) -> Vec<u32> {
    let number =
        |path: &PathBuf| FdLink::from(PinnedLink::from_pin(path).ok()?).info().ok().map(|info| info.id());
    paths.iter().filter_map(number).collect()
}

/// Waits until the kernel has let go of links whose pins are gone. That is a moment later, and until then packets still
/// meet the program.
fn wait_until_gone(links: &[u32]) {
    let end = Instant::now() + LINKS_GO_WITHIN;
    let is_there = || loaded_links().flatten().any(|link| links.contains(&link.id()));
    while !links.is_empty() && is_there() && Instant::now() < end {
        thread::sleep(Duration::from_millis(2));
    }
}

/// How long [`detach`] waits for that at most; it takes microseconds where the machine has time.
const LINKS_GO_WITHIN: Duration = Duration::from_secs(2);

fn remove(root: &Path) -> Result<(), DatapathError> {
    for directory in ["links", "programs", "maps"] {
        let path = root.join(directory);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(remove_error(&path, &error)),
            _ => {}
        }
    }
    fs::remove_dir_all(root).map_err(|error| remove_error(root, &error))
}

/// Mounts bpffs at its usual place where `pin_dir` belongs there and nothing is mounted.
fn ensure_bpffs(pin_dir: &Path) -> Result<(), DatapathError> {
    let is_bpffs = |path: &Path| statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC);
    let existing = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if is_bpffs(existing) {
        return Ok(());
    }
    if pin_dir.starts_with(BPF_FS_MOUNT_POINT) {
        let no_data: Option<&str> = None;
        mount(Some("bpf"), BPF_FS_MOUNT_POINT, Some("bpf"), MsFlags::empty(), no_data).map_err(|error| {
            DatapathError::Refused(format!(
                "{BPF_FS_MOUNT_POINT} is not a BPF file system and cannot be mounted ({error}): run `mount -t bpf bpf {BPF_FS_MOUNT_POINT}` as root"
            ))
        })?;
        tracing::info!(path = BPF_FS_MOUNT_POINT, "mounted the BPF file system");
        if fs::read_link("/proc/self/ns/mnt").ok() != fs::read_link("/proc/1/ns/mnt").ok() {
            tracing::warn!(
                "this mount namespace is not the host's, and the data plane goes with it: where the agent is \
                 started by `ip netns exec`, start it by `nsenter --net=/run/netns/NAME` instead"
            );
        }
        return Ok(());
    }
    Err(DatapathError::Refused(format!(
        "pin directory {} is not on a BPF file system: use a directory below {BPF_FS_MOUNT_POINT}",
        pin_dir.display()
    )))
}

fn make_error(path: &Path, error: &io::Error) -> DatapathError {
    DatapathError::Refused(format!("cannot make {}: {error}: run as root", path.display()))
}

fn remove_error(path: &Path, error: &io::Error) -> DatapathError {
    DatapathError::Refused(format!("cannot remove {}: {error}: run as root", path.display()))
}
