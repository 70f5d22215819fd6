// SPDX-License-Identifier: Apache-2.0
//! Who may ask. A browser asks on behalf of any page that it shows: one that is not ours must learn nothing, whether it asks from elsewhere or
//! has had its own name resolved to our address (DNS rebinding), and nobody may show ours within theirs.

use axum::extract::{Request, State};
use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use std::net::IpAddr;
use std::sync::Arc;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(&str, &str); 6] = [
    ("content-security-policy", POLICY),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
];

/// Where a request comes from, by its browser's word.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Names that browsers may call this server by.
#[derive(Clone)]
pub(crate) struct Hosts(Arc<[String]>);

impl Hosts {
    pub(crate) fn new(names: Vec<String>) -> Self {
        Self(names.into_iter().map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()).collect())
    }

    /// A name that somebody else may have resolved to us is not taken; an address cannot be one.
    fn takes(&self, host: &str) -> bool {
        let name = name(host).to_ascii_lowercase();
        name == "localhost" || name.parse::<IpAddr>().is_ok() || self.0.contains(&name)
    }
}

/// Without the port, and without brackets.
fn name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// Refuses requests that are not from our own page, and says what browsers may do with the answer.
pub(crate) async fn guard(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&hosts, &request) {
        Some((status, why)) => (status, format!("{why}\n")).into_response(),
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn refusal(hosts: &Hosts, request: &Request) -> Option<(StatusCode, &'static str)> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some((StatusCode::METHOD_NOT_ALLOWED, "only GET is served"));
    }
    let headers = request.headers();
    let named = headers.get_all(HOST).iter().filter_map(|host| host.to_str().ok());
    let mut named = named.chain(request.uri().authority().map(|authority| authority.as_str())).peekable();
    if named.peek().is_none() || !named.all(|host| hosts.takes(host)) {
        return Some((StatusCode::MISDIRECTED_REQUEST, "this server is not called by that name: see --allowed-hosts"));
    }
    if request.uri().path().starts_with("/api/") && !is_own(headers) {
        return Some((StatusCode::FORBIDDEN, "only pages of this server may ask"));
    }
    None
}

/// Whether a request is from our own page, or from no browser.
fn is_own(headers: &HeaderMap) -> bool {
    let site = headers.get(FETCH_SITE).is_none_or(|site| site == "same-origin" || site == "none");
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let origin = headers.get(ORIGIN).is_none_or(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        origin.split_once("://").is_some_and(|(_, place)| place.eq_ignore_ascii_case(host))
    });
    site && origin
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::{Router, middleware};
    use tower::ServiceExt as _;

    async fn status(path: &str, headers: &[(&str, &str)]) -> u16 {
        let hosts = Hosts::new(vec!["Hubble-UI.kube-system.svc".to_owned(), " ".to_owned()]);
        let router = Router::new().fallback(async || "ok").layer(middleware::from_fn_with_state(hosts, guard));
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert!(response.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none';"));
        response.status().as_u16()
    }

    #[tokio::test]
    async fn only_addresses_localhost_and_given_names_are_answered() {
        for host in ["localhost:12000", "127.0.0.1:12000", "[::1]:80", "10.0.0.7", "hubble-ui.KUBE-system.svc:80"] {
            assert_eq!(status("/", &[("host", host)]).await, 200, "{host}");
        }
        for host in [
            "evil.example:12000",
            "localhost.evil.example",
            "",
            "[evil.example]",
            "hubble-ui",
            "127.0.0.1.evil.example",
        ] {
            assert_eq!(status("/", &[("host", host)]).await, 421, "{host}");
        }
        assert_eq!(status("/", &[]).await, 421);
        assert_eq!(status("http://evil.example/", &[("host", "localhost")]).await, 421);
    }

    #[tokio::test]
    async fn pages_of_others_learn_nothing() {
        let host = ("host", "localhost:12000");
        for (headers, want) in [
            (vec![host], 200),
            (vec![host, ("sec-fetch-site", "same-origin"), ("origin", "http://localhost:12000")], 200),
            (vec![host, ("sec-fetch-site", "none")], 200),
            (vec![host, ("sec-fetch-site", "cross-site")], 403),
            (vec![host, ("sec-fetch-site", "same-site")], 403),
            (vec![host, ("origin", "http://localhost:3000")], 403),
            (vec![host, ("origin", "null")], 403),
        ] {
            assert_eq!(status("/api/events", &headers).await, want, "{headers:?}");
            assert_eq!(status("/", &headers).await, 200, "a page may be gone to from anywhere");
        }
    }
}
