// SPDX-License-Identifier: Apache-2.0
//! Rules of HTTPRoute and GRPCRoute: what they match, what they do to it, where they send it.

use super::{BackendRef, ObjectReference};
use serde::{Deserialize, Serialize};

/// A rule of an HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRule {
    pub name: Option<String>,
    /// Any of these must hold; every request matches if empty.
    pub matches: Vec<HttpMatch>,
    /// What is done to requests and answers.
    pub filters: Vec<Filter>,
    /// Where requests go.
    pub backend_refs: Vec<BackendRef>,
    /// How long it may take.
    pub timeouts: Option<Timeouts>,
    /// What is tried again.
    pub retry: Option<Retry>,
    /// How a client comes to the same backend again.
    pub session_persistence: Option<SessionPersistence>,
}

/// A rule of a GRPCRoute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRule {
    pub name: Option<String>,
    /// Any of these must hold; every call matches if empty.
    pub matches: Vec<GrpcMatch>,
    /// What is done to calls and answers.
    pub filters: Vec<Filter>,
    /// Where calls go.
    pub backend_refs: Vec<BackendRef>,
    /// How a client comes to the same backend again.
    pub session_persistence: Option<SessionPersistence>,
}

/// What a request must be like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatch {
    /// Path; a prefix of `/` if unset.
    pub path: Option<PathMatch>,
    /// All of these headers.
    pub headers: Vec<NamedMatch>,
    /// All of these parameters of the query.
    pub query_params: Vec<NamedMatch>,
    /// Method; any if unset.
    pub method: Option<String>,
}

/// What a path must be like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathMatch {
    /// `Exact`, `PathPrefix`, which is the default, or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// `/` if unset.
    pub value: Option<String>,
}

/// What the value of a header or parameter must be like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamedMatch {
    /// `Exact`, which is the default, or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub name: String,
    pub value: String,
}

/// What a call must be like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcMatch {
    /// Service and method; any if unset.
    pub method: Option<GrpcMethodMatch>,
    /// All of these headers.
    pub headers: Vec<NamedMatch>,
}

/// What service and method of a call must be like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcMethodMatch {
    /// `Exact`, which is the default, or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Any if unset.
    pub service: Option<String>,
    /// Any if unset.
    pub method: Option<String>,
}

/// What is done to requests or answers: of the fields, that which belongs to the type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Filter {
    /// Which field counts.
    #[serde(rename = "type")]
    pub kind: String,
    /// `RequestHeaderModifier`
    pub request_header_modifier: Option<HeaderModifier>,
    /// `ResponseHeaderModifier`
    pub response_header_modifier: Option<HeaderModifier>,
    /// `RequestMirror`
    pub request_mirror: Option<RequestMirror>,
    /// `RequestRedirect`
    pub request_redirect: Option<RequestRedirect>,
    /// `URLRewrite`
    pub url_rewrite: Option<UrlRewrite>,
    /// `CORS`
    pub cors: Option<Cors>,
    /// `ExtensionRef`
    pub extension_ref: Option<ObjectReference>,
}

/// Changes to headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeaderModifier {
    /// Put in place of those with the name.
    pub set: Vec<Header>,
    /// Put beside those with the name.
    pub add: Vec<Header>,
    /// Names of those taken away.
    pub remove: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Header {
    pub name: String,
    pub value: String,
}

/// A copy of requests to another backend, whose answers are dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestMirror {
    /// Where the copies go.
    pub backend_ref: Box<BackendRef>,
    /// Of a hundred requests, how many; all if neither this nor `fraction` is set.
    pub percent: Option<i64>,
    /// Which share of requests.
    pub fraction: Option<Fraction>,
}

/// A share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fraction {
    /// So many
    pub numerator: i64,
    /// of so many; 100 if unset.
    pub denominator: Option<i64>,
}

/// An answer that sends the client elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestRedirect {
    /// `http` or `https`; the request's if unset.
    pub scheme: Option<String>,
    /// The request's if unset.
    pub hostname: Option<String>,
    /// The request's if unset.
    pub path: Option<PathModifier>,
    /// The scheme's, or else the listener's, if unset.
    pub port: Option<i64>,
    /// 302 if unset.
    pub status_code: Option<i64>,
}

/// A change to requests on their way to the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UrlRewrite {
    /// Host name.
    pub hostname: Option<String>,
    pub path: Option<PathModifier>,
}

/// A change to a path: of the fields, that which belongs to the type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathModifier {
    /// `ReplaceFullPath` or `ReplacePrefixMatch`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The whole path.
    pub replace_full_path: Option<String>,
    /// What takes the place of the prefix that was matched.
    pub replace_prefix_match: Option<String>,
}

/// What pages of other origins may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cors {
    /// `*`, or scheme, host (which may begin with `*.`) and port.
    pub allow_origins: Vec<String>,
    /// Whether requests may have credentials.
    pub allow_credentials: Option<bool>,
    /// `*`, or methods.
    pub allow_methods: Vec<String>,
    /// `*`, or headers of requests.
    pub allow_headers: Vec<String>,
    /// `*`, or headers of answers.
    pub expose_headers: Vec<String>,
    /// For how many seconds an answer may be remembered; 5 if unset.
    pub max_age: Option<i64>,
}

/// How long a request may take, as durations of GEP-2257; zero for as long as it likes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Timeouts {
    /// From the client's request to the end of its answer.
    pub request: Option<String>,
    /// Each attempt at a backend.
    pub backend_request: Option<String>,
}

/// What is tried again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// After these statuses.
    pub codes: Vec<i64>,
    /// How often at most.
    pub attempts: Option<i64>,
    /// How long to wait before, as a duration of GEP-2257.
    pub backoff: Option<String>,
}

/// How a client comes to the same backend again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionPersistence {
    /// Name of the cookie or header, before `cookie` and `header` had their own.
    pub session_name: Option<String>,
    /// For how long at most, as a duration of GEP-2257.
    pub absolute_timeout: Option<String>,
    /// `Cookie`, which is the default, or `Header`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub cookie: Option<CookieConfig>,
    pub header: Option<HeaderConfig>,
}

/// A cookie by which clients are known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CookieConfig {
    pub name: Option<String>,
    /// Path that it is good for.
    pub path: Option<String>,
    /// `Session`, which is the default, or `Permanent`.
    pub lifetime_type: Option<String>,
}

/// A header by which clients are known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeaderConfig {
    pub name: String,
}
