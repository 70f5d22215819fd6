// SPDX-License-Identifier: Apache-2.0
//! Tables derived from other tables by a function.

use std::{collections::BTreeSet, fmt};

use futures::future::{BoxFuture, FutureExt, select_all};
use tokio::sync::{mpsc, oneshot};

use crate::{Changes, Reader, Row, Tasks, Writer, table};

#[cfg(test)]
mod tests;

/// The inputs of a derived table: tables, each with the derived keys that a row of it affects.
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
    /// The first table. When one of its rows is added, changed or removed, the keys that `keys` returns for the old and
    /// the new row are derived again. `keys` may read other tables, through [`Reader::snapshot`] or an
    /// [`Index`](crate::Index): they hold at least what was committed before the change in question.
    pub fn of<R: Row, I: IntoIterator<Item = K>>(table: &Reader<R>, keys: impl Fn(&R) -> I + Send + 'static) -> Self {
        Self::none().and(table, keys)
    }

    /// Adds a table.
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

/// A derived table.
#[derive(Debug)]
pub struct Derived<R: Row> {
    pub rows: Reader<R>,
    requests: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl<R: Row> Clone for Derived<R> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone(), requests: self.requests.clone() }
    }
}

impl<R: Row> Derived<R> {
    /// Returns once everything committed to the inputs before the call has been taken into account. Never returns if
    /// the task has ended.
    pub async fn caught_up(&self) {
        let (done, caught_up) = oneshot::channel();
        let sent = self.requests.send(done).is_ok();
        if !sent || caught_up.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Starts a task that keeps a table equal to a function of other tables.
///
/// `row` returns the row of a key, if there is one, given the previous row and whatever it reads from the current
/// snapshots of the inputs. It is called only for affected keys, and must return a row with the key it was given. The
/// table is empty until every input is complete, and complete with its first commit: an input that is not known yet is
/// never mistaken for an empty one.
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

/// Starts a task that merges the tables of several writers. Where several have a row of the same key, the earliest
/// table wins; when its row goes away, the next one's takes over.
///
/// The result is complete once all inputs are: a writer whose source may be unreachable for long must complete its
/// table without it.
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

    /// Adds the keys affected by changes since the last call.
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
    /// Keys to derive again.
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
                // The caller may have given up.
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
