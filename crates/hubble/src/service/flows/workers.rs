// SPDX-License-Identifier: Apache-2.0
//! Threads that read flows. Each client waits for its turn, and gives it up after a batch.

use std::sync::Arc;
use tokio::sync::Semaphore;

/// How many there are.
const WORKERS: usize = 2;

/// Clones share the threads.
#[derive(Clone)]
pub(crate) struct Workers(pub(super) Arc<Semaphore>);

impl Default for Workers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WORKERS)))
    }
}

impl Workers {
    /// Runs it where it may wait for the disk; none if it panics.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let turn = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let working = tokio::task::spawn_blocking(move || {
            // Kept by the work, not by whoever waits for it.
            let _turn = turn;
            work()
        });
        working.await.ok()
    }
}
