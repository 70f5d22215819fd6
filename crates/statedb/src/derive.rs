// SPDX-License-Identifier: Apache-2.0
//! Tables that follow from other tables by one function.

use std::{collections::BTreeSet, fmt};

use futures::future::{BoxFuture, FutureExt, select_all};
use tokio::sync::{mpsc, oneshot};

use crate::{Changes, Reader, Row, Tasks, Writer, table};

#[cfg(test)]
mod tests;

/// What a derived table is made of: tables, each with the keys of the derived one that a row of it bears on.
pub struct Inputs<K> {
    inputs: Vec<Box<dyn Input<K>>>,
}

impl<K> fmt::Debug for Inputs<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inputs").field("tables", &self.inputs.len()).finish()
    }
}

impl<K> Inputs<K> {
    fn none() -> Self {
        Self { inputs: Vec::new() }
    }

    async fn changed(&mut self) {
        if self.inputs.is_empty() {
            std::future::pending::<()>().await;
        }
        select_all(self.inputs.iter_mut().map(|input| input.changed())).await;
    }

    fn complete(&self) -> bool {
        self.inputs.iter().all(|input| input.initialized())
    }
}

impl<K: Ord + 'static> Inputs<K> {
    /// The first table. When a row of it comes, changes or goes, the keys that `keys` names for the row as it was and as it is
    /// are derived anew. `keys` may look into other tables, by [`Reader::snapshot`] or an [`Index`](crate::Index): they hold
    /// at least what was committed before the change that it is asked about.
    pub fn of<R: Row, I: IntoIterator<Item = K>>(table: &Reader<R>, keys: impl Fn(&R) -> I + Send + 'static) -> Self {
        Self::none().and(table, keys)
    }

    /// A further table.
    #[must_use]
    pub fn and<R: Row, I: IntoIterator<Item = K>>(
        mut self,
        table: &Reader<R>,
        keys: impl Fn(&R) -> I + Send + 'static,
    ) -> Self {
        self.inputs.push(Box::new(Table { changes: table.subscribe(), keys }));
        self
    }
}

/// A table that follows from others.
#[derive(Debug)]
pub struct Derived<R: Row> {
    /// Its rows.
    pub rows: Reader<R>,
    requests: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl<R: Row> Clone for Derived<R> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone(), requests: self.requests.clone() }
    }
}

impl<R: Row> Derived<R> {
    /// Returns when all that was committed to the inputs before the call has been taken into account. Waits for ever if the
    /// task has ended.
    pub async fn caught_up(&self) {
        let (done, caught_up) = oneshot::channel();
        let sent = self.requests.send(done).is_ok();
        if !sent || caught_up.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Starts a task that keeps a table equal to what a function makes of other tables.
///
/// `row` says for a key which row there is, if any, from the present snapshots of the inputs and the row as it was. It is
/// asked only for keys that a change bears on, and must answer with a row of the key that it was asked for. The table is empty until every input is
/// complete, and complete with its first commit: an input that is not known yet cannot look like one without rows.
pub fn derive<R: Row>(
    tasks: &Tasks,
    name: &'static str,
    inputs: Inputs<R::Key>,
    row: impl FnMut(&R::Key, Option<&R>) -> Option<R> + Send + 'static,
) -> Derived<R> {
    let (writer, rows) = table(name);
    let (requests, receiver) = mpsc::unbounded_channel();
    let deriver = Deriver { inputs, row, writer, dirty: BTreeSet::new() };
    tasks.spawn(name, deriver.run(receiver));
    Derived { rows, requests }
}

/// Starts a task that keeps one table of what several writers say, each in a table of its own. Of rows with one key that of the
/// earlier table counts, and when it goes, that of the next.
///
/// It is complete when all of them are: a writer that may be away for long has to complete its table without what it cannot
/// know.
pub fn merge<R: Row>(tasks: &Tasks, name: &'static str, tables: impl IntoIterator<Item = Reader<R>>) -> Derived<R> {
    let tables: Vec<_> = tables.into_iter().collect();
    let inputs = tables.iter().fold(Inputs::none(), |inputs, table| inputs.and(table, |row: &R| [row.key()]));
    derive(tasks, name, inputs, move |key, _| {
        let row = tables.iter().find_map(|table| table.snapshot().get(key));
        row.map(|row| R::clone(&row))
    })
}

trait Input<K>: Send {
    fn changed(&mut self) -> BoxFuture<'_, ()>;

    /// Adds the keys that changes since the last call bear on.
    fn collect(&mut self, dirty: &mut BTreeSet<K>);

    /// Whether the table was complete at the last [`collect`](Self::collect).
    fn initialized(&self) -> bool;
}

struct Table<R: Row, F> {
    changes: Changes<R>,
    keys: F,
}

impl<K: Ord, R: Row, I: IntoIterator<Item = K>, F: Fn(&R) -> I + Send> Input<K> for Table<R, F> {
    fn changed(&mut self) -> BoxFuture<'_, ()> {
        self.changes.changed().boxed()
    }

    fn collect(&mut self, dirty: &mut BTreeSet<K>) {
        let before = self.changes.advance();
        for step in before.steps_to(self.changes.snapshot()) {
            for row in step.old.into_iter().chain(step.new) {
                dirty.extend((self.keys)(row));
            }
        }
    }

    fn initialized(&self) -> bool {
        self.changes.snapshot().initialized()
    }
}

struct Deriver<R: Row, F> {
    inputs: Inputs<R::Key>,
    row: F,
    writer: Writer<R>,
    /// Keys that have to be derived anew.
    dirty: BTreeSet<R::Key>,
}

impl<R: Row, F: FnMut(&R::Key, Option<&R>) -> Option<R> + Send> Deriver<R, F> {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
        self.follow();
        loop {
            let request = tokio::select! {
                () = self.inputs.changed() => None,
                Some(request) = requests.recv() => Some(request),
            };
            self.follow();
            if let Some(request) = request {
                // Who asked may have lost patience.
                let _ = request.send(());
            }
        }
    }

    fn follow(&mut self) {
        for input in &mut self.inputs.inputs {
            input.collect(&mut self.dirty);
        }
        if !self.inputs.complete() {
            return;
        }
        let before = self.writer.snapshot();
        for key in std::mem::take(&mut self.dirty) {
            match (self.row)(&key, before.get(&key).as_deref()) {
                Some(row) => self.writer.insert(row),
                None => self.writer.remove(&key),
            }
        }
        self.writer.mark_initialized();
    }
}
