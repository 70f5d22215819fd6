// SPDX-License-Identifier: Apache-2.0
//! Copies of requests, whose answers nobody waits for.

use super::body::RequestBody;
use super::connection::Client;
use super::forward::Forward;
use crate::callers::{Caller, Verdict};
use crate::loops::Transport;
use crate::upstream::{Checkout, Sent, Upstream};
use http::Request;
use http_body::Body;
use hyper::body::Incoming;
use rand::Rng;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a mirror may take at most: what it does must not pile up here.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends copies of the request to those mirrors whose share it falls into.
pub(super) fn send(forward: &Forward<'_>, request: &mut Request<RequestBody>) {
    let Forward { client, serving, forwarding, caller, .. } = forward;
    for mirror in &forwarding.mirrors {
        if rand::rng().random_range(0..mirror.share.denominator.max(1)) >= mirror.share.numerator {
            continue;
        }
        let Some(upstream) = serving.upstreams.get(&mirror.cluster).filter(|upstream| upstream.refusal().is_none())
        else {
            continue;
        };
        let Some(under_way) = upstream.begin_copy() else {
            client.shared.metrics.overloaded.inc();
            continue;
        };
        let copy = request.body_mut().mirrored(&client.shared.copies);
        let mut copied = Request::new(copy);
        *copied.method_mut() = request.method().clone();
        *copied.uri_mut() = request.uri().clone();
        *copied.headers_mut() = request.headers().clone();
        let work = exchange(Arc::clone(upstream), copied, Arc::clone(client), caller.clone());
        let (patience, lost) = (PATIENCE.min(client.limits.idle), client.shared.metrics.mirrors_lost.clone());
        tokio::spawn(async move {
            if !timeout(patience, work).await.unwrap_or_default() {
                lost.inc();
            }
            drop(under_way);
        });
        client.shared.metrics.mirrored.inc();
    }
}

/// Whether the mirror has answered.
async fn exchange(
    upstream: Arc<Upstream>,
    request: Request<RequestBody>,
    client: Arc<Client>,
    caller: Option<Caller>,
) -> bool {
    let (Some(_counted), Some(endpoint)) = (upstream.begin(), upstream.choose(&[])) else { return false };
    let allowed = |caller: &Caller| caller.may_reach(endpoint.identity, endpoint.address) == Verdict::Allowed;
    // A copy is asked for as the request was: it would be copied again.
    let comes_back = client.shared.serving.load().places.are_at(Transport::Tcp, endpoint.address);
    if comes_back || !caller.as_ref().is_none_or(allowed) {
        return false;
    }
    let speak = super::forward::speak(&upstream, request.headers(), false);
    let mut checkout = match Checkout::new(&endpoint, speak, client.peer).await {
        Ok(checkout) => checkout,
        Err(error) => {
            endpoint.unreached(&error);
            return false;
        }
    };
    let request = super::forward::addressed(request, &checkout, &upstream);
    let Sent::Answered(response) = checkout.send(request).await else { return false };
    let whole = drain(response.into_body()).await;
    if whole {
        checkout.give_back();
    }
    whole
}

/// Reads to the end, which is what lets a connection be used again.
async fn drain(mut body: Incoming) -> bool {
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if frame.is_err() {
            return false;
        }
    }
    true
}
