// SPDX-License-Identifier: Apache-2.0
//! A pod's network namespace by its path.

use super::error::{Code, Error};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A pod's network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    fd: OwnedFd,
    path: String,
}

impl Namespace {
    /// Opens it, if it exists.
    pub(crate) fn open(path: &str) -> Result<Self, Error> {
        let gone = |e| {
            let message = format!("CNI_NETNS {path:?} cannot be opened: is the pod's network namespace gone?");
            Error::because(Code::UnknownContainer, message, statedb::with_causes(&e))
        };
        Ok(Self { fd: datapath::netns::open(Path::new(path)).map_err(gone)?, path: path.to_owned() })
    }

    /// One without a path; the text says whose it is.
    pub(crate) fn of(fd: OwnedFd, whose: &str) -> Self {
        Self { fd, path: whose.to_owned() }
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Another handle to the same namespace.
    pub(crate) fn try_clone(&self) -> std::io::Result<OwnedFd> {
        self.fd.try_clone()
    }
}
