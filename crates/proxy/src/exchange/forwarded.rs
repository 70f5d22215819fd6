// SPDX-License-Identifier: Apache-2.0
//! What backends are told of the client: `X-Forwarded-*`, `X-Request-Id` and the like.

use super::answer::Refusal;
use super::connection::Client;
use super::disguise::{folded, is_of_proxies, remove_where};
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use std::net::IpAddr;

pub(super) const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const EXTERNAL: HeaderName = HeaderName::from_static("x-envoy-external-address");
const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const PROXY: HeaderName = HeaderName::from_static("proxy");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How many may have passed a request on.
const MOST_HOPS: usize = 16;
/// Longest request ID of a client that is passed on.
const LONGEST_ID: usize = 128;

/// The client's ID of the request, if it can be one, or a new one.
pub(super) fn request_id(headers: &mut HeaderMap) -> HeaderValue {
    let usable = |id: &&HeaderValue| !id.is_empty() && id.len() <= LONGEST_ID && id.to_str().is_ok();
    if let Some(id) = headers.get(REQUEST_ID).filter(usable) {
        return id.clone();
    }
    // Random bits suffice, and cost less than the kernel's.
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let id = HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).unwrap_or(HeaderValue::from_static("-"));
    headers.insert(REQUEST_ID, id.clone());
    id
}

/// Tells of the client. What it says of itself is believed only if it is a proxy that is trusted. A request that too many have passed on
/// comes from here itself.
pub(super) fn tell(headers: &mut HeaderMap, client: &Client, trusted_hops: u32) -> Result<(), Refusal> {
    let address = client.peer.client.ip().to_canonical();
    let outside = outside(headers, trusted_hops);
    if outside.is_none() {
        forget_proxies_words(headers);
    }
    // The proxy before this one is believed by where it is, which is no proof of whose certificate it has seen. Envoy takes it away too.
    headers.remove(CLIENT_CERTIFICATE);
    let external = outside.as_ref().and_then(|told| told.trim().parse().ok()).unwrap_or(address);
    let text = address.to_string();
    let chain = headers.get_all(FOR).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(", ");
    if chain.split(',').count() >= MOST_HOPS {
        return Err(Refusal::LOOP);
    }
    let chain = if chain.is_empty() { text } else { format!("{chain}, {text}") };
    put(headers, FOR, &chain);
    put(headers, EXTERNAL, &external.to_string());
    // Some programs take it for the proxy that they are to use themselves.
    headers.remove(PROXY);
    if outside.is_some() {
        headers.entry(PROTO).or_insert(HeaderValue::from_static(client.scheme()));
        return Ok(());
    }
    headers.insert(PROTO, HeaderValue::from_static(client.scheme()));
    headers.insert(FORWARDED_PORT, client.port.into());
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert(FORWARDED_HOST, host);
    }
    Ok(())
}

/// The address of who is outside, once backends are told of it.
pub(super) fn told(headers: &HeaderMap) -> Option<IpAddr> {
    headers.get(EXTERNAL)?.to_str().ok()?.parse().ok()
}

/// Takes away what only a proxy could know: of clients, of who they are, and of what was asked for before it was rewritten. What comes in
/// the chain of those who have passed the request on is left, as it is by other proxies: who reads it counts from its end.
fn forget_proxies_words(headers: &mut HeaderMap) {
    remove_where(headers, |name| ![FOR, REQUEST_ID].contains(name) && is_of_proxies(&folded(name)));
}

/// What the outermost of the trusted proxies says of who is outside: as many from the right as there are. A request that has passed fewer
/// has come from elsewhere.
fn outside(headers: &HeaderMap, trusted_hops: u32) -> Option<String> {
    let before = trusted_hops.checked_sub(1)?;
    let chain: Vec<&str> =
        headers.get_all(FOR).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(',')).collect();
    chain.iter().rev().nth(before as usize).map(|told| (*told).to_owned())
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
