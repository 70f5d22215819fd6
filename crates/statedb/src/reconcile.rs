// SPDX-License-Identifier: Apache-2.0
//! The loop that makes a [`Target`] match a table: batching, retries, pruning, status. Written once, here.

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{
    Backoff, Batch, Change, Changes, Reader, Revision, Row, Snapshot, StatusReader, Tasks,
    status::{Failure, Progress},
};

#[cfg(test)]
mod tests;

/// What to do with one key of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation<R: Row> {
    /// As [`Target::update`] does.
    Update(Arc<R>),
    /// As [`Target::delete`] does.
    Delete(R::Key),
}

impl<R: Row> Operation<R> {
    /// The key it applies to.
    pub fn key(&self) -> R::Key {
        match self {
            Self::Update(row) => row.key(),
            Self::Delete(key) => key.clone(),
        }
    }
}

/// External state that is made to match a table. Every operation may be repeated at any time.
pub trait Target<R: Row>: Send + 'static {
    /// Why an operation failed.
    type Error: Error + Send;

    /// Applies a row. Leaves alone whatever already matches.
    fn update(&mut self, row: &R) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Removes what belongs to a key. Removing something absent succeeds. A target that only writes into what others own, such as the
    /// status of an object, leaves nothing behind and needs neither this nor [`prune`](Self::prune).
    fn delete(&mut self, _key: &R::Key) -> impl Future<Output = Result<(), Self::Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Applies several operations in order, at most one per key, and returns the keys that failed. Override it where a
    /// batch is cheaper than one by one.
    fn apply(&mut self, operations: &[Operation<R>]) -> impl Future<Output = Vec<(R::Key, Self::Error)>> + Send {
        async move {
            let mut failures = Vec::new();
            for operation in operations {
                let result = match operation {
                    Operation::Update(row) => self.update(row).await,
                    Operation::Delete(key) => self.delete(key).await,
                };
                failures.extend(result.err().map(|error| (operation.key(), error)));
            }
            failures
        }
    }

    /// Removes everything that is not desired. Called only once the table is complete.
    fn prune(&mut self, _desired: &Snapshot<R>) -> impl Future<Output = Result<(), Self::Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Whether the same operation on the same row would fail again. It is then retried only when the row changes or at
    /// the next full sync.
    fn is_permanent(_error: &Self::Error) -> bool {
        false
    }

    /// Whether what operations failed for lack of has come free since the last call: they are then retried at once.
    fn has_made_room(&mut self) -> bool {
        false
    }
}

/// When to retry and when to compare everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconcileConfig {
    /// How often to do a full sync: prune, then update each row.
    pub full_sync: Duration,
    /// The delay after the first failure of a key; it doubles with each further one, and is between half and all of that.
    pub retry_min: Duration,
    /// The longest delay between attempts.
    pub retry_max: Duration,
}

impl Default for ReconcileConfig {
    fn default() -> Self {
        Self {
            full_sync: Duration::from_secs(30 * 60),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(30),
        }
    }
}

impl ReconcileConfig {
    /// For a target at the API server: after an outage not all nodes ask at once.
    #[must_use]
    pub fn remote() -> Self {
        Self { retry_max: Duration::from_secs(5 * 60), ..Self::default() }
    }

    fn backoff(&self, attempts: u32) -> Duration {
        Backoff::new(self.retry_min, self.retry_max).spread_after(attempts)
    }
}

/// Starts a task that keeps a target in line with a table, with the default [`ReconcileConfig`].
pub fn reconcile<R: Row, T: Target<R>>(
    tasks: &Tasks,
    name: &'static str,
    reader: Reader<R>,
    target: T,
) -> StatusReader<R> {
    reconcile_with(tasks, name, reader, target, ReconcileConfig::default())
}

/// Starts a task that keeps a target in line with a table.
pub fn reconcile_with<R: Row, T: Target<R>>(
    tasks: &Tasks,
    name: &'static str,
    reader: Reader<R>,
    target: T,
    config: ReconcileConfig,
) -> StatusReader<R> {
    let changes = reader.subscribe();
    let progress = Progress {
        applied: changes.snapshot().clone(),
        failing: imbl::OrdMap::new(),
        prune_error: None,
        counters: crate::Counters::default(),
    };
    let (publish, receiver) = watch::channel(progress.clone());
    let reconciler = Reconciler { name, config, target, changes, progress, publish, sync: FullSync::Waiting };
    tasks.spawn(name, reconciler.run());
    StatusReader::new(name, receiver)
}

/// When the next full sync is due.
#[derive(Clone, Copy, Debug)]
enum FullSync {
    /// The table is not complete yet.
    Waiting,
    /// The first one, or a retry of a failed one: rows are up to date, only prune.
    Prune { at: Instant, failures: u32 },
    /// A periodic one.
    Everything { at: Instant },
}

impl FullSync {
    fn at(self) -> Option<Instant> {
        match self {
            Self::Waiting => None,
            Self::Prune { at, .. } | Self::Everything { at } => Some(at),
        }
    }
}

struct Reconciler<R: Row, T> {
    name: &'static str,
    config: ReconcileConfig,
    target: T,
    changes: Changes<R>,
    progress: Progress<R>,
    publish: watch::Sender<Progress<R>>,
    sync: FullSync,
}

