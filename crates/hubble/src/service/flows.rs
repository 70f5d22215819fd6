// SPDX-License-Identifier: Apache-2.0
//! Serves flows to one client: first what only the disk has, then the ring.
//!
//! They are read in batches, by threads of which there are few: whatever clients ask for, and however many they are, they take no more
//! processors than that, and one that does not read holds no more than two batches.

mod cursor;
mod lost;
mod reader;
mod search;
#[cfg(test)]
mod tests;
mod workers;

use crate::filter::Filters;
use crate::history::History;
use crate::mask::Mask;
use crate::proto::flow::Flow;
use crate::proto::observer::GetFlowsResponse;
use crate::store::Store;
use reader::{Next, Reader};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::sleep_until;
pub(crate) use workers::Workers;

/// What a client asked for.
pub(crate) struct Query {
    pub(crate) filters: Filters,
    pub(crate) mask: Option<Mask>,
    /// Nanoseconds since 1970.
    pub(crate) since: Option<i64>,
    /// Nanoseconds since 1970.
    pub(crate) until: Option<i64>,
    pub(crate) number: u64,
    pub(crate) first: bool,
    pub(crate) follow: bool,
}

/// The client went away.
struct Gone;

/// Responses that were made together.
pub(crate) type Batch = Vec<GetFlowsResponse>;

/// Serves a client's request until it is complete or the client goes away.
pub(crate) fn subscribe(store: Arc<Store>, query: Query, lost_interval: Duration, workers: Workers) -> Receiver<Batch> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let reader = Reader::new(Arc::clone(&store), query, lost_interval);
        // The client is gone.
        let _ = serve(&store, reader, &workers, &sender).await;
    });
    receiver
}

async fn serve(store: &Store, mut reader: Reader, workers: &Workers, sender: &Sender<Batch>) -> Result<(), Gone> {
    loop {
        let arrived = store.arrived.notified();
        let batch = match reader.next() {
            Next::Batch => {
                let read = workers.run(move || {
                    let batch = reader.read();
                    (reader, batch)
                });
                let batch;
                (reader, batch) = unless_gone(sender, read).await?.ok_or(Gone)?;
                batch
            }
            Next::Event => {
                let due = reader.report_due();
                let timer = async {
                    match due {
                        Some(due) => sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                };
                let wait = async { tokio::select!(() = arrived => {}, () = timer => {}) };
                unless_gone(sender, wait).await?;
                reader.report(false)
            }
            Next::Disk(number) => {
                if let Some(history) = &store.history {
                    unless_gone(sender, history.reaches(number)).await?;
                }
                reader.waited_for(number);
                Batch::new()
            }
            Next::End => {
                return send(sender, reader.report(true)).await;
            }
        };
        send(sender, batch).await?;
    }
}

async fn send(sender: &Sender<Batch>, batch: Batch) -> Result<(), Gone> {
    if batch.is_empty() { Ok(()) } else { sender.send(batch).await.map_err(|_| Gone) }
}

async fn unless_gone<T>(sender: &Sender<Batch>, future: impl Future<Output = T>) -> Result<T, Gone> {
    tokio::select! {
        done = future => Ok(done),
        () = sender.closed() => Err(Gone),
    }
}

impl Query {
    /// All flows from now on.
    pub(crate) fn live(filters: Filters, mask: Option<Mask>) -> Self {
        Self { filters, mask, since: None, until: None, number: 0, first: false, follow: true }
    }

    pub(crate) fn wants(&self, flow: &Flow, time: i64) -> bool {
        self.is_of_time(time) && self.filters.matches(flow)
    }

    fn is_of_time(&self, time: i64) -> bool {
        let (earliest, latest) = self.times();
        earliest <= time && time <= latest
    }

    /// The earliest and latest time that is asked for.
    fn times(&self) -> (i64, i64) {
        (self.since.unwrap_or(i64::MIN), self.until.unwrap_or(i64::MAX))
    }

    /// Whether it asks for all there is, or for all up to a time.
    fn asks_for_all(&self) -> bool {
        let unbounded = self.number == u64::MAX || (self.number == 0 && self.until.is_some() && !self.follow);
        self.since.is_none() && !self.first && unbounded
    }

    /// The history, if it asks for more than the ring and what comes: for a time, or for the last so many.
    fn history<'a>(&self, store: &'a Store) -> Option<&'a History> {
        let reaches_back = self.since.is_some() || self.until.is_some() || (self.number > 0 && !self.first);
        store.history.as_ref().filter(|_| reaches_back)
    }
}
