// SPDX-License-Identifier: Apache-2.0
//! Keeps a table equal to what the API server has, through lost watches, expired versions and an API server that is
//! away. It never empties a table because it knows nothing: the last good state stays until a newer one is complete.

mod backoff;
mod guard;
mod mirror;

use crate::client::chain;
use backoff::Backoff;
use futures::{Stream, StreamExt};
use guard::Guarded;
use kube::Api;
use kube::runtime::utils::StreamBackoff;
use kube::runtime::watcher::{self, Event, watcher};
use mirror::Mirror;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::atomic::Ordering;

/// A watch without a word for this long is opened anew, so that a connection that died silently is noticed. The API
/// server sends a bookmark every minute.
const WATCH_SECONDS: u32 = 90;

/// Changes that are taken together before the table's readers are told.
const BATCH: usize = 256;

/// What an ingest function makes of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Ingested<R> {
    /// This row.
    Row(R),
    /// No row: the object is none of our business, or not yet.
    Nothing,
    /// The object is bad, and why. It is logged once per version of the object, and the row that an earlier version
    /// gave stays.
    Bad(String),
}

/// What an ingest function may return: an [`Ingested`], an `Option` of a row, or a `Result` of either.
pub trait IntoIngested<R> {
    /// The same, spelt out.
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

/// Keeps a table equal to the API server, until dropped.
///
/// The table is marked initialised after the first complete list. A new list, whenever one is needed, replaces the rows
/// at once; until it is complete the old ones stay. An object that cannot be decoded does not hide the others: it is a
/// bad object like those that `ingest` calls bad.
pub async fn reflect<K, R, I, F>(api: Api<K>, watch: watcher::Config, writer: statedb::Writer<R>, ingest: F)
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    R: statedb::Row,
    I: IntoIngested<R> + 'static,
    F: Fn(&K) -> I + Send + 'static,
{
    let watch = watcher::Config { timeout: watch.timeout.or(Some(WATCH_SECONDS)), ..watch };
    let backoff = Backoff::default();
    let seen = backoff.seen();
    let events = watcher(guard::api(api), watch).inspect(move |event| match event {
        Ok(Event::Init) => {}
        Ok(_) => seen.worked.store(true, Ordering::Relaxed),
        Err(error) => seen.not_served.store(is_not_served(error), Ordering::Relaxed),
    });
    let stream = StreamBackoff::new(events, backoff);
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
    let mut failing = false;
    let mut batches = std::pin::pin!(stream.ready_chunks(BATCH));
    while let Some(batch) = batches.next().await {
        for event in batch {
            match event {
                Ok(event) => {
                    // A list that merely begins proves nothing yet.
                    if failing && !matches!(event, Event::Init) {
                        failing = false;
                        tracing::info!(kind = mirror.kind(), "API server answers again");
                    }
                    mirror.apply(event, &ingest);
                }
                Err(error) if is_expired(&error) => {
                    tracing::debug!(kind = mirror.kind(), "the watch's version has expired, listing again");
                }
                Err(error) if is_not_served(&error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::info!(kind = mirror.kind(), "the API server does not serve this kind yet, waiting");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(kind = mirror.kind(), error = %chain(&error), "watch failed, keeping the last state");
                    }
                }
            }
        }
        mirror.commit();
    }
}

/// 410 Gone: the ordinary way of being told to list again.
fn is_expired(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => status.code == 410,
        watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => status.code == 410,
        _ => false,
    }
}

/// 404 to a list: the kind is not registered.
fn is_not_served(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

#[cfg(test)]
mod tests;
