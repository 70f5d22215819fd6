// SPDX-License-Identifier: Apache-2.0
//! Builds the kernel programs (`bpf/`) with the compiler that can, so that the object is embedded in every binary.
//!
//! `CILIUM_BPF_OBJECT` names an object that is already built; `CILIUM_BPF_RUSTC` another compiler.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's compiler (package `rustc-web`), which brings `core` for the target.
const RUSTC: &str = "/usr/bin/rustc";
const TARGET: &str = "bpfel-unknown-none";

/// What cargo and clippy set for the outer build and would break the inner one.
const OUTER: [&str; 8] = [
    "RUSTUP_TOOLCHAIN",
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CLIPPY_ARGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
];

fn main() -> Result<(), Box<dyn Error>> {
    let crate_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let object = out_dir.join("cilium-bpf.o");
    println!("cargo::rerun-if-env-changed=CILIUM_BPF_OBJECT");
    println!("cargo::rerun-if-env-changed=CILIUM_BPF_RUSTC");
    for path in ["build.rs", "../abi/src", "../abi/Cargo.toml"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let built = match env::var_os("CILIUM_BPF_OBJECT") {
        Some(object) => PathBuf::from(object),
        None => build(&crate_dir.join("../../bpf"), &folder_of_all_profiles(&out_dir))?,
    };
    println!("cargo::rerun-if-changed={}", built.display());
    fs::copy(&built, &object).map_err(|error| format!("cannot copy the object {}: {error}", built.display()))?;
    Ok(())
}

/// Where the programs are built: whatever they are embedded in, they are the same, and take a minute.
fn folder_of_all_profiles(out_dir: &Path) -> PathBuf {
    let root = out_dir.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    root.unwrap_or(out_dir).join("bpf")
}

/// Builds `bpf/` and returns the object's path.
fn build(bpf: &Path, target_dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    for path in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", bpf.join(path).display());
    }
    let rustc = env::var_os("CILIUM_BPF_RUSTC").unwrap_or_else(|| RUSTC.into());
    if !Path::new(&rustc).exists() {
        return Err(format!("no compiler at {}: run scripts/bootstrap or set CILIUM_BPF_RUSTC", rustc.display()).into());
    }
    let mut flags = OsString::from("-C linker=");
    flags.push(linker()?);
    flags.push(" -C link-arg=--btf");
    // Otherwise LLVM makes of every small memset a call, to a loop over single bytes: that was a quarter of what a packet of a known flow cost.
    flags.push(" -C link-arg=--disable-expand-memcpy-in-order");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for name in OUTER {
        cargo.env_remove(name);
    }
    cargo
        .env("RUSTC", rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", flags)
        .args(["build", "--release", "--locked", "--target", TARGET, "--manifest-path"])
        .arg(bpf.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir);
    if !cargo.status()?.success() {
        return Err("the kernel programs in bpf/ do not build; the compiler's messages are above".into());
    }
    Ok(target_dir.join(TARGET).join("release").join("cilium-bpf"))
}

/// `bpf-linker` of the path, or of the place where `cargo install` puts it.
fn linker() -> Result<PathBuf, Box<dyn Error>> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = env::split_paths(&path).collect();
    folders.extend(home.map(|home| home.join("bin")));
    let found = folders.iter().map(|folder| folder.join("bpf-linker")).find(|file| file.is_file());
    found.ok_or_else(|| "no bpf-linker in PATH: run scripts/bootstrap".into())
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo does not set {name}"))
}
