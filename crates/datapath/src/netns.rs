// SPDX-License-Identifier: Apache-2.0
//! Network namespaces.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Result};

/// Opens the network namespace that is mounted at, or linked from, that path.
pub fn open(path: &Path) -> Result<OwnedFd> {
    let file = File::open(path).map_err(|source| failed(format!("open {}", path.display()), source))?;
    Ok(file.into())
}

/// A new network namespace, which goes when the last that refers to it does: descriptors, sockets and processes in it.
pub fn create() -> Result<OwnedFd> {
    on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| failed("make a network namespace".into(), errno.into()))?;
        current()
    })
}

/// The network namespace of the calling thread.
pub fn current() -> Result<OwnedFd> {
    open(Path::new("/proc/thread-self/ns/net"))
}

/// The number by which programs know the network namespace of the calling thread; 0 when the kernel does not tell.
#[must_use]
pub fn cookie() -> u64 {
    crate::sys::netns::cookie()
}

/// Runs `work` inside of a network namespace, on a thread of its own that ends with it: no other code can ever find itself
/// in the wrong namespace.
pub fn run<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T> {
    on_a_thread(|| {
        setns(netns, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| failed("enter the network namespace".into(), errno.into()))?;
        Ok(work())
    })
}

/// Runs `work` on a thread that ends with it, whatever it did to its namespaces.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let outcome = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work);
        let thread = thread.map_err(|source| failed("start a thread".into(), source))?;
        Ok(thread.join())
    })?;
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn failed(operation: String, source: io::Error) -> Error {
    Error::Netns { operation, source }
}
