// SPDX-License-Identifier: Apache-2.0
//! A request as it has come in: checked for what would make two readers of it disagree, and without what was for this connection only.

use super::answer::Refusal;
use super::connection::Client;
use super::path::plain_path;
use super::{disguise, forwarded, upgrade};
use crate::callers::Caller;
use crate::framing::{self, Ambiguous};
use crate::route::Sought;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;

/// Longest host name.
const LONGEST_HOST: usize = 253;

/// A request that may be routed.
#[derive(Debug)]
pub(super) struct Inbound {
    /// In lower case, without a port; empty if an HTTP/1.0 client has named none.
    pub(super) host: String,
    /// The URI is path and query only; the host is in the header.
    pub(super) head: Parts,
    pub(super) body: Incoming,
    /// What the connection is to become if the backend agrees.
    pub(super) upgrade: Option<(HeaderValue, OnUpgrade)>,
    pub(super) request_id: HeaderValue,
    /// The pod that asks, if it asks a Service.
    pub(super) caller: Option<Caller>,
}

fn bad(text: &'static str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "bad-request", text)
}

impl Inbound {
    pub(super) fn check(client: &Client, mut request: Request<Incoming>) -> Result<Self, Refusal> {
        if request.method() == Method::CONNECT {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "connect", "CONNECT is not served"));
        }
        if request.headers().len() > client.limits.headers as usize {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Err(Refusal::new(status, "headers-too-large", "the request has more headers than allowed"));
        }
        let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
        if codings.next().is_some_and(|coding| coding != "chunked") || codings.next().is_some() {
            // Who has written it may read what follows otherwise.
            client.last.cancel();
            return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "coding", "the body's coding is not known"));
        }
        if client.limits.body_bytes.is_some_and(|most| request.body().size_hint().lower() > most) {
            return Err(Refusal::BODY_TOO_LARGE);
        }
        let authority = authority(&request)?;
        let host = host_of(authority.as_ref())?;
        let upgrade = upgrade::asked(&mut request);
        let (mut head, body) = request.into_parts();
        let path = plain_path(&head.uri).map_err(bad)?;
        if path == "*" && head.method != Method::OPTIONS {
            return Err(bad("only OPTIONS is asked of everything"));
        }
        head.uri = Uri::from(path);
        strip(&mut head.headers);
        framing::say_length_once(&mut head.headers).map_err(|Ambiguous| bad("the request has more than one length"))?;
        join_cookies(&mut head.headers);
        // With HTTP/2, the host is no header.
        head.headers.insert(HOST, authority.unwrap_or(HeaderValue::from_static("")));
        head.headers.remove(EXPECT);
        disguise::uncover(&mut head.headers);
        let request_id = forwarded::request_id(&mut head.headers);
        Ok(Self { host, head, body, upgrade, request_id, caller: None })
    }

    /// What its route is found by.
    pub(super) fn sought(&self) -> Sought<'_> {
        Sought::new(&self.head.method, &self.head.uri, &self.head.headers)
    }

    /// Tells the backend of the client.
    pub(super) fn forwarded(&mut self, client: &Client, trusted_hops: u32) -> Result<(), Refusal> {
        forwarded::tell(&mut self.head.headers, client, trusted_hops)
    }
}

/// Host and path of a request as they are routed. The error says what is wrong with them.
pub(crate) fn routed(host: &str, path: &str) -> Result<(String, PathAndQuery), &'static str> {
    let host = HeaderValue::from_str(host).map_err(|_| "the host is malformed")?;
    let uri = path.parse().map_err(|_| "the path is malformed")?;
    Ok((host_of(Some(&host)).map_err(|refusal| refusal.text)?, plain_path(&uri)?))
}

/// The host that is asked for, as the client has written it.
fn authority(request: &Request<Incoming>) -> Result<Option<HeaderValue>, Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(bad("the request names more than one host"));
    }
    let authority = request.uri().authority();
    let unnamed = first.is_none() && (authority.is_none() || request.version() == Version::HTTP_11);
    if unnamed && request.version() != Version::HTTP_10 {
        return Err(bad("the request names no host"));
    }
    if let Some(authority) = authority {
        // It is what counts (RFC 9112, 3.2.2).
        return HeaderValue::from_str(authority.as_str()).map(Some).map_err(|_| bad("the host is malformed"));
    }
    Ok(first.cloned())
}

fn host_of(authority: Option<&HeaderValue>) -> Result<String, Refusal> {
    let Some(text) = authority.filter(|authority| !authority.is_empty()) else { return Ok(String::new()) };
    let authority: Authority =
        text.to_str().ok().and_then(|text| text.parse().ok()).ok_or(bad("the host is malformed"))?;
    let host = authority.host();
    if authority.as_str().contains('@') || host.len() > LONGEST_HOST {
        return Err(bad("the host is malformed"));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    Ok(host.to_ascii_lowercase())
}

/// HTTP/2 may bring them apart, HTTP/1.1 may not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    if cookies.nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Takes away what is for one connection only (RFC 9110, 7.6.1), and how the message was framed.
pub(super) fn strip(headers: &mut HeaderMap) {
    const OF_A_CONNECTION: [HeaderName; 6] = [
        CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("http2-settings"),
    ];
    let listed: Vec<HeaderName> = if headers.contains_key(CONNECTION) {
        let tokens = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        tokens.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
    } else {
        Vec::new()
    };
    for name in listed.iter().filter(|name| **name != CONTENT_LENGTH && **name != TE).chain(&OF_A_CONNECTION) {
        headers.remove(name);
    }
    // gRPC's backends want to know that trailers are understood.
    let trailers = headers.get_all(TE).iter().any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

#[cfg(test)]
mod tests {
    use super::strip;
    use http::header::{HeaderMap, HeaderName};

    #[test]
    fn what_is_for_one_connection_stays_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "X-One, close"),
            ("connection", "content-length"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("content-length", "7"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
        ] {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        strip(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "te", "x-two"]);
    }
}
