// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod api;
mod target;

use datapath::{Epochs, Kernel};
use ipnet::IpNet;
use model::{IdentityId, IpEntry};
use statedb::{Derived, Reader, StatusReader, Tasks};
use std::sync::Arc;
use surface::Surface;
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
#[derive(Clone)]
pub struct Ipcache {
    /// What each prefix is.
    pub entries: Reader<IpEntry>,
    /// How far each entry is in the kernel.
    pub status: StatusReader<IpEntry>,
    /// The identities of prefixes that the kernel had at start.
    pub restored: Arc<[(IpNet, IdentityId)]>,
    /// What it shows of itself.
    pub surface: Surface,
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
    let surface = inputs.writers.iter().fold(Surface::new(), |surface, writer| surface.table(writer));
    let merged = statedb::merge(tasks, "ipcache", inputs.writers);
    let entries = merged.rows.clone();
    let status = statedb::reconcile(tasks, "reconcile-ipcache", entries.clone(), target);
    let surface = surface.table(&entries).reconciler(&status).routes(api::routes(entries.clone()));
    Ok(Ipcache { entries, status, restored, surface, merged })
}

impl Ipcache {
    /// Returns when all that writers committed before the call was tried in the kernel at least once.
    pub async fn attempted(&self) {
        self.merged.caught_up().await;
        self.status.attempted(self.entries.snapshot().revision()).await;
    }
}
