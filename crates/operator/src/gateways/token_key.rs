// SPDX-License-Identifier: Apache-2.0
//! Makes the key of session persistence where there is none. One that is there is never changed: clients would lose their backends.

use super::FIELD_MANAGER;
use gateway::TokenKey;
use k8s::Client;
use k8s::k8s_openapi::api::core::v1::Secret;
use k8s::kube::Error;
use k8s::kube::api::PostParams;
use statedb::{Backoff, Reader, Retries};
use std::time::Duration;

const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// What was made is seen by then.
const SEEN: Duration = Duration::from_secs(10);

/// Keeps one there.
pub(super) async fn keep(client: Client, namespace: String, keys: Reader<TokenKey>) {
    keys.initialized().await;
    let mut changes = keys.subscribe();
    let mut retries = Retries::new(RETRY);
    loop {
        while !keys.snapshot().is_empty() {
            changes.next().await;
        }
        match make(&client, &namespace).await {
            Ok(()) => {
                retries.succeeded();
                let _seen = tokio::time::timeout(SEEN, changes.next()).await;
            }
            Err(error) => {
                tracing::warn!(error = k8s::chain(&error), "there is no key for session persistence");
                tokio::time::sleep(retries.failed()).await;
            }
        }
    }
}

async fn make(client: &Client, namespace: &str) -> Result<(), Error> {
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let secret = gateway::token_key_secret(rand::random());
    match client.namespaced::<Secret>(namespace).create(&params, &secret).await {
        Err(Error::Api(status)) if status.code == 409 => Ok(()),
        made => made.map(drop),
    }
}
