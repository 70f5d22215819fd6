// SPDX-License-Identifier: Apache-2.0
//! Network namespaces by path, and short visits to them.

use super::error::{Code, Error};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

/// A pod's network namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    file: File,
    path: String,
}

impl Namespace {
    /// Opens it, if it is one.
    pub(super) fn open(path: &str) -> Result<Self, Error> {
        let gone = |e| {
            let message = format!("CNI_NETNS {path:?} cannot be opened: is the pod's network namespace gone?");
            Error::because(Code::UnknownContainer, message, e)
        };
        Ok(Self { file: File::open(path).map_err(gone)?, path: path.to_owned() })
    }

    /// Runs something in the namespace, on this thread. It must not wait, for then others would run in it too.
    pub(super) fn enter<T>(&self, visit: impl FnOnce() -> T) -> Result<T, Error> {
        let failed = |what: &'static str| {
            move |e: std::io::Error| {
                Error::because(Code::Io, format!("network namespace {}: cannot {what}", self.path), e)
            }
        };
        let home = File::open("/proc/thread-self/ns/net").map_err(failed("remember the host's"))?;
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|e| failed("enter it")(e.into()))?;
        let result = visit();
        setns(&home, CloneFlags::CLONE_NEWNET).map_err(|e| failed("return from it")(e.into()))?;
        Ok(result)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
