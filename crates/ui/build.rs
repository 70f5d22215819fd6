// SPDX-License-Identifier: Apache-2.0
//! Embeds the built pages of `ui/dist`. Without them, what is served says how to build them: the crate needs no Node.js.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let dist = manifest.join("../../ui/dist");
    // A folder that is not there would make each build the first one.
    println!("cargo::rerun-if-changed={}", if dist.exists() { "../../ui/dist" } else { "../../ui" });
    let mut files = Vec::new();
    if dist.join("index.html").exists() {
        collect(&dist, &mut files)?;
        files.sort();
    }
    let mut code = String::from("pub(super) static EMBEDDED: &[(&str, &[u8])] = &[\n");
    for file in files {
        let path = file.strip_prefix(&dist)?.to_str().ok_or("a name that is not text")?;
        let place = file.canonicalize()?;
        writeln!(code, "    ({path:?}, include_bytes!({:?})),", place.to_str().ok_or("a path that is not text")?)?;
    }
    code.push_str("];\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    Ok(fs::write(out.join("embedded.rs"), code)?)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}
