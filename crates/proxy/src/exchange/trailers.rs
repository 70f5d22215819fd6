// SPDX-License-Identifier: Apache-2.0
//! What follows a body. Whoever merges trailers into a head would take their word for what is decided by the head, so such fields are taken
//! away (RFC 9110, 6.5.1). What a head says is checked here, what follows it could not be.

use super::disguise::{folded, is_of_proxies, remove_where};
use bytes::Bytes;
use http_body::Frame;

/// The frame without fields of a head; nothing, if nothing is left: a body may end without trailers.
pub(super) fn without_head_fields(frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            remove_where(&mut trailers, |name| is_of_a_head(&folded(name)));
            (!trailers.is_empty()).then(|| Frame::trailers(trailers))
        }
        Err(frame) => Some(frame),
    }
}

/// Whether the field frames, routes, modifies or authenticates a message, describes its content, or is one connection's.
fn is_of_a_head(name: &str) -> bool {
    is_of_proxies(name)
        || ["access-control-", "content-", "if-", "proxy-"].iter().any(|beginning| name.starts_with(beginning))
        || matches!(
            name,
            "age"
                | "authorization"
                | "cache-control"
                | "connection"
                | "cookie"
                | "date"
                | "expect"
                | "expires"
                | "host"
                | "http2-settings"
                | "keep-alive"
                | "location"
                | "max-forwards"
                | "pragma"
                | "proxy"
                | "range"
                | "retry-after"
                | "set-cookie"
                | "strict-transport-security"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "vary"
                | "www-authenticate"
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{HeaderMap, HeaderValue};

    fn left(names: &[&'static str]) -> Option<Vec<String>> {
        let mut trailers = HeaderMap::new();
        for name in names {
            trailers.append(*name, HeaderValue::from_static("1"));
            trailers.append(*name, HeaderValue::from_static("2"));
        }
        let frame = without_head_fields(Frame::trailers(trailers))?;
        Some(frame.trailers_ref().unwrap().keys().map(|name| name.as_str().to_owned()).collect())
    }

    #[test]
    fn no_trailer_is_taken_for_a_field_of_the_head() {
        for name in [
            "content-length",
            "transfer-encoding",
            "host",
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-forwarded-for",
            "x_forwarded_proto",
            "x-request-id",
            "x-envoy-internal",
            "forwarded",
            "content-type",
            "content-encoding",
            "content-range",
            "trailer",
            "te",
            "connection",
            "keep-alive",
            "proxy-connection",
            "upgrade",
            "cache-control",
            "if-none-match",
            "access-control-allow-origin",
            "proxy",
            "x-real-ip",
            "x-original-url",
        ] {
            assert_eq!(left(&[name]), None, "{name}");
            assert_eq!(left(&[name, "x-sum"]).unwrap(), ["x-sum"], "{name}");
        }
    }

    #[test]
    fn trailers_that_are_meant_to_be_trailers_stay() {
        let names =
            ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-sum", "etag", "server-timing", "digest"];
        assert_eq!(left(&names).unwrap(), names);
    }

    #[test]
    fn data_stays_as_it_is() {
        let frame = without_head_fields(Frame::data(Bytes::from_static(b"host: x"))).unwrap();
        assert_eq!(frame.into_data().unwrap(), "host: x");
    }
}
