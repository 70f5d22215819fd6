// SPDX-License-Identifier: Apache-2.0
//! Workers: a thread and a runtime per core. A connection stays where it was given, with the connections to backends that its requests
//! use, so requests of two workers never wait for each other.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// Number of the worker that asks, from 0; 0 on any other thread.
pub(crate) fn index() -> usize {
    INDEX.get()
}

/// All workers.
#[derive(Clone, Debug)]
pub(crate) struct Workers(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts `count` threads, which run until `stop`.
    ///
    /// # Errors
    ///
    /// A thread or its runtime cannot be had.
    pub(crate) fn start(count: usize, stop: &CancellationToken) -> io::Result<Self> {
        let start = |index: usize| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let stop = stop.clone();
            let work = move || {
                INDEX.set(index);
                runtime.block_on(stop.cancelled());
            };
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(work)?;
            Ok(Worker { runtime: handle, connections: Arc::default() })
        };
        (0..count).map(start).collect::<io::Result<Vec<_>>>().map(|workers| Self(workers.into()))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Connections of all.
    pub(crate) fn connections(&self) -> usize {
        self.0.iter().map(|worker| worker.connections.load(Relaxed)).sum()
    }

    /// Gives a connection to the worker that has the fewest.
    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        connection: impl FnOnce() -> F + Send + 'static,
    ) {
        let Some(worker) = self.0.iter().min_by_key(|worker| worker.connections.load(Relaxed)) else { return };
        let counted = Counted::new(&worker.connections);
        worker.runtime.spawn(async move {
            connection().await;
            drop(counted);
        });
    }
}

/// One of something that is counted as long as it is there.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(crate) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }

    /// One more, unless there are `most`.
    pub(crate) fn within(count: &Arc<AtomicUsize>, most: u32) -> Option<Self> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let one = Self::new(count);
        (count.load(Relaxed) <= most).then_some(one)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
