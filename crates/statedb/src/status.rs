// SPDX-License-Identifier: Apache-2.0
//! What a reconciler has done: per key, per revision and in numbers.
//!
//! The status keeps the snapshot that was applied and the keys that fail, so it costs a healthy table nothing per row.

use std::fmt;

use imbl::OrdMap;
use tokio::sync::watch;

use crate::{Revision, Row, Snapshot};

/// The state of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The commit of the row last tried.
    pub revision: Revision,
    /// The outcome.
    pub state: State,
}

/// The outcome of applying a row to the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The target agrees.
    Done,
    /// It does not, and will be retried.
    Error {
        /// The error of the last attempt.
        message: String,
        /// Consecutive failed attempts.
        attempts: u32,
    },
}

/// What a reconciler has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Batches of changes taken from the table.
    pub batches: u64,
    /// Rows applied.
    pub updates: u64,
    /// Keys deleted.
    pub deletes: u64,
    /// Full syncs that succeeded.
    pub prunes: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Operations that were retries.
    pub retries: u64,
}

/// Summary of a reconciler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The reconciler's name.
    pub name: &'static str,
    /// The commit up to which everything has been tried at least once.
    pub revision: Revision,
    /// Whether the table was complete at that commit.
    pub initialized: bool,
    /// Whether the target has been pruned at least once.
    pub pruned: bool,
    /// Rows of the table.
    pub rows: usize,
    /// Keys that are failing.
    pub failing: usize,
    /// Why the last full sync failed, if it did.
    pub prune_error: Option<String>,
    /// What was done.
    pub counters: Counters,
}

/// Observes the progress of a reconciler.
#[derive(Debug)]
pub struct StatusReader<R: Row> {
    name: &'static str,
    receiver: watch::Receiver<Progress<R>>,
}

impl<R: Row> Clone for StatusReader<R> {
    fn clone(&self) -> Self {
        Self { name: self.name, receiver: self.receiver.clone() }
    }
}

impl<R: Row> StatusReader<R> {
    pub(crate) fn new(name: &'static str, receiver: watch::Receiver<Progress<R>>) -> Self {
        Self { name, receiver }
    }

    /// The reconciler's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The state of one key; `None` when there is neither a row nor a failing deletion.
    pub fn get(&self, key: &R::Key) -> Option<Status> {
        self.receiver.borrow().status(key)
    }

    /// The failing keys and their errors.
    pub fn failing(&self) -> Vec<(R::Key, Status)> {
        let progress = self.receiver.borrow();
        progress.failing.iter().map(|(key, failure)| (key.clone(), failure.status())).collect()
    }

    /// Figures for people and metrics.
    pub fn summary(&self) -> Summary {
        let progress = self.receiver.borrow();
        Summary {
            name: self.name,
            revision: progress.applied.revision,
            initialized: progress.applied.initialized,
            pruned: progress.counters.prunes > 0,
            rows: progress.applied.len(),
            failing: progress.failing.len(),
            prune_error: progress.prune_error.clone(),
            counters: progress.counters,
        }
    }

    /// Returns once every change up to a commit is applied. One failing key holds it up: to wait for a single row, use
    /// [`applied`](Self::applied).
    pub async fn reached(&self, revision: Revision) {
        self.wait_for(|progress| {
            let oldest_failure = progress.failing.values().map(|failure| failure.revision).min();
            progress.applied.revision >= revision && oldest_failure.is_none_or(|failed| failed > revision)
        })
        .await;
    }

    /// Returns once every change up to a commit has been tried at least once.
    pub async fn attempted(&self, revision: Revision) {
        self.wait_for(|progress| progress.applied.revision >= revision).await;
    }

    /// Returns once a commit has been seen and the target agrees with the table about one key, including its absence.
    pub async fn applied(&self, key: &R::Key, revision: Revision) {
        self.wait_for(|progress| progress.applied.revision >= revision && !progress.failing.contains_key(key)).await;
    }

    /// Returns once the target has been pruned: from then on it holds nothing that the table does not.
    pub async fn pruned(&self) {
        self.wait_for(|progress| progress.counters.prunes > 0).await;
    }

    /// Returns once anything has changed since the last call, or since this reader was created.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn wait_for(&self, condition: impl FnMut(&Progress<R>) -> bool) {
        let mut receiver = self.receiver.clone();
        let gone = receiver.wait_for(condition).await.is_err();
        if gone {
            std::future::pending::<()>().await;
        }
    }
}

/// What the reconciler publishes.
pub(crate) struct Progress<R: Row> {
    /// The table as of the last batch.
    pub(crate) applied: Snapshot<R>,
    pub(crate) failing: OrdMap<R::Key, Failure>,
    pub(crate) prune_error: Option<String>,
    pub(crate) counters: Counters,
}

impl<R: Row> fmt::Debug for Progress<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("revision", &self.applied.revision).field("failing", &self.failing).finish()
    }
}

impl<R: Row> Clone for Progress<R> {
    fn clone(&self) -> Self {
        Self {
            applied: self.applied.clone(),
            failing: self.failing.clone(),
            prune_error: self.prune_error.clone(),
            counters: self.counters,
        }
    }
}

impl<R: Row> Progress<R> {
    fn status(&self, key: &R::Key) -> Option<Status> {
        let done = |revision| Status { revision, state: State::Done };
        self.failing.get(key).map(Failure::status).or_else(|| self.applied.revision_of(key).map(done))
    }
}

/// A key whose last operation failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) revision: Revision,
    pub(crate) message: String,
    pub(crate) attempts: u32,
    pub(crate) retry_at: tokio::time::Instant,
}

impl Failure {
    fn status(&self) -> Status {
        let state = State::Error { message: self.message.clone(), attempts: self.attempts };
        Status { revision: self.revision, state }
    }
}
