// SPDX-License-Identifier: Apache-2.0
//! A pod's network namespace by its path.

use super::error::{Code, Error};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A pod's network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    fd: OwnedFd,
    path: String,
}

impl Namespace {
    /// Opens it, if it exists and is not the node's own, which would lose its default route to a pod's.
    pub(crate) fn open(path: &str) -> Result<Self, Error> {
        let gone = |e| {
            let message = format!("CNI_NETNS {path:?} cannot be opened: is the pod's network namespace gone?");
            Error::because(Code::UnknownContainer, message, statedb::with_causes(&e))
        };
        let fd = datapath::netns::open(Path::new(path)).map_err(gone)?;
        let unclear = |e: &dyn std::error::Error| {
            Error::because(
                Code::Io,
                format!("CNI_NETNS {path:?} cannot be compared with the node's"),
                statedb::with_causes(e),
            )
        };
        let own = datapath::netns::current().map_err(|e| unclear(&e))?;
        if inode(&fd).map_err(|e| unclear(&e))? == inode(&own).map_err(|e| unclear(&e))? {
            let message = format!("CNI_NETNS {path:?} is the network namespace of the node itself, not that of a pod");
            return Err(Error::new(Code::InvalidEnvironment, message));
        }
        Ok(Self { fd, path: path.to_owned() })
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

/// What makes a namespace the same under all of its names.
fn inode(namespace: &OwnedFd) -> io::Result<(u64, u64)> {
    let metadata = File::from(namespace.try_clone()?).metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}
