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

/// What to write, and where.
pub struct Inputs {
    /// The kernel; nobody else writes the ipcache's maps.
    pub kernel: Arc<dyn Kernel>,
    /// Bumped when an address changes what it is.
    pub epochs: Epochs,
    /// The writers' tables. Where two have the same prefix, the earlier one here wins.
    pub writers: Vec<Reader<IpEntry>>,
}

/// The ipcache, running.
#[derive(Clone)]
pub struct Ipcache {
    /// The merged entries.
    pub entries: Reader<IpEntry>,
    /// The state of each entry in the kernel.
    pub status: StatusReader<IpEntry>,
    /// The identities that prefixes had in the kernel at start.
    pub restored: Arc<[(IpNet, IdentityId)]>,
    /// Tables, status, routes and metrics.
    pub surface: Surface,
    merged: Derived<IpEntry>,
}

/// Starts keeping the table and the kernel in line with the writers.
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
    /// Returns once everything the writers committed before the call has been tried in the kernel at least once.
    pub async fn attempted(&self) {
        self.merged.caught_up().await;
        self.status.attempted(self.entries.snapshot().revision()).await;
    }
}
