//! Embeds the eBPF object that `cargo xtask build` has made.

use std::{env, fs, path::PathBuf};

fn main() {
    let manifest_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let built = manifest_dir.join("../target/ebpf/bpfel-unknown-none/release/flowgate-ebpf");
    println!("cargo::rerun-if-changed={}", built.display());
    let embedded = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("flowgate-ebpf");
    if let Err(error) = fs::copy(&built, &embedded) {
        println!("cargo::error=no eBPF object at {} ({error}): run `cargo xtask build`", built.display());
    }
}