impl<R: Row, T: Target<R>> Reconciler<R, T> {
    async fn run(mut self) {
        loop {
            let wake = self.wake_at();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                batch = self.changes.next() => self.apply(batch).await,
                () = sleep => {}
            }
            if self.target.has_made_room() {
                self.hasten();
            }
            self.retry().await;
            self.publish.send_replace(self.progress.clone());
            if self.sync.at().is_some_and(|at| at <= Instant::now()) {
                self.full_sync().await;
                self.publish.send_replace(self.progress.clone());
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let retries = self.progress.failing.values().map(|failure| failure.retry_at);
        retries.chain(self.sync.at()).min()
    }

    async fn apply(&mut self, batch: Batch<R>) {
        self.progress.counters.batches += 1;
        let operation = |change: Change<R>| match change {
            Change::Upsert(row) => {
                let revision = self.changes.snapshot().revision_of(&row.key()).unwrap_or(batch.revision);
                (Operation::Update(row), revision)
            }
            Change::Delete(row) => (Operation::Delete(row.key()), batch.revision),
        };
        let operations = batch.changes.into_iter().map(operation).collect();
        self.operate(operations).await;
        self.progress.applied = self.changes.snapshot().clone();
        if batch.initialized && matches!(self.sync, FullSync::Waiting) {
            self.sync = FullSync::Prune { at: Instant::now(), failures: 0 };
        }
    }

    /// Makes all retries due.
    fn hasten(&mut self) {
        let (now, keys) = (Instant::now(), self.progress.failing.keys().cloned().collect::<Vec<_>>());
        for key in keys {
            if let Some(failure) = self.progress.failing.get_mut(&key) {
                failure.retry_at = now;
            }
        }
    }

    /// Retries failed operations that are due.
    async fn retry(&mut self) {
        let now = Instant::now();
        let progress = &mut self.progress;
        let due = progress.failing.iter().filter(|(_, failure)| failure.retry_at <= now);
        let operation = |(key, failure): (&R::Key, &Failure)| {
            let row = progress.applied.get(key);
            (row.map_or_else(|| Operation::Delete(key.clone()), Operation::Update), failure.revision)
        };
        let operations: Vec<_> = due.map(operation).collect();
        progress.counters.retries += u64::try_from(operations.len()).unwrap_or(u64::MAX);
        self.operate(operations).await;
    }

    /// Applies operations, each due since some commit, and records the outcome.
    async fn operate(&mut self, operations: Vec<(Operation<R>, Revision)>) {
        if operations.is_empty() {
            return;
        }
        let (operations, revisions): (Vec<_>, Vec<_>) = operations.into_iter().unzip();
        let failures: BTreeMap<_, _> = self.target.apply(&operations).await.into_iter().collect();
        // What failed together here is retried together: one call may be cheaper than many.
        let mut waits = BTreeMap::new();
        for (operation, revision) in operations.iter().zip(revisions) {
            let key = operation.key();
            match failures.get(&key) {
                Some(error) => self.failed(key, revision, error, &mut waits),
                None => self.succeeded(operation, &key),
            }
        }
    }

    fn succeeded(&mut self, operation: &Operation<R>, key: &R::Key) {
        match operation {
            Operation::Update(_) => self.progress.counters.updates += 1,
            Operation::Delete(_) => self.progress.counters.deletes += 1,
        }
        if let Some(failure) = self.progress.failing.remove(key) {
            tracing::info!(reconciler = self.name, ?key, attempts = failure.attempts, "recovered");
        }
    }

    /// `waits` are those by the number of attempts.
    fn failed(&mut self, key: R::Key, revision: Revision, error: &T::Error, waits: &mut BTreeMap<u32, Duration>) {
        let message = with_causes(error);
        let attempts = self.progress.failing.get(&key).map_or(0, |failure| failure.attempts).saturating_add(1);
        if attempts == 1 {
            tracing::warn!(reconciler = self.name, ?key, error = %message, "failing");
        }
        self.progress.counters.errors += 1;
        let wait = if T::is_permanent(error) {
            self.config.full_sync
        } else {
            *waits.entry(attempts).or_insert_with(|| self.config.backoff(attempts))
        };
        let retry_at = Instant::now() + wait;
        self.progress.failing.insert(key, Failure { revision, message, attempts, retry_at });
    }

    /// Prunes, and at periodic syncs also applies each row again.
    async fn full_sync(&mut self) {
        let desired = self.progress.applied.clone();
        let (failures, refresh) = match self.sync {
            FullSync::Prune { failures, .. } => (failures, false),
            FullSync::Waiting | FullSync::Everything { .. } => (0, true),
        };
        let pruned = self.target.prune(&desired).await;
        if refresh {
            let operation = |row: &Arc<R>| {
                let revision = desired.revision_of(&row.key()).unwrap_or(desired.revision());
                (Operation::Update(Arc::clone(row)), revision)
            };
            self.operate(desired.iter().map(operation).collect()).await;
        }
        match pruned {
            Ok(()) => {
                self.progress.counters.prunes += 1;
                if self.progress.prune_error.take().is_some() {
                    tracing::info!(reconciler = self.name, "prune recovered");
                }
                self.sync = FullSync::Everything { at: Instant::now() + self.config.full_sync };
            }
            Err(error) => self.prune_failed(failures.saturating_add(1), &error),
        }
    }

    fn prune_failed(&mut self, failures: u32, error: &T::Error) {
        let message = with_causes(error);
        if self.progress.prune_error.is_none() {
            tracing::warn!(reconciler = self.name, error = %message, "prune failing");
        }
        self.progress.counters.errors += 1;
        self.progress.prune_error = Some(message);
        self.sync = FullSync::Prune { at: Instant::now() + self.config.backoff(failures), failures };
    }
}

/// An error and its causes on one line, as a [`Status`](crate::Status) holds it.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
