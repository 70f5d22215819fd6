// SPDX-License-Identifier: Apache-2.0
//! A request goes to a backend: which one, how often, for how long.

use super::answer::{Refusal, is_grpc};
use super::body::{BodyError, BodyFault, Quiet, RequestBody, ResponseBody};
use super::connection::Client;
use super::forwarded::{self, FOR};
use super::inbound::{Inbound, strip};
use super::path::steps_up;
use super::record::Record;
use super::retries::{Retries, idempotent};
use super::{disguise, mirror, persistence, upgrade};
use crate::callers::{Caller, Denied};
use crate::lease::{Judged, Lease, Routed};
use crate::loops::Transport;
use crate::route::{Forwarding, Found, NewPath, Weighted, pick};
use crate::serving::Serving;
use crate::upstream::{Checkout, ConnectError, Endpoint, Sent, Speak, Upstream};
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use l7::BackendProtocol;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Largest body that is kept for another attempt.
const KEPT: u64 = 64 << 10;
/// Endpoints that are tried before the backend counts as unreachable.
const UNREACHED: usize = 3;
/// Kept connections that turn out to be closed before a new one is opened.
const STALE: usize = 8;

/// What a request is forwarded by.
pub(super) struct Forward<'a> {
    pub(super) client: &'a Arc<Client>,
    pub(super) serving: &'a Serving,
    pub(super) found: &'a Found,
    pub(super) forwarding: &'a Forwarding,
    /// The pod that asks, if policy has a say in what it may reach by way of this proxy.
    pub(super) caller: Option<Caller>,
    pub(super) quiet: Quiet,
    /// The request says who has passed it on, by which a loop is told.
    pub(super) traced: bool,
    /// Where the request comes from by what proxies before this one say, if that matters.
    pub(super) from: Option<IpAddr>,
}

/// A backend, its cluster, and the endpoint that the client comes back to.
type Chosen<'a> = (&'a Weighted, Arc<Upstream>, Option<Arc<Endpoint>>);

/// An answer, and what it comes by.
struct Answered {
    response: Response<Incoming>,
    checkout: Checkout,
    endpoint: Arc<Endpoint>,
    /// When the attempt is to be over.
    end: Option<Instant>,
}

/// What became of one attempt.
enum Attempt {
    Answered(Response<Incoming>, Box<Checkout>),
    /// Nothing was sent.
    Unreached(Request<RequestBody>, ConnectError),
    /// The connection was closed meanwhile.
    Stale(Request<RequestBody>),
    /// No answer. The connection had served others before, or not.
    Failed {
        reused: bool,
    },
    /// An answer that is none, or that others could read otherwise. It ends with its connection.
    Garbled,
    TimedOut,
}

impl<'a> Forward<'a> {
    pub(super) async fn run(
        mut self,
        inbound: Inbound,
        record: &mut Record,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let held = self.forwarding.persistence.as_ref();
        let been_at = held.and_then(|held| persistence::backend(held, &inbound.head.headers));
        let (backend, upstream, returning) = self.backend(been_at)?;
        record.cluster(&upstream.settings.cluster.name);
        let by_client = upstream.settings.cluster.by_client;
        self.from = by_client.then(|| forwarded::told(&inbound.head.headers)).flatten();
        if let Some(status) = upstream.refusal() {
            return Err(Refusal::new(status, "cluster", "the backend's configuration is invalid"));
        }
        let Some(counted) = upstream.begin() else {
            self.client.shared.metrics.overloaded.inc();
            return Err(Refusal::OVERLOADED);
        };
        record.hold(counted);
        let fault = BodyFault::default();
        let body = self.body(&inbound.head.headers, inbound.body, &fault).await?;
        let mut request = Request::from_parts(inbound.head, body);
        let passed_on_by = request.headers().get(FOR).cloned();
        self.edit(backend, &mut request)?;
        self.traced = request.headers().get(FOR) == passed_on_by.as_ref();
        let speak = speak(&upstream, request.headers(), inbound.upgrade.is_some());
        let upgrade = inbound.upgrade.filter(|_| speak == Speak::Http1);
        if let Some((protocol, _)) = &upgrade {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(UPGRADE, protocol.clone());
        }
        mirror::send(&self, &mut request);
        record.sends_body(&fault);
        let work = self.attempts(upstream, request, speak, returning, &fault, record);
        let answered = match (self.quiet.end(), self.forwarding.attempt_timeout) {
            (Some(end), _) => timeout_at(end, work).await.map_err(|_| Refusal::TIMED_OUT)??,
            (None, Some(_)) => work.await?,
            (None, None) => self.quiet.wait(work).await.ok_or(Refusal::SILENT)??,
        };
        let upgrade = upgrade.map(|(_, asked)| asked);
        let endpoint = answered.endpoint.address;
        let mut response = self.outbound(answered, upgrade, record)?;
        if let Some(held) = held.filter(|_| been_at != Some(endpoint)) {
            persistence::give(held, endpoint, self.client.is_tls(), response.headers_mut());
        }
        backend.filters.response.apply(response.headers_mut());
        Ok(response)
    }

