// SPDX-License-Identifier: Apache-2.0
//! Settings below `/proc/sys/net`, which belong to the network namespace of the calling thread.

use std::fs;
use std::io;

use crate::{Error, Result};

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

fn path(name: &str) -> String {
    format!("/proc/sys/{name}")
}

fn failed(name: &str, source: io::Error) -> Error {
    Error::Sysctl { name: name.into(), source }
}
