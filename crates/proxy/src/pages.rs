// SPDX-License-Identifier: Apache-2.0
//! Memory in small pages. The allocator asks for large ones, and each that is touched at all is resident as a whole: with five thousand routes
//! that was as much again as they take.

use nix::sys::prctl::{get_thp_disable, set_name, set_thp_disable};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

/// Has this process, and those that it starts, use small pages, from its first byte on: what it has touched before it could ask for them is in large
/// ones, so it begins again.
pub(crate) fn be_small() {
    if let Err(error) = begin_again() {
        tracing::warn!(%error, "cannot disable huge pages");
    }
}

fn begin_again() -> io::Result<()> {
    if get_thp_disable()? {
        return take_name();
    }
    set_thp_disable(true)?;
    // Where that does nothing, beginning again would go on for ever.
    if !get_thp_disable()? {
        return Err(io::Error::other("large pages cannot be turned off"));
    }
    let mut arguments = std::env::args_os();
    let mut again = Command::new("/proc/self/exe");
    again.arg0(arguments.next().unwrap_or_default());
    // It returns only if it could not.
    Err(again.args(arguments).exec())
}

/// The kernel calls a process after the file that was executed, which is `exe` of a process that began again.
fn take_name() -> io::Result<()> {
    let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let name = program.file_name().unwrap_or_default();
    Ok(set_name(&CString::new(name.as_bytes())?)?)
}
