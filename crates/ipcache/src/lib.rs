// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod target;

use datapath::{Epochs, Kernel};
use ipnet::IpNet;
use model::{IdentityId, IpEntry};
use statedb::{Derived, Reader, StatusReader, Tasks};
use std::sync::Arc;
use target::IpcacheTarget;

#[cfg(test)]
mod tests;

/// What is written, and where to.
pub struct Inputs {
    /// Maps; nobody else writes those of the ipcache.
    pub kernel: Arc<dyn Kernel>,
    /// Raised when an address becomes something else.
    pub epochs: Epochs,
    /// What each writer says of addresses. Of two that speak of one prefix, the earlier here counts.
    pub writers: Vec<Reader<IpEntry>>,
}

/// The ipcache, running.
#[derive(Clone, Debug)]
pub struct Ipcache {
    /// What each prefix is.
    pub entries: Reader<IpEntry>,
    /// How far each entry is in the kernel.
    pub status: StatusReader<IpEntry>,
    /// The identities of prefixes that the kernel had at start.
    pub restored: Arc<[(IpNet, IdentityId)]>,
    merged: Derived<IpEntry>,
}

/// Starts to keep the table and the kernel equal to what writers say.
///
/// # Errors
///
/// A map cannot be opened or read.
pub fn start(inputs: Inputs, tasks: &Tasks) -> datapath::Result<Ipcache> {
    let target = IpcacheTarget::open(&inputs.kernel, inputs.epochs)?;
    let restored = target.identities().into();
    let merged = statedb::merge(tasks, "ipcache", inputs.writers);
    let entries = merged.rows.clone();
    let status = statedb::reconcile(tasks, "reconcile-ipcache", entries.clone(), target);
    Ok(Ipcache { entries, status, restored, merged })
}

impl Ipcache {
    /// Returns when all that writers committed before the call was tried in the kernel at least once.
    pub async fn attempted(&self) {
        self.merged.caught_up().await;
        self.status.attempted(self.entries.snapshot().revision()).await;
    }
}
