//! Finds, or installs, a rustc that can compile for the kernel.
//!
//! rustup has no `core` for bpfel-unknown-none. Two ways to get one: a nightly with rust-src
//! builds it (`-Z build-std`), Debian's rustc-web brings it prebuilt.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{packages, process, steps};

/// The LLVM of rustc and of bpf-linker must be the same; see `linker::VERSION`.
pub(crate) const LLVM_MAJOR: u32 = 22;

/// What is installed where rustup is the way: later nightlies have LLVM 23.
const NIGHTLY: &str = "nightly-2026-05-20";

/// The first of Debian's that is built on LLVM 22.
const DEBIAN_RUSTC_MIN: (u32, u32) = (1, 96);
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// A compiler for the eBPF crate.
#[derive(Debug)]
pub(crate) struct Toolchain {
    pub(crate) kind: Kind,
    pub(crate) sysroot: PathBuf,
    release: String,
}

/// How to call it.
#[derive(Debug)]
pub(crate) enum Kind {
    /// rustup's toolchain of that name, which builds `core` itself.
    BuildStd { name: String },
    /// A stable rustc with a prebuilt `core`.
    Prebuilt { rustc: PathBuf },
}

impl Toolchain {
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::BuildStd { name } => format!("rustup's {name} with rust-src"),
            Kind::Prebuilt { rustc } => format!("{} {}", rustc.display(), self.release),
        }
    }
}

/// The toolchain there is, or the one it has installed.
pub(crate) fn ensure() -> Result<Toolchain> {
    if let Some(found) = find() {
        return Ok(found);
    }
    if packages::has_apt() && debian_has_it()? {
        packages::install(&DEBIAN_PACKAGES, "no Rust toolchain here compiles for bpfel-unknown-none")?;
    } else if process::find("rustup").is_some() {
        install_nightly()?;
    } else {
        bail!(
            "no Rust toolchain here compiles for bpfel-unknown-none: \
             install rustup (https://rustup.rs), then run this again"
        );
    }
    find().context(
        "the toolchain just installed does not compile for bpfel-unknown-none: \
         look at `rustup toolchain list` and `/usr/bin/rustc -vV`",
    )
}

fn find() -> Option<Toolchain> {
    find_nightly().or_else(find_debian)
}

fn find_nightly() -> Option<Toolchain> {
    let list = process::probe(Command::new("rustup").args(["toolchain", "list"]))?;
    nightlies(&list).find_map(|name| {
        let rustc = |arguments: &[&str]| {
            process::probe(Command::new("rustup").args(["run", name, "rustc"]).args(arguments))
        };
        let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim_end());
        if !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists() {
            return None;
        }
        let version = Version::parse(&rustc(&["-vV"])?)?;
        if version.llvm_major != LLVM_MAJOR {
            steps::say(format_args!(
                "not using rustup's {name}: it has LLVM {}, bpf-linker needs {LLVM_MAJOR}",
                version.llvm_major
            ));
            return None;
        }
        let kind = Kind::BuildStd { name: name.to_owned() };
        Some(Toolchain { kind, sysroot, release: version.release })
    })
}

/// The names of nightly toolchains in the output of `rustup toolchain list`.
fn nightlies(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| name.starts_with("nightly"))
}

fn find_debian() -> Option<Toolchain> {
    let sysroot = process::probe(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]))?;
    let sysroot = PathBuf::from(sysroot.trim_end());
    let version = Version::parse(&process::probe(Command::new(DEBIAN_RUSTC).arg("-vV"))?)?;
    let usable = packages::parse_version(&version.release)? >= DEBIAN_RUSTC_MIN
        && version.llvm_major == LLVM_MAJOR
        && sysroot.join("lib/rustlib/bpfel-unknown-none/lib").is_dir();
    let kind = Kind::Prebuilt { rustc: DEBIAN_RUSTC.into() };
    usable.then_some(Toolchain { kind, sysroot, release: version.release })
}

/// Older releases of Debian and Ubuntu have these packages too old, or not at all.
fn debian_has_it() -> Result<bool> {
    let new_enough =
        || DEBIAN_PACKAGES.iter().all(|package| packages::candidate(package) >= Some(DEBIAN_RUSTC_MIN));
    if !new_enough() && process::is_root() {
        packages::update()?;
    }
    Ok(new_enough())
}

fn install_nightly() -> Result<()> {
    steps::say(format_args!(
        "no Rust toolchain here compiles for bpfel-unknown-none: \
         installing {NIGHTLY} with rust-src through rustup"
    ));
    process::run(
        Command::new("rustup")
            .args(["toolchain", "install", NIGHTLY, "--profile", "minimal"])
            .args(["--component", "rust-src"]),
        "read rustup's message above; it needs the network",
    )
}

/// What `rustc -vV` says of itself.
struct Version {
    release: String,
    llvm_major: u32,
}

impl Version {
    fn parse(verbose: &str) -> Option<Self> {
        let field = |name| verbose.lines().find_map(|line| line.strip_prefix(name));
        let (llvm_major, _) = packages::parse_version(field("LLVM version: ")?)?;
        Some(Self { release: field("release: ")?.to_owned(), llvm_major })
    }
}

/// The LLVM library that this rustc itself uses, for bpf-linker to borrow.
pub(crate) fn llvm_library(sysroot: &Path) -> Option<PathBuf> {
    let lib = sysroot.join("lib");
    // rustup keeps it in lib, Debian in lib/x86_64-linux-gnu.
    let multiarch = files(&lib).filter(|dir| dir.is_dir() && ends_with(dir, "-linux-gnu"));
    [lib.clone()]
        .into_iter()
        .chain(multiarch)
        .flat_map(|dir| files(&dir))
        .find(|file| file.file_name().and_then(|name| name.to_str()).is_some_and(is_our_llvm))
}

fn is_our_llvm(name: &str) -> bool {
    [format!("libLLVM-{LLVM_MAJOR}"), format!("libLLVM.so.{LLVM_MAJOR}")].iter().any(|start| {
        name.strip_prefix(start.as_str()).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

fn files(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn ends_with(path: &Path, end: &str) -> bool {
    path.to_str().is_some_and(|path| path.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_nightlies_only() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default)\n\
                    nightly-x86_64-unknown-linux-gnu\n\
                    nightly-2026-05-20-x86_64-unknown-linux-gnu (override)\n\
                    1.95.0-x86_64-unknown-linux-gnu\n";
        let expected = ["nightly-x86_64-unknown-linux-gnu", "nightly-2026-05-20-x86_64-unknown-linux-gnu"];
        assert_eq!(nightlies(list).collect::<Vec<_>>(), expected);
        assert_eq!(nightlies("no installed toolchains\n").count(), 0);
    }

    #[test]
    fn reads_rustc_versions() {
        let verbose = "rustc 1.96.0\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        let version = Version::parse(verbose).expect("both fields are there");
        assert_eq!((version.release.as_str(), version.llvm_major), ("1.96.0", 22));
        assert!(Version::parse("rustc 1.96.0\n").is_none());
    }

    #[test]
    fn knows_our_llvm_by_its_file_name() {
        assert!(is_our_llvm("libLLVM.so.22.1"));
        assert!(is_our_llvm("libLLVM-22-rust-1.95.0-stable.so"));
        assert!(!is_our_llvm("libLLVM-14.so.1"));
        assert!(!is_our_llvm("libLLVM.so.221"));
        assert!(!is_our_llvm("libLTO.so.22.1"));
    }
}
