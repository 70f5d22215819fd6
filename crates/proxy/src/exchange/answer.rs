// SPDX-License-Identifier: Apache-2.0
//! Answers of the proxy's own.

use super::body::{BodyError, ResponseBody};
use super::connection::Client;
use super::inbound::Inbound;
use crate::route::Redirect;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use http::uri::Scheme;
use http::{Response, StatusCode};

/// Why a request is not forwarded, or not answered by its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// For the access log: one word.
    pub(super) reason: &'static str,
    /// For the client, which learns nothing of the cluster from it.
    pub(super) text: &'static str,
}

impl Refusal {
    pub(super) const NO_ROUTE: Self = Self::new(StatusCode::NOT_FOUND, "no-route", "no route is for this request");
    pub(super) const MISDIRECTED: Self =
        Self::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", "this connection is not for this host");
    pub(super) const STRANGER: Self =
        Self::new(StatusCode::FORBIDDEN, "stranger", "nothing is known of the pod that this address belongs to");
    pub(super) const DENIED: Self = Self::new(StatusCode::FORBIDDEN, "denied", "policy does not allow this");
    pub(super) const NO_BACKEND: Self =
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "no-backend", "the route's backend is not there");
    pub(super) const NO_ENDPOINT: Self =
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no-endpoint", "no endpoint of the backend is ready");
    pub(super) const UNREACHABLE: Self =
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unreachable", "the backend cannot be reached");
    pub(super) const OVERLOADED: Self =
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "the backend has as many requests as it may");
    pub(super) const TOO_MANY: Self =
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", "there are more requests than allowed");
    pub(super) const NO_LIMIT: Self =
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "no-limit", "nothing is known of how many requests are allowed");
    pub(super) const CUT_OFF: Self = Self::new(StatusCode::BAD_GATEWAY, "cut-off", "the backend gave no answer");
    pub(super) const GARBLED: Self =
        Self::new(StatusCode::BAD_GATEWAY, "garbled", "the backend's answer cannot be read in one way");
    pub(super) const TIMED_OUT: Self =
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "the backend did not answer in time");
    pub(super) const SILENT: Self =
        Self::new(StatusCode::GATEWAY_TIMEOUT, "silent", "nothing has come from the backend for too long");
    pub(super) const LOOP: Self =
        Self::new(StatusCode::LOOP_DETECTED, "loop", "the request comes back again and again");
    pub(super) const BODY_TOO_LARGE: Self =
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "the body is larger than allowed");
    pub(super) const BODY_TIMED_OUT: Self =
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", "the body did not come in time");
    pub(super) const BODY_BROKEN: Self = Self::new(StatusCode::BAD_REQUEST, "body-broken", "the body was cut off");

    pub(super) const fn new(status: StatusCode, reason: &'static str, text: &'static str) -> Self {
        Self { status, reason, text }
    }

    pub(super) fn response(self, grpc: bool) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::whole(""));
        if grpc {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response.headers_mut().insert("grpc-status", grpc_status(self.status).into());
            response.headers_mut().insert("grpc-message", HeaderValue::from_static(self.text));
            return response;
        }
        *response.status_mut() = self.status;
        *response.body_mut() = ResponseBody::whole(self.text);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::BODY_TOO_LARGE,
            BodyError::TimedOut => Self::BODY_TIMED_OUT,
            BodyError::Late => Self::TIMED_OUT,
            BodyError::Broken | BodyError::Slow | BodyError::Withdrawn => Self::BODY_BROKEN,
        }
    }
}

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest, [] | [b'+' | b';', ..]))
}

/// gRPC's code for a status of HTTP, by its own table ("HTTP to gRPC Status Code Mapping").
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// What the route says itself.
pub(super) fn given(status: StatusCode, body: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(body.to_owned()));
    *response.status_mut() = status;
    if !body.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    response
}

/// Sends the client elsewhere.
pub(super) fn redirect(
    redirect: &Redirect,
    client: &Client,
    inbound: &Inbound,
    prefix: usize,
) -> Result<Response<ResponseBody>, Refusal> {
    let own = if client.is_tls() { Scheme::HTTPS } else { Scheme::HTTP };
    let scheme = redirect.scheme.as_ref().unwrap_or(&own);
    let host = redirect.host.as_deref().unwrap_or(&inbound.host);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let default = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    let port = match (redirect.port, &redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(_)) => default,
        (None, None) => client.port,
    };
    let port = if port == default { String::new() } else { format!(":{port}") };
    let uri = &inbound.head.uri;
    let path = redirect.path.as_ref().map_or_else(|| uri.path().to_owned(), |path| path.of(uri.path(), prefix));
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{scheme}://{host}{port}{path}{query}"));
    let mut response = Response::new(ResponseBody::whole(""));
    *response.status_mut() = redirect.status;
    response.headers_mut().insert(LOCATION, location.map_err(|_| Refusal::NO_ROUTE)?);
    Ok(response)
}
