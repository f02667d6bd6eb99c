//! Builds lb-ebpf into target/ebpf, where lb-userspace/build.rs picks the object up.

use std::{
    io::{self, IsTerminal},
    path::Path,
    process::Command,
};

use anyhow::{Result, bail};

use crate::{
    linker, paths, process,
    toolchain::{Kind, Toolchain},
};

/// Target features: without them every read of a packet's field becomes byte loads and shifts.
const FEATURES: &str = "-Ctarget-feature=+alu32,+allows-misaligned-mem-access";

/// The crates (in rustc's spelling) that may use unstable features on a stable rustc.
/// Not "1", that is every crate: aya-build would take it for a nightly and ask for build-std.
const UNSTABLE_CRATES: &str = "aya_ebpf,flowgate_ebpf";

/// Builds the object; hands back the warnings of our own crates.
pub(crate) fn build(toolchain: &Toolchain, linker: &Path) -> Result<String> {
    let mut command = command(toolchain, linker)?;
    let output = process::output(&mut command)?;
    let said = without_noise(&String::from_utf8_lossy(&output.stderr));
    if !said.is_empty() {
        eprint!("{said}");
    }
    if !output.status.success() {
        bail!(
            "building lb-ebpf with {} failed: mend what is said above",
            toolchain.describe()
        );
    }
    Ok(said)
}

fn command(toolchain: &Toolchain, linker: &Path) -> Result<Command> {
    let mut command = match &toolchain.kind {
        Kind::BuildStd { name } => {
            let mut command = Command::new("rustup");
            command
                .args(["run", name, "cargo", "build", "-Zbuild-std=core"])
                .env_remove("RUSTC");
            command
        }
        Kind::Prebuilt { rustc } => {
            let mut command = process::cargo(["build"]);
            command
                .env("RUSTC", rustc)
                .env("RUSTC_BOOTSTRAP", UNSTABLE_CRATES);
            command
        }
    };
    command
        .args([
            "--release",
            "--locked",
            "--quiet",
            "--target",
            "bpfel-unknown-none",
        ])
        .args([
            "--color",
            if io::stderr().is_terminal() {
                "always"
            } else {
                "never"
            },
        ])
        .arg("--target-dir")
        .arg(paths::target().join("ebpf"))
        .current_dir(paths::root().join("lb-ebpf"))
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags().join("\u{1f}"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env(
            "LD_LIBRARY_PATH",
            linker::library_path(&linker::llvm_dir(toolchain)?)?,
        );
    Ok(command)
}

fn rustflags() -> [String; 5] {
    [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // aya-ebpf's register layouts; also where its own build script would take it from.
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        "-Ctarget-cpu=v3".to_owned(),
        FEATURES.to_owned(),
    ]
}

/// Takes out what rustc says of every crate about [`FEATURES`], and the counts of it.
fn without_noise(said: &str) -> String {
    said.split_inclusive("\n\n")
        .flat_map(|paragraph| {
            let noise = plain(paragraph)
                .starts_with("warning: unstable feature specified for `-Ctarget-feature`");
            (!noise).then(|| {
                paragraph
                    .split_inclusive('\n')
                    .filter(|line| !is_count(line))
            })
        })
        .flatten()
        .collect()
}

/// "warning: `lb-ebpf` (bin "flowgate-ebpf") generated 2 warnings"
fn is_count(line: &str) -> bool {
    let line = plain(line);
    line.starts_with("warning: `") && line.contains(" generated ") && line.contains(" warning")
}

/// Without the colours.
fn plain(text: &str) -> String {
    let mut rest = text;
    let mut plain = String::new();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_colour, after)| after);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISE: &str = "\
warning: unstable feature specified for `-Ctarget-feature`: `alu32`
  |
  = note: this feature is not stably supported; its behavior can change in the future

";
    const REAL: &str = "\
warning: unused variable: `x`
 --> src/main.rs:7:9
  |

";

    #[test]
    fn noise_goes_and_warnings_stay() {
        let count =
            "warning: `lb-ebpf` (bin \"flowgate-ebpf\") generated 3 warnings (1 duplicate)\n";
        assert_eq!(without_noise(&format!("{NOISE}{REAL}{NOISE}{count}")), REAL);
        assert_eq!(without_noise(&format!("{NOISE}{count}")), "");
        assert_eq!(
            without_noise("error: linker failed\n"),
            "error: linker failed\n"
        );
    }

    #[test]
    fn coloured_noise_goes_too() {
        let noise = NOISE.replace("warning:", "\u{1b}[1m\u{1b}[33mwarning\u{1b}[0m:");
        assert_eq!(without_noise(&noise), "");
        assert_eq!(plain("\u{1b}[1mbold\u{1b}[0m end"), "bold end");
    }

    #[test]
    fn flags_name_this_machines_architecture() {
        let expected = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
        assert!(rustflags().contains(&expected));
    }
}
