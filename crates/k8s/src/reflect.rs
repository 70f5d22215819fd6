// SPDX-License-Identifier: Apache-2.0
//! Mirrors the API server into a table, through lost watches, expired versions and outages. It never empties a table
//! for lack of knowledge: the last good state stays until a newer one is complete.

mod backoff;
mod guard;
mod mirror;
mod progress;
mod requests;
mod served;

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
pub(crate) use served::reflect_served;
use std::borrow::BorrowMut;
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
    Row(R),
    /// The row of what can be used of the object, and what cannot. Logged once per version of the object.
    Part(R, String),
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

/// A table, and how its rows are made of objects. One watch can feed several.
pub struct Feed<K>(Follower<'static, K>);

impl<K> std::fmt::Debug for Feed<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Feed").finish_non_exhaustive()
    }
}

impl<K: kube::Resource<DynamicType = ()> + 'static> Feed<K> {
    /// Into the writer's table, by that function.
    pub fn new<R: statedb::Row, I: IntoIngested<R>>(
        writer: statedb::Writer<R>,
        ingest: impl Fn(&K) -> I + Send + 'static,
    ) -> Self {
        Self(follower(writer, K::kind(&()).into_owned(), ingest))
    }
}

/// What takes the objects of a watch.
pub(crate) type Follower<'a, K> = Box<dyn Take<Guarded<K>> + 'a>;

/// One that keeps a table, of the writer or of one on loan.
fn follower<'a, K: kube::Resource + 'a, R: statedb::Row, I: IntoIngested<R>>(
    writer: impl BorrowMut<statedb::Writer<R>> + Send + 'a,
    kind: String,
    ingest: impl Fn(&K) -> I + Send + 'a,
) -> Follower<'a, K> {
    let guarded = move |object: &Guarded<K>| match &object.object {
        Ok(object) => ingest(object).into_ingested(),
        Err(reason) => Ingested::Bad(reason.clone()),
    };
    Box::new((Mirror::new(writer, kind), guarded))
}

impl<K> From<Feed<K>> for Follower<'static, K> {
    fn from(feed: Feed<K>) -> Self {
        feed.0
    }
}

/// Something that follows a watch.
pub(crate) trait Take<K>: Send {
    fn apply(&mut self, event: &Event<K>);
    fn commit(&mut self);
}

impl<K, R, W, F> Take<K> for (Mirror<R, W>, F)
where
    K: kube::Resource,
    R: statedb::Row,
    W: BorrowMut<statedb::Writer<R>> + Send,
    F: Fn(&K) -> Ingested<R> + Send,
{
    fn apply(&mut self, event: &Event<K>) {
        let (mirror, ingest) = self;
        mirror.apply(event, &*ingest);
    }

    fn commit(&mut self) {
        self.0.commit();
    }
}

/// Which objects tables are kept equal to.
pub(crate) struct Source<K: kube::Resource> {
    pub(crate) api: Api<K>,
    pub(crate) kind: K::DynamicType,
    pub(crate) watch: watcher::Config,
}

/// Keeps tables equal to the API server, until dropped; see [`Client::reflect`](crate::Client::reflect).
pub(crate) async fn reflect<K>(
    Source { api, kind, watch }: Source<K>,
    followers: Vec<Follower<'_, K>>,
    progress: Arc<Progress>,
) where
    K: kube::Resource<DynamicType: Send> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let seconds = watch.timeout.unwrap_or_else(|| rand::rng().random_range(WATCH_SECONDS));
    let api = guard::api(api, &kind, |client| requests::observed(client, progress.clone()));
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
    follow(stream, followers).await;
}

async fn follow<K: Send>(
    stream: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    mut followers: Vec<Box<dyn Take<K> + '_>>,
) {
    let mut batches = std::pin::pin!(stream.ready_chunks(BATCH));
    while let Some(batch) = batches.next().await {
        for event in batch.into_iter().flatten() {
            followers.iter_mut().for_each(|follower| follower.apply(&event));
        }
        followers.iter_mut().for_each(|follower| follower.commit());
    }
}

#[cfg(test)]
mod tests;
