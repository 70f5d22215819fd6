// SPDX-License-Identifier: Apache-2.0
//! Mirrors the API server into a table, through lost watches, expired versions and outages. It never empties a table
//! for lack of knowledge: the last good state stays until a newer one is complete.

mod backoff;
mod guard;
mod mirror;
mod progress;
mod requests;

use backoff::Backoff;
use futures::{Stream, StreamExt};
use guard::Guarded;
use kube::runtime::utils::StreamBackoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use mirror::Mirror;
use progress::Progress;
pub use progress::WatchFailure;
pub(crate) use progress::{Acceptable, Watches};
use rand::Rng;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// How long a watch lasts; each is randomised, so that watches started together do not end together. The client rejects
/// longer ones.
const WATCH_SECONDS: RangeInclusive<u32> = 200..=290;

/// Changes to batch before committing.
const BATCH: usize = 256;

/// The outcome of ingesting an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Ingested<R> {
    /// This row.
    Row(R),
    /// No row: the object does not concern us, or not yet.
    Nothing,
    /// The object is invalid, and why. Logged once per version of the object; the row of its earlier version stays.
    Bad(String),
}

/// What an ingest function may return: an [`Ingested`], an `Option` of a row, or a `Result` of either.
pub trait IntoIngested<R> {
    /// Converts it.
    fn into_ingested(self) -> Ingested<R>;
}

impl<R> IntoIngested<R> for Ingested<R> {
    fn into_ingested(self) -> Self {
        self
    }
}

impl<R> IntoIngested<R> for Option<R> {
    fn into_ingested(self) -> Ingested<R> {
        self.map_or(Ingested::Nothing, Ingested::Row)
    }
}

impl<R, E: std::fmt::Display> IntoIngested<R> for Result<Option<R>, E> {
    fn into_ingested(self) -> Ingested<R> {
        match self {
            Ok(row) => row.into_ingested(),
            Err(error) => Ingested::Bad(error.to_string()),
        }
    }
}

/// Keeps a table equal to the API server, until dropped; see [`Client::reflect`](crate::Client::reflect).
pub(crate) async fn reflect<K, R, I, F>(
    api: Api<K>,
    watch: watcher::Config,
    writer: statedb::Writer<R>,
    ingest: F,
    progress: Arc<Progress>,
) where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    R: statedb::Row,
    I: IntoIngested<R> + 'static,
    F: Fn(&K) -> I + Send + 'static,
{
    let seconds = watch.timeout.unwrap_or_else(|| rand::rng().random_range(WATCH_SECONDS));
    let api = guard::api(api, |client| requests::observed(client, progress.clone()));
    let noted = progress.clone();
    // With paging, the API server would read from etcd, and the library would not use its cache.
    let watch = watcher::Config { page_size: None, ..watch.timeout(seconds).any_semantic() };
    let events = watcher(api, watch).inspect(move |event| match event {
        // A list that has merely begun proves nothing yet.
        Ok(Event::Init) => {}
        Ok(Event::Apply(object) | Event::Delete(object)) => {
            noted.worked();
            object.resource_version().into_iter().for_each(|version| noted.reached(version));
        }
        Ok(_) => noted.worked(),
        Err(error) => noted.failed(error),
    });
    let stream = StreamBackoff::new(events, Backoff::new(progress));
    let ingest = move |object: &Guarded<K>| match &object.object {
        Ok(object) => ingest(object).into_ingested(),
        Err(reason) => Ingested::Bad(reason.clone()),
    };
    follow(stream, Mirror::new(writer, K::kind(&()).into_owned()), ingest).await;
}

async fn follow<K, R, S, F>(stream: S, mut mirror: Mirror<R>, ingest: F)
where
    K: kube::Resource<DynamicType = ()> + Send,
    R: statedb::Row,
    S: Stream<Item = watcher::Result<Event<K>>> + Send,
    F: Fn(&K) -> Ingested<R> + Send,
{
    let mut batches = std::pin::pin!(stream.ready_chunks(BATCH));
    while let Some(batch) = batches.next().await {
        for event in batch.into_iter().flatten() {
            mirror.apply(event, &ingest);
        }
        mirror.commit();
    }
}

#[cfg(test)]
mod tests;
