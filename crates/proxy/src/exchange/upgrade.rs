// SPDX-License-Identifier: Apache-2.0
//! Connections that become something else: WebSocket and its like. Only HTTP/1.1 has them.

use super::connection::Client;
use crate::lease::{Lease, Routed};
use crate::stream::join;
use crate::upstream::Checkout;
use crate::worker::Counted;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, on};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// What a client wants its connection to become. HTTP/2 in clear is not something to become: it would hide requests from this proxy.
pub(super) fn asked(request: &mut Request<Incoming>) -> Option<(HeaderValue, OnUpgrade)> {
    let listed = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")))
    };
    let headers = request.headers();
    if request.version() != Version::HTTP_11 || !headers.get_all(CONNECTION).iter().any(listed) {
        return None;
    }
    let mut protocols = headers.get_all(UPGRADE).iter();
    let (Some(protocol), None) = (protocols.next().cloned(), protocols.next()) else { return None };
    let known = protocol.to_str().is_ok_and(|text| !text.to_ascii_lowercase().contains("h2c"));
    known.then(|| (protocol, on(request)))
}

/// Two connections that are to be joined, by the task of the client's. They count as what they were until they end.
pub(crate) struct Joined(pub(super) Pin<Box<dyn Future<Output = ()> + Send>>);

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Joined")
    }
}

/// Has the two connections joined once both have become what was agreed.
pub(super) fn agree(
    client: &Client,
    asked: OnUpgrade,
    response: &mut Response<Incoming>,
    held: (Checkout, Option<Counted>),
    mut lease: Lease<Routed>,
) {
    let agreed = on(response);
    let idle = client.limits.idle;
    // What comes from now on is no request's head, and has no time to be one.
    let busy = client.activity.begin();
    *client.upgraded.lock() = Some(Joined(Box::pin(async move {
        if let (Ok(client), Ok(backend)) = tokio::join!(asked, agreed) {
            join(TokioIo::new(client), TokioIo::new(backend), idle, || lease.holds()).await;
        }
        drop((held, busy));
    })));
}
