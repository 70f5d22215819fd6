// SPDX-License-Identifier: Apache-2.0
//! Scripts of other origins (Fetch standard, "CORS protocol").

use super::body::ResponseBody;
use crate::route::{Cors, Wildcard};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};

/// Where a request comes from, and what it asks leave for.
#[derive(Debug)]
pub(super) struct Origin {
    origin: HeaderValue,
    allowed: bool,
    method: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    /// Whether the browser only asks what it may do.
    pub(super) preflight: bool,
}

impl Origin {
    /// Nothing if the request is not of a script of another origin.
    pub(super) fn of(cors: &Cors, head: &Parts) -> Option<Self> {
        let origin = head.headers.get(ORIGIN)?.clone();
        let method = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD).cloned();
        Some(Self {
            allowed: origin.to_str().is_ok_and(|origin| cors.allows(origin)),
            preflight: head.method == Method::OPTIONS && method.is_some(),
            headers: head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned(),
            method,
            origin,
        })
    }

    /// The answer to a preflight request.
    pub(super) fn answer(&self, cors: Option<&Cors>) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::whole(""));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if let Some(cors) = cors.filter(|_| self.allowed) {
            self.allow(cors, headers);
            if let Some(methods) = granted(&cors.methods, self.method.as_ref(), cors.credentials) {
                headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            }
            if let Some(allowed) = granted(&cors.allow_headers, self.headers.as_ref(), cors.credentials) {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
            }
            if let Some(age) = cors.max_age {
                headers.insert(ACCESS_CONTROL_MAX_AGE, age.as_secs().into());
            }
        }
        response
    }

    /// Lets the script read the answer, if its origin may.
    pub(super) fn allow(&self, cors: &Cors, headers: &mut HeaderMap) {
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if !self.allowed {
            return;
        }
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        if cors.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(exposed) = granted(&cors.expose_headers, None, cors.credentials) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

/// What is let through of a list. With credentials an asterisk means nothing to a browser: then what was asked for is named.
fn granted(list: &Wildcard, asked: Option<&HeaderValue>, credentials: bool) -> Option<HeaderValue> {
    match list {
        Wildcard::None => None,
        Wildcard::List(list) => Some(list.clone()),
        Wildcard::All if credentials => asked.cloned(),
        Wildcard::All => Some(HeaderValue::from_static("*")),
    }
}
