// SPDX-License-Identifier: Apache-2.0
//! Kinds that users install, in the version that they like: the table follows whichever is served.

use super::{Acceptable, IntoIngested, Source, Watches, follower, reflect};
use crate::gateway::{Object, Served, Spec, served};
use kube::{Api, Client};
use rand::Rng;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How often it is asked whether what is served is still the same. Another version comes when users upgrade definitions.
const ASK_SECONDS: RangeInclusive<u64> = 30..=60;

/// Keeps a table equal to the API server, until dropped; see [`Client::reflect_served`](crate::Client::reflect_served).
pub(crate) async fn reflect_served<S, R, I, F>(
    client: Client,
    mut writer: statedb::Writer<R>,
    ingest: F,
    watches: Watches,
) where
    S: Spec,
    R: statedb::Row,
    I: IntoIngested<R> + 'static,
    F: Fn(&Object<S>) -> I + Send + Sync,
{
    let mut known = None;
    loop {
        let next = other_than::<S>(&client, known);
        let now = match known.flatten() {
            None => next.await,
            Some(kind) => {
                let progress = watches.begin(kind.kind.to_owned(), Acceptable::Any);
                let source = Source { api: Api::all_with(client.clone(), &kind), kind, watch: Default::default() };
                let table = follower(&mut writer, kind.kind.to_owned(), &ingest);
                tokio::select! {
                    () = reflect(source, vec![table], progress) => return,
                    now = next => now,
                }
            }
        };
        if now.is_none() {
            writer.replace([]);
            writer.mark_initialized();
        }
        known = Some(now);
    }
}

/// Waits until something else is served than is known.
async fn other_than<S: Spec>(client: &Client, known: Option<Option<Served>>) -> Option<Served> {
    if known.is_some() {
        pause().await;
    }
    loop {
        match served::<S>(client).await {
            Ok(now) if known != Some(now) => return now,
            // Who does not answer has not taken anything away.
            Ok(_) | Err(_) => pause().await,
        }
    }
}

async fn pause() {
    let seconds = rand::rng().random_range(ASK_SECONDS);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[cfg(test)]
mod tests;
