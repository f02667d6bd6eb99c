//! Finds, or installs, bpf-linker of exactly the version that works.

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    paths, process, steps,
    toolchain::{self, LLVM_MAJOR, Toolchain},
};

/// 0.10.0 and 0.10.1 write a BTF name that the kernel refuses
/// (<https://github.com/aya-rs/aya/issues/1490>); 0.11 wants LLVM 23.
const VERSION: &str = "0.10.4";

/// The linker there is, or the one it has installed.
pub(crate) fn ensure() -> Result<PathBuf> {
    let home = paths::tools()?.join(format!("bpf-linker-{VERSION}"));
    let own = home.join("bin/bpf-linker");
    if process::is_executable(&own) {
        return Ok(own);
    }
    if let Some(found) = process::find("bpf-linker").filter(|found| is_ours(found)) {
        return Ok(found);
    }
    install(&home)?;
    if !process::is_executable(&own) {
        bail!("cargo install made no {}: remove {} and try again", own.display(), home.display());
    }
    Ok(own)
}

fn is_ours(linker: &Path) -> bool {
    process::probe(Command::new(linker).arg("--version"))
        .is_some_and(|said| said.split_whitespace().eq(["bpf-linker", VERSION]))
}

fn install(home: &Path) -> Result<()> {
    steps::say(format_args!(
        "no bpf-linker {VERSION} here: installing it into {} (about 90 s)",
        home.display()
    ));
    fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
    let mut cargo = process::cargo(["install", "bpf-linker", "--version", VERSION, "--locked"]);
    // Built for the host, by the host's compiler: nothing of ours may reach it.
    for variable in ["CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "RUSTC", "RUSTFLAGS"] {
        cargo.env_remove(variable);
    }
    process::run(
        cargo.arg("--root").arg(home).current_dir(home),
        "read cargo's message above; it needs the network and a C compiler",
    )
}

/// A directory with the one LLVM that bpf-linker is to load.
///
/// It takes the first `libLLVM*` it meets along LD_LIBRARY_PATH, and a system's library
/// directory may hold several, of other versions.
pub(crate) fn llvm_dir(toolchain: &Toolchain) -> Result<PathBuf> {
    let library = toolchain::llvm_library(&toolchain.sysroot).with_context(|| {
        format!(
            "no libLLVM {LLVM_MAJOR} under {}/lib for bpf-linker to use: reinstall {}",
            toolchain.sysroot.display(),
            toolchain.describe()
        )
    })?;
    let dir = paths::target().join("ebpf/llvm");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let link = dir.join(format!("libLLVM-{LLVM_MAJOR}.so"));
    if fs::read_link(&link).is_ok_and(|old| old == library) {
        return Ok(dir);
    }
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", link.display()));
        }
        _ => symlink(&library, &link).with_context(|| format!("cannot make the link {}", link.display()))?,
    }
    Ok(dir)
}

/// LD_LIBRARY_PATH with this directory first.
pub(crate) fn library_path(llvm_dir: &Path) -> Result<std::ffi::OsString> {
    let before = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let dirs = [llvm_dir.to_path_buf()].into_iter().chain(env::split_paths(&before));
    env::join_paths(dirs.filter(|dir| !dir.as_os_str().is_empty()))
        .with_context(|| format!("{} contains a colon: move the repository", llvm_dir.display()))
}
