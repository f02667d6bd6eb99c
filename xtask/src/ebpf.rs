//! Builds lb-ebpf into target/ebpf, where lb-userspace/build.rs picks the object up.

use std::{
    io::{self, BufRead, BufReader, IsTerminal},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    linker, paths, process,
    toolchain::{Kind, Toolchain},
};

/// Target features: without them every read of a packet's field becomes byte loads and shifts.
const FEATURES: &str = "-Ctarget-feature=+alu32,+allows-misaligned-mem-access";

/// The crates (in rustc's spelling) that may use unstable features on a stable rustc.
/// Not "1", that is every crate: aya-build would take it for a nightly and ask for build-std.
const UNSTABLE_CRATES: &str = "aya_ebpf,flowgate_ebpf,lb_common";

/// Builds the object; says whether our own crates compile without warnings.
pub(crate) fn build(toolchain: &Toolchain, linker: &Path) -> Result<bool> {
    let mut command = command(toolchain, linker)?;
    let mut cargo = process::start(command.stderr(Stdio::piped()))?;
    let mut filter = Filter::default();
    let mut clean = true;
    for line in BufReader::new(cargo.stderr.take().expect("it is piped")).lines() {
        let line = line.context("cannot read what cargo says")?;
        if filter.keeps(&line) {
            clean &= !plain(&line).starts_with("warning");
            eprintln!("{line}");
        }
    }
    let status = cargo.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("building lb-ebpf with {} failed: mend what is said above", toolchain.describe());
    }
    Ok(clean)
}

fn command(toolchain: &Toolchain, linker: &Path) -> Result<Command> {
    let mut command = match &toolchain.kind {
        Kind::BuildStd { name } => {
            let mut command = Command::new("rustup");
            command.args(["run", name, "cargo", "build", "-Zbuild-std=core"]).env_remove("RUSTC");
            command
        }
        Kind::Prebuilt { rustc } => {
            let mut command = process::cargo(["build"]);
            command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", UNSTABLE_CRATES);
            command
        }
    };
    command
        .args(["--release", "--locked", "--quiet", "--target", "bpfel-unknown-none"])
        .args(["--color", if io::stderr().is_terminal() { "always" } else { "never" }])
        .arg("--target-dir")
        .arg(paths::target().join("ebpf"))
        .current_dir(paths::root().join("lb-ebpf"))
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags().join("\u{1f}"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env("LD_LIBRARY_PATH", linker::library_path(&linker::llvm_dir(toolchain)?)?);
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
#[derive(Default)]
struct Filter {
    in_noise: bool,
}

impl Filter {
    fn keeps(&mut self, line: &str) -> bool {
        let line = plain(line);
        let was_in_noise = self.in_noise;
        // rustc ends each message with an empty line, which goes too.
        self.in_noise = !line.is_empty()
            && (was_in_noise
                || line.starts_with("warning: unstable feature specified for `-Ctarget-feature`"));
        !was_in_noise && !self.in_noise && !is_count(&line)
    }
}

/// "warning: `lb-ebpf` (bin "flowgate-ebpf") generated 2 warnings"
fn is_count(line: &str) -> bool {
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

    fn without_noise(said: &str) -> String {
        let mut filter = Filter::default();
        said.split_inclusive('\n').filter(|line| filter.keeps(line.trim_end())).collect()
    }

    #[test]
    fn noise_goes_and_warnings_stay() {
        let count = "warning: `lb-ebpf` (bin \"flowgate-ebpf\") generated 3 warnings (1 duplicate)\n";
        let progress = "   Compiling lb-ebpf v0.1.0\n";
        let said = format!("{progress}{NOISE}{REAL}{NOISE}{count}");
        assert_eq!(without_noise(&said), format!("{progress}{REAL}"));
        assert_eq!(without_noise(&format!("{NOISE}{count}")), "");
        assert_eq!(without_noise("error: linker failed\n"), "error: linker failed\n");
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