    /// Where the client has been before, or one by weight.
    fn backend(&self, been_at: Option<SocketAddr>) -> Result<Chosen<'a>, Refusal> {
        let upstream = |backend: &Weighted| -> Result<Arc<Upstream>, Refusal> {
            let refuse = |status| Refusal::new(status, "no-backend", "the route's backend is not there");
            let name = backend.target.as_ref().map_err(|status| refuse(*status))?;
            self.serving.upstreams.get(name).cloned().ok_or(Refusal::NO_BACKEND)
        };
        if let Some(address) = been_at {
            for backend in self.forwarding.backends.iter().filter(|backend| backend.weight > 0) {
                let Ok(upstream) = upstream(backend) else { continue };
                if let Some(endpoint) = upstream.returning(address) {
                    return Ok((backend, upstream, Some(endpoint)));
                }
            }
        }
        let backend = pick(&self.forwarding.backends).ok_or(Refusal::NO_BACKEND)?;
        Ok((backend, upstream(backend)?, None))
    }

    /// The body to send. One that may have to be sent again is read first, if it is small.
    async fn body(&self, headers: &HeaderMap, body: Incoming, fault: &BodyFault) -> Result<RequestBody, Refusal> {
        if body.is_end_stream() {
            return Ok(RequestBody::Whole(Bytes::new()));
        }
        let limits = &self.client.limits;
        let size = body.size_hint().exact().filter(|_| headers.contains_key(CONTENT_LENGTH));
        let kept = self.forwarding.retry.is_some() && size.is_some_and(|size| size <= KEPT);
        let streamed = RequestBody::streamed(body, limits.body_bytes, self.quiet.clone(), Arc::clone(fault));
        if kept { Ok(RequestBody::Whole(collect(streamed).await?)) } else { Ok(streamed) }
    }

    /// Filters of the route, then those of the backend.
    fn edit(&self, backend: &Weighted, request: &mut Request<RequestBody>) -> Result<(), Refusal> {
        for filters in [&self.found.route.filters, &backend.filters] {
            disguise::uncover_as(request.headers_mut(), &filters.request.replaced());
            filters.request.apply(request.headers_mut());
            if let Some(host) = &filters.rewrite.host {
                request.headers_mut().insert(HOST, host.clone());
            }
        }
        // The match was about the path of the request: another one in its place is put there once.
        let path =
            [&backend.filters, &self.found.route.filters].into_iter().find_map(|filters| filters.rewrite.path.as_ref());
        path.map_or(Ok(()), |path| self.rewrite(path, request))
    }

    fn rewrite(&self, path: &NewPath, request: &mut Request<RequestBody>) -> Result<(), Refusal> {
        let uri = request.uri();
        let mut path = path.of(uri.path(), self.found.prefix);
        // What was part of a name may have become a step up.
        if !path.starts_with('/') || steps_up(&path) {
            return Err(Refusal::NO_ROUTE);
        }
        if let Some(query) = uri.query() {
            path = format!("{path}?{query}");
        }
        *request.uri_mut() = Uri::from(PathAndQuery::try_from(path).map_err(|_| Refusal::NO_ROUTE)?);
        Ok(())
    }

    async fn attempts(
        &self,
        mut upstream: Arc<Upstream>,
        mut request: Request<RequestBody>,
        speak: Speak,
        mut returning: Option<Arc<Endpoint>>,
        fault: &BodyFault,
        record: &mut Record,
    ) -> Result<Answered, Refusal> {
        let mut retries = Retries::new(self.forwarding);
        loop {
            let endpoint = self.endpoint(&upstream, returning.take(), &retries.avoid)?;
            record.endpoint(&endpoint);
            let again = retries.copy(&request);
            let attempt = self.attempt(&endpoint, &upstream, request, speak);
            let end = self.forwarding.attempt_timeout.and_then(|limit| Instant::now().checked_add(limit));
            let outcome = match end {
                Some(end) => timeout_at(end, attempt).await.unwrap_or(Attempt::TimedOut),
                None => attempt.await,
            };
            let (refusal, always) = match outcome {
                Attempt::Answered(response, checkout) => {
                    if !(retries.asks_for_another(response.status()) && again.is_some() && retries.take(&upstream)) {
                        return Ok(Answered { response, checkout: *checkout, endpoint, end });
                    }
                    request = again.unwrap_or_default();
                    retries.wait(&endpoint).await;
                    continue;
                }
                Attempt::Unreached(unsent, ConnectError::Limit) => {
                    drop(unsent);
                    self.client.shared.metrics.overloaded.inc();
                    return Err(Refusal::OVERLOADED);
                }
                Attempt::Unreached(unsent, error) => {
                    tracing::debug!(endpoint = %endpoint.address, %error, "an endpoint is left out for a while");
                    endpoint.unreached(&error);
                    self.client.shared.metrics.unreached.inc();
                    retries.unreached += 1;
                    if retries.unreached >= UNREACHED {
                        return Err(Refusal::UNREACHABLE);
                    }
                    retries.avoid.push(endpoint.address);
                    // Perhaps it is gone, and it is known by now.
                    if let Some(now) = self.client.shared.serving.load().upstreams.get(&upstream.settings.cluster.name)
                    {
                        upstream = Arc::clone(now);
                    }
                    request = unsent;
                    continue;
                }
                Attempt::Stale(unsent) => {
                    retries.stale += 1;
                    if retries.stale > STALE {
                        return Err(Refusal::CUT_OFF);
                    }
                    request = unsent;
                    continue;
                }
                Attempt::Failed { reused } => {
                    if let Some(error) = *fault.lock() {
                        return Err(error.into());
                    }
                    // The endpoint has closed a connection that was kept, perhaps before the request reached it.
                    (Refusal::CUT_OFF, reused && idempotent(again.as_ref()))
                }
                Attempt::Garbled => (Refusal::GARBLED, false),
                Attempt::TimedOut => (Refusal::TIMED_OUT, false),
            };
            request = again.ok_or(refusal)?;
            retries.stale += usize::from(always);
            if !(always && retries.stale <= STALE || retries.take(&upstream)) {
                return Err(refusal);
            }
            self.client.shared.metrics.retried.inc();
            if !always {
                retries.wait(&endpoint).await;
            }
        }
    }

    /// The endpoint of the next attempt, if policy lets the client reach it.
    fn endpoint(
        &self,
        upstream: &Upstream,
        returning: Option<Arc<Endpoint>>,
        avoid: &[SocketAddr],
    ) -> Result<Arc<Endpoint>, Refusal> {
        let chosen = returning
            .or_else(|| upstream.choose_for(self.from.unwrap_or(self.client.peer.client.ip()), avoid))
            .ok_or(Refusal::NO_ENDPOINT)?;
        if !self.traced && self.serving.places.are_at(Transport::Tcp, chosen.address) {
            return Err(Refusal::LOOP);
        }
        let Some(caller) = &self.caller else { return Ok(chosen) };
        caller.led_to(upstream, chosen).map_err(|Denied| Refusal::DENIED)?.ok_or(Refusal::NO_ENDPOINT)
    }

    async fn attempt(
        &self,
        endpoint: &Arc<Endpoint>,
        upstream: &Upstream,
        request: Request<RequestBody>,
        speak: Speak,
    ) -> Attempt {
        let mut checkout = match self.checkout(endpoint, upstream, speak).await {
            Ok(checkout) => checkout,
            Err(error) => return Attempt::Unreached(request, error),
        };
        match checkout.send(addressed(request, &checkout, upstream)).await {
            Sent::Answered(response) => Attempt::Answered(response, Box::new(checkout)),
            Sent::Unsent(request) => Attempt::Stale(request),
            Sent::Garbled => Attempt::Garbled,
            Sent::Failed(error) => {
                tracing::debug!(endpoint = %endpoint.address, %error, "a backend gave no answer");
                Attempt::Failed { reused: checkout.reused }
            }
        }
    }

    /// A connection. Where the cluster has as many as it may, some requests may wait for one.
    async fn checkout(
        &self,
        endpoint: &Arc<Endpoint>,
        upstream: &Upstream,
        speak: Speak,
    ) -> Result<Checkout, ConnectError> {
        let mut waiting = None;
        loop {
            match Checkout::new(endpoint, speak, self.client.peer).await {
                Err(ConnectError::Limit) => {
                    waiting = waiting.or_else(|| upstream.begin_wait());
                    if waiting.is_none() {
                        return Err(ConnectError::Limit);
                    }
                    upstream.freed().await;
                }
                result => return result,
            }
        }
    }

    /// The answer for the client.
    fn outbound(
        &self,
        answered: Answered,
        upgrade: Option<OnUpgrade>,
        record: &mut Record,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let Answered { mut response, checkout, endpoint, end } = answered;
        *response.version_mut() = Version::HTTP_11;
        let judged = self.caller.is_some().then(|| Judged { client: self.client.peer.client.ip(), endpoint });
        let terms = Routed { client: Arc::clone(self.client), route: self.found.route.name().clone(), judged };
        let lease = Lease::new(&self.client.shared, self.serving.number, terms);
        let protocol = response.headers().get(UPGRADE).cloned();
        strip(response.headers_mut());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let quiet = self.quiet.clone().ending(end);
            record.ends(quiet.end());
            return Ok(response.map(|body| ResponseBody::from_backend(body, quiet, checkout, lease)));
        }
        let (Some(upgrade), Some(protocol)) = (upgrade, protocol) else { return Err(Refusal::CUT_OFF) };
        upgrade::agree(self.client, upgrade, &mut response, (checkout, record.release()), lease);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(UPGRADE, protocol);
        Ok(response.map(|_| ResponseBody::whole("")))
    }
}

