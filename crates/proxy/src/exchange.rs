// SPDX-License-Identifier: Apache-2.0
//! One request and its answer.

mod answer;
mod backlog;
mod body;
mod connection;
mod copies;
mod cors;
mod disguise;
mod forward;
mod forwarded;
mod frames;
mod inbound;
mod mirror;
mod path;
mod persistence;
mod record;
mod retries;
mod trailers;
mod unread;
mod upgrade;

pub(crate) use backlog::Backlog;
pub(crate) use body::RequestBody;
pub(crate) use connection::{Client, Terminated, serve};
pub(crate) use copies::Room;
pub(crate) use inbound::routed;

use crate::route::{Action, Found, RouteRule};
use crate::serving::{HttpSite, Serving};
use answer::{Refusal, is_grpc};
use body::{Quiet, ResponseBody};
use http::{Request, Response};
use hyper::body::Incoming;
use inbound::Inbound;
use record::Record;
use std::sync::Arc;

/// Answers a request.
async fn handle(client: &Arc<Client>, request: Request<Incoming>) -> Response<ResponseBody> {
    let mut record = Box::new(Record::new(client, &request));
    let grpc = is_grpc(request.headers());
    let answered = answer(client, request, &mut record).await;
    let mut response = answered.unwrap_or_else(|refusal| {
        record.refused(&refusal);
        refusal.response(grpc)
    });
    record.answered(&mut response);
    response.map(|body| body.recorded(record))
}

async fn answer(
    client: &Arc<Client>,
    request: Request<Incoming>,
    record: &mut Record,
) -> Result<Response<ResponseBody>, Refusal> {
    let mut inbound = Inbound::check(client, request)?;
    let serving = client.shared.serving.load_full();
    let site = site(client, &serving, &inbound.host)?;
    if site.mesh.is_some() {
        inbound.caller = Some(serving.callers.get(client.peer.client.ip()).ok_or(Refusal::STRANGER)?);
    }
    // Routes go by what is told of the client, not by what it says itself.
    inbound.forwarded(client, site.trusted_hops)?;
    let found = serving
        .table(site, &inbound.host, inbound.caller.as_ref())
        .and_then(|table| table.find(&inbound.host, &inbound.sought()))
        .ok_or(Refusal::NO_ROUTE)?;
    record.routed(found.route.name(), &inbound.request_id);
    let route = Arc::clone(&found.route);
    if let Some(refused) = limited(&serving, &route, is_grpc(&inbound.head.headers), record)? {
        return Ok(refused);
    }
    let origin = route.filters.cors.as_ref().and_then(|cors| cors::Origin::of(cors, &inbound.head));
    if let Some(origin) = origin.as_ref().filter(|origin| origin.preflight) {
        let mut response = origin.answer(route.filters.cors.as_ref());
        route.filters.response.apply(response.headers_mut());
        return Ok(response);
    }
    let grpc = is_grpc(&inbound.head.headers);
    let answered = act(client, &serving, &found, inbound, record).await;
    let mut response = answered.unwrap_or_else(|refusal| {
        record.refused(&refusal);
        refusal.response(grpc)
    });
    if let (Some(cors), Some(origin)) = (&route.filters.cors, &origin) {
        origin.allow(cors, response.headers_mut());
    }
    route.filters.response.apply(response.headers_mut());
    Ok(response)
}

async fn act(
    client: &Arc<Client>,
    serving: &Serving,
    found: &Found,
    mut inbound: Inbound,
    record: &mut Record,
) -> Result<Response<ResponseBody>, Refusal> {
    match &found.route.action {
        Action::Forward(forwarding) => {
            let caller = inbound.caller.take();
            let end = forwarding.timeout.and_then(|limit| record.end_within(limit));
            let quiet = Quiet::of(&inbound.body, client.limits.idle).ending(end);
            forward::Forward { client, serving, found, forwarding, caller, quiet, traced: true, from: None }
                .run(inbound, record)
                .await
        }
        Action::Redirect(redirect) => answer::redirect(redirect, client, &inbound, found.prefix),
        Action::Answer(status, body) => Ok(answer::given(*status, body)),
        Action::Respond(status) => Err(Refusal::new(*status, "route", "the route has no backend")),
    }
}

/// The answer to a request that its route has no token for.
fn limited(
    serving: &Serving,
    route: &RouteRule,
    grpc: bool,
    record: &mut Record,
) -> Result<Option<Response<ResponseBody>>, Refusal> {
    let Some(name) = &route.given.rate_limit else { return Ok(None) };
    let limiter = serving.limiters.get(name).ok_or(Refusal::NO_LIMIT)?;
    if limiter.take() {
        return Ok(None);
    }
    let refusal = Refusal { status: limiter.status, ..Refusal::TOO_MANY };
    record.refused(&refusal);
    let mut response = refusal.response(grpc);
    limiter.mark(response.headers_mut());
    Ok(Some(response))
}

/// What serves the client as its listener is now.
fn site<'a>(client: &Client, serving: &'a Serving, host: &str) -> Result<&'a Arc<HttpSite>, Refusal> {
    // Who is served no more at this connection is served at another, or refused there.
    let gone = || {
        client.last.cancel();
        Refusal::NO_ROUTE
    };
    let listener = serving.listeners.get(&client.listener).ok_or_else(gone)?;
    let Some(tls) = &client.tls else { return listener.http_site().ok_or_else(gone) };
    // The name in the hello has chosen certificates and verification of the client: it may not ask for what others protect otherwise.
    let (own, asked) = (listener.tls_site(&tls.name), listener.tls_site(host));
    if own.is_some_and(|own| !Arc::ptr_eq(own, &tls.site) && own.verifies() != tls.site.verifies()) {
        // Who opens another is asked for what is wanted now.
        client.last.cancel();
        return Err(Refusal::MISDIRECTED);
    }
    match own.and_then(|own| own.http_site()) {
        Some(_) if !own.zip(asked).is_none_or(|(own, asked)| Arc::ptr_eq(own, asked)) => Err(Refusal::MISDIRECTED),
        Some(site) => Ok(site),
        None => Err(Refusal::MISDIRECTED),
    }
}
