// SPDX-License-Identifier: Apache-2.0
//! Headers that a backend takes for others. Gateways to programs (CGI, WSGI) know `X-Forwarded-For` and `X_Forwarded_For` by one name, so
//! whoever may not write the one must not write the other.

use http::header::{HeaderMap, HeaderName};
use std::borrow::Cow;

/// What proxies alone tell backends, as the beginnings of names: of clients, and of what was asked for before it was rewritten, which some
/// frameworks go by instead of the path.
const OF_PROXIES: [&str; 3] = ["x-forwarded-", "x-original-", "x-envoy-"];

/// The name that others may know a header by.
pub(super) fn folded(name: &HeaderName) -> Cow<'_, str> {
    let name = name.as_str();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    if name.chars().all(is_plain) { Cow::Borrowed(name) } else { Cow::Owned(name.replace(|c| !is_plain(c), "-")) }
}

/// Whether it is a proxy that tells backends so, and no client.
pub(super) fn is_of_proxies(name: &str) -> bool {
    OF_PROXIES.iter().any(|beginning| name.starts_with(beginning))
        || matches!(name, "forwarded" | "x-real-ip" | "x-request-id" | "x-rewrite-url")
}

/// Whether this proxy goes by the header, or writes it.
fn is_relied_on(name: &str) -> bool {
    is_of_proxies(name)
        || matches!(name, "content-length" | "content-type" | "keep-alive" | "proxy-connection" | "transfer-encoding")
}

/// Takes away headers in disguise: those that this proxy relies on.
pub(super) fn uncover(headers: &mut HeaderMap) {
    remove_disguised(headers, is_relied_on);
}

/// Takes away what would be taken for one of these headers.
pub(super) fn uncover_as(headers: &mut HeaderMap, names: &[&HeaderName]) {
    if !names.is_empty() {
        remove_disguised(headers, |name| names.iter().any(|one| folded(one) == name));
    }
}

fn remove_disguised(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    let is_disguised = |name: &HeaderName| matches!(folded(name), Cow::Owned(name) if is_meant(&name));
    remove_where(headers, is_disguised);
}

/// Takes away the headers whose names are meant.
pub(super) fn remove_where(headers: &mut HeaderMap, is_meant: impl Fn(&HeaderName) -> bool) {
    let gone: Vec<HeaderName> = headers.keys().filter(|name| is_meant(name)).cloned().collect();
    gone.iter().for_each(|name| drop(headers.remove(name)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderValue;

    fn left(names: &[&'static str], change: impl FnOnce(&mut HeaderMap)) -> Vec<String> {
        let mut headers = HeaderMap::new();
        headers.extend(names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))));
        change(&mut headers);
        let mut left: Vec<String> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn what_this_proxy_relies_on_has_one_name() {
        for name in [
            "x_forwarded_for",
            "x-forwarded_proto",
            "x_forwarded-host",
            "x_forwarded_prefix",
            "x.forwarded.for",
            "x_request_id",
            "x_envoy_external_address",
            "content_length",
            "content_type",
            "transfer_encoding",
        ] {
            assert_eq!(left(&[name, "x-kept"], uncover), ["x-kept"], "{name}");
        }
        let kept = ["content-length", "forwarded", "user_id", "x-forwarded-for", "x-request-id", "x_tenant"];
        assert_eq!(left(&kept, uncover), kept);
    }

    #[test]
    fn what_a_route_writes_has_one_name() {
        let written = HeaderName::from_static("x-user");
        let names = ["x-user", "x.user", "x_user", "x_users"];
        assert_eq!(left(&names, |headers| uncover_as(headers, &[&written])), ["x-user", "x_users"]);
        assert_eq!(left(&names, |headers| uncover_as(headers, &[])), names);
    }
}
