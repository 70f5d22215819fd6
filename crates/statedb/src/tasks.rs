// SPDX-License-Identifier: Apache-2.0
//! Named, supervised tasks.
//!
//! A process is a list of tasks. When one panics, or a fallible one fails, the process ends: kernel state survives it,
//! and a restart is cheaper than a limping daemon. Tasks are stopped in reverse start order.

use std::{borrow::Cow, collections::BTreeMap, fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error_span};

#[cfg(test)]
mod tests;

/// How long a task may take to end after its token is cancelled.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the process must end: the first task that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {task} failed: {message}")]
pub struct TaskFailure {
    /// Its name.
    pub task: String,
    /// Its panic message or error.
    pub message: String,
}

/// A running task, for lists that people read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskInfo {
    pub name: String,
    /// Since when.
    pub running_for: Duration,
}

/// Starts tasks and keeps track of those running. Clones share the list.
#[derive(Clone, Debug)]
pub struct Tasks {
    token: CancellationToken,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    running: Mutex<Running>,
    failure: watch::Sender<Option<TaskFailure>>,
}

#[derive(Debug, Default)]
struct Running {
    next: u64,
    /// In start order.
    tasks: BTreeMap<u64, Task>,
}

#[derive(Clone, Debug)]
struct Task {
    name: Cow<'static, str>,
    started: Instant,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Tasks {
    /// A new list; cancelling the token ends all its tasks once [`run_until_failure`](Self::run_until_failure) runs.
    pub fn new(token: CancellationToken) -> Self {
        let shared = Shared { running: Mutex::default(), failure: watch::Sender::new(None) };
        Self { token, shared: Arc::new(shared) }
    }

    /// Cancel it to end the whole process, or wait on it for that.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts a task. It may return; on shutdown it is dropped at its next await.
    pub fn spawn(&self, name: impl Into<Cow<'static, str>>, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async {
            future.await;
            Ok::<(), std::convert::Infallible>(())
        });
    }

    /// Starts a task whose error ends the process.
    pub fn spawn_fallible<E: fmt::Display + Send>(
        &self,
        name: impl Into<Cow<'static, str>>,
        future: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.start(name.into(), |stop| async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                result = future => result.map_err(|error| error.to_string()),
            }
        });
    }

    /// Starts a task that shuts down by itself, within seconds of its token being cancelled, because it has something
    /// to clean up.
    pub fn spawn_draining<F>(&self, name: impl Into<Cow<'static, str>>, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start(name.into(), |stop| task(stop).map(Ok));
    }

    /// The running tasks in start order.
    pub fn list(&self) -> Vec<TaskInfo> {
        let running = self.shared.running.lock();
        let info = |task: &Task| TaskInfo { name: task.name.to_string(), running_for: task.started.elapsed() };
        running.tasks.values().map(info).collect()
    }

    /// Waits for the token or the first failure, then ends all tasks in reverse start order.
    pub async fn run_until_failure(self) -> Result<(), TaskFailure> {
        let mut failure = self.shared.failure.subscribe();
        tokio::select! {
            () = self.token.cancelled() => {}
            _ = failure.wait_for(Option::is_some) => {}
        }
        self.token.cancel();
        self.drain().await;
        let failed = failure.borrow().clone();
        failed.map_or(Ok(()), Err)
    }

    fn start<F>(&self, name: Cow<'static, str>, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let entry = Task { name: name.clone(), started: Instant::now(), stop: stop.clone(), ended: ended.clone() };
        let id = {
            let mut running = self.shared.running.lock();
            running.next += 1;
            let id = running.next;
            running.tasks.insert(id, entry);
            id
        };
        let (shared, future) = (Arc::clone(&self.shared), AssertUnwindSafe(task(stop)).catch_unwind());
        let ended = ended.drop_guard();
        // Tag the task's logs with its name, whatever the least level of lines is. In JSON the span's own is under `name`.
        let span = error_span!("task", subsys = %name);
        let run = async move {
            let result = future.await.unwrap_or_else(|panic| Err(panic_message(panic.as_ref())));
            shared.running.lock().tasks.remove(&id);
            if let Err(message) = result {
                shared.fail(TaskFailure { task: name.into_owned(), message });
            }
            drop(ended);
        };
        tokio::spawn(run.instrument(span));
    }

    async fn drain(&self) {
        loop {
            let last = self.shared.running.lock().tasks.pop_last();
            let Some((_, task)) = last else { return };
            task.stop.cancel();
            if tokio::time::timeout(DRAIN, task.ended.cancelled()).await.is_err() {
                tracing::warn!(task = %task.name, "did not stop in time");
            }
        }
    }
}

impl Shared {
    fn fail(&self, failure: TaskFailure) {
        tracing::error!(task = %failure.task, error = %failure.message, "task failed");
        self.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(failure);
            is_first
        });
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", message.as_deref().unwrap_or("no message"))
}