async fn collect(mut body: RequestBody) -> Result<Bytes, BodyError> {
    let mut all = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        all.extend_from_slice(frame?.data_ref().unwrap_or(&Bytes::new()));
    }
    Ok(all.freeze())
}

/// Which HTTP a request may reach a cluster in.
pub(super) fn speak(upstream: &Upstream, headers: &HeaderMap, upgrade: bool) -> Speak {
    match upstream.settings.cluster.protocol {
        BackendProtocol::Http1 => Speak::Http1,
        BackendProtocol::Http2 => Speak::Http2,
        BackendProtocol::Auto if upgrade => Speak::Http1,
        BackendProtocol::Auto if is_grpc(headers) => Speak::Http2,
        BackendProtocol::Auto if upstream.settings.tls.is_some() => Speak::Either,
        BackendProtocol::Auto => Speak::Http1,
    }
}

/// The request as the connection's version of HTTP names the host.
pub(super) fn addressed(
    mut request: Request<RequestBody>,
    checkout: &Checkout,
    upstream: &Upstream,
) -> Request<RequestBody> {
    let named = request.headers().get(HOST).is_some_and(|host| !host.is_empty());
    if !named && let Ok(host) = HeaderValue::from_str(&checkout.address().to_string()) {
        request.headers_mut().insert(HOST, host);
    }
    if !checkout.is_http2() {
        *request.version_mut() = Version::HTTP_11;
        // Some methods would lose a body that nothing tells of.
        if !request.body().is_end_stream() && !request.headers().contains_key(CONTENT_LENGTH) {
            request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
        return request;
    }
    *request.version_mut() = Version::HTTP_2;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    let host = request.headers_mut().remove(HOST);
    parts.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    parts.scheme = Some(if upstream.settings.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request
}
