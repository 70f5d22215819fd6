// SPDX-License-Identifier: Apache-2.0
//! Settings below `/proc/sys/net`, which belong to the network namespace of the calling thread.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::{Error, Result};

/// Where `proc` is mounted, when not at `/proc`.
static PROCFS: OnceLock<PathBuf> = OnceLock::new();

/// Reads and writes settings below another mount of `proc` from now on: a container that is not privileged has a
/// `/proc/sys` that is read-only, and is given the node's. The first call decides.
pub fn use_procfs(root: &Path) {
    PROCFS.get_or_init(|| root.to_owned());
}

/// Writes a setting, such as `net/ipv4/conf/cilium_host/rp_filter`, unless it has that value already (which also works
/// where `/proc/sys` is read-only). Parts are separated by slashes, since names of interfaces may have dots.
pub fn write(name: &str, value: &str) -> Result<()> {
    if read(name)? == value {
        return Ok(());
    }
    fs::write(path(name), value).map_err(|source| failed(name, source))
}

/// Like [`write`], but false when this kernel has no such setting.
pub fn write_if_present(name: &str, value: &str) -> Result<bool> {
    match write(name, value) {
        Ok(()) => Ok(true),
        Err(Error::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a setting.
pub fn read(name: &str) -> Result<String> {
    let text = fs::read_to_string(path(name)).map_err(|source| failed(name, source))?;
    Ok(text.trim_end().to_owned())
}

fn path(name: &str) -> PathBuf {
    PROCFS.get().map_or(Path::new("/proc"), PathBuf::as_path).join("sys").join(name)
}

fn failed(name: &str, source: io::Error) -> Error {
    Error::Sysctl { name: name.into(), source }
}
