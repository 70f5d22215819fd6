// SPDX-License-Identifier: Apache-2.0
//! Follows the flows of a namespace into its scene, for ever. After a break it goes on where it stopped.

use crate::relay::Relay;
use crate::scenes::{Shared, now};
use hubble::proto::flow::FlowFilter;
use hubble::proto::observer::GetFlowsRequest;
use hubble::proto::timestamp;
use statedb::{Backoff, Retries};
use std::time::Duration;

/// How many flows of the past are asked for.
const HISTORY: u64 = 2_000;
/// Delays between attempts.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));

pub(crate) async fn follow(relay: Relay, namespace: String, scene: Shared) {
    let mut retries = Retries::new(RETRY);
    loop {
        let problem = stream(&relay, &namespace, &scene, &mut retries).await;
        tracing::debug!(namespace, problem, "the stream of flows has ended");
        scene.lock().link.set(Some(problem));
        tokio::time::sleep(retries.failed()).await;
    }
}

/// Takes in flows until there are no more; returns why.
async fn stream(relay: &Relay, namespace: &str, scene: &Shared, retries: &mut Retries) -> String {
    let request = request(namespace, scene.lock().latest());
    let mut flows = match relay.flows(request).await {
        Ok(flows) => flows,
        Err(problem) => return problem,
    };
    scene.lock().link.set(None);
    loop {
        match flows.message().await {
            Ok(Some(answer)) => {
                retries.succeeded();
                scene.lock().take(&answer, now());
            }
            Ok(None) => return "hubble-relay has ended the stream of flows".to_owned(),
            Err(status) => return relay.failed(&status).await,
        }
    }
}

/// The last flows and all to come, or what there was since a time.
fn request(namespace: &str, latest: Option<i64>) -> GetFlowsRequest {
    let prefix = vec![format!("{namespace}/")];
    let either = vec![
        FlowFilter { source_pod: prefix.clone(), ..FlowFilter::default() },
        FlowFilter { destination_pod: prefix, ..FlowFilter::default() },
    ];
    GetFlowsRequest {
        number: if latest.is_some() { 0 } else { HISTORY },
        since: latest.map(|time| timestamp(time.saturating_add(1))),
        follow: true,
        whitelist: if namespace.is_empty() { Vec::new() } else { either },
        ..GetFlowsRequest::default()
    }
}
