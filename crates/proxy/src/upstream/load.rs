// SPDX-License-Identifier: Apache-2.0
//! How much of a cluster is in use, and who waits for more.

use super::Settings;
use crate::worker::Counted;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tokio::sync::Notify;

/// What a cluster has under way. It outlives changes of the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    pub(super) requests: Arc<AtomicUsize>,
    pub(super) connections: Arc<AtomicUsize>,
    pub(super) retries: Arc<AtomicUsize>,
    /// Copies of other clusters' requests.
    pub(super) copies: Arc<AtomicUsize>,
    /// Requests that wait for a connection.
    pub(super) waiting: Arc<AtomicUsize>,
    /// A connection can be had, perhaps.
    pub(super) freed: Arc<Notify>,
}

/// A connection as one of its cluster. When it ends, another may be opened.
#[derive(Debug)]
pub(crate) struct Slot {
    // Dropped in this order.
    _counted: Counted,
    _freed: Freed,
}

impl Slot {
    /// None if the cluster has as many as it may.
    pub(super) fn take(settings: &Arc<Settings>) -> Option<Self> {
        let counted = Counted::within(&settings.load.connections, settings.cluster.limits.connections)?;
        Some(Self { _counted: counted, _freed: Freed::new(settings) })
    }
}

/// Tells one who waits for a connection, once it is dropped.
#[derive(Debug)]
pub(super) struct Freed(Arc<Settings>);

impl Freed {
    pub(super) fn new(settings: &Arc<Settings>) -> Self {
        Self(Arc::clone(settings))
    }
}

impl Drop for Freed {
    fn drop(&mut self) {
        if self.0.cluster.limits.waiting > 0 {
            self.0.load.freed.notify_one();
        }
    }
}
