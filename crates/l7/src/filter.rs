// SPDX-License-Identifier: Apache-2.0
//! What is changed on the way.

use crate::compact::exact;
use crate::{Name, time};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is changed in requests and responses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filters {
    /// Headers of requests.
    pub request: HeaderChanges,
    /// Headers of responses, the proxy's own included.
    pub response: HeaderChanges,
    /// Host and path of requests.
    pub rewrite: Rewrite,
    /// Which scripts of other origins browsers let in.
    pub cors: Option<Cors>,
}

/// Changes of headers, made in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeaderChanges {
    /// Taken away.
    #[serde(deserialize_with = "exact")]
    pub remove: Vec<String>,
    /// Put in the place of those of the name.
    #[serde(deserialize_with = "exact")]
    pub set: Vec<(String, String)>,
    /// Added to those of the name.
    #[serde(deserialize_with = "exact")]
    pub add: Vec<(String, String)>,
}

/// What the backend is asked for instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rewrite {
    /// The host.
    pub host: Option<String>,
    /// The path.
    pub path: Option<PathChange>,
}

/// Another path. The query stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathChange {
    /// In place of all of it.
    Full(String),
    /// In place of the prefix that matched. Of a match that is no prefix, all of it.
    Prefix(String),
    /// The same, letter by letter: no slash comes or goes.
    Start(String),
    /// Whatever matches an expression, each time, is replaced.
    Replace {
        /// The expression.
        pattern: String,
        /// What comes in its place: `\0` is what matched, `\1` to `\9` are its groups, two backslashes are one.
        with: String,
    },
}

/// Where the client is to ask. What is absent stays as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// `http` or `https`.
    #[serde(default)]
    pub scheme: Option<String>,
    /// The host.
    #[serde(default)]
    pub host: Option<String>,
    /// The path.
    #[serde(default)]
    pub path: Option<PathChange>,
    /// The port. Absent, it is that of the scheme if there is one, and otherwise the listener's.
    #[serde(default)]
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A copy of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Where it goes.
    pub cluster: Name,
    /// Which part of the requests is copied.
    pub share: Share,
}

/// A part of all: `numerator` of `denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// How many.
    pub numerator: u32,
    /// Of how many; never 0.
    pub denominator: u32,
}

impl Share {
    /// Everything.
    pub const ALL: Self = Self { numerator: 1, denominator: 1 };
}

/// What browsers are told of scripts of other origins (Fetch standard).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cors {
    /// Origins that are let in.
    pub origins: Vec<Origin>,
    /// Methods, or `*`.
    pub methods: Vec<String>,
    /// Headers that scripts may send, or `*`.
    pub allow_headers: Vec<String>,
    /// Headers that scripts may read, or `*`.
    pub expose_headers: Vec<String>,
    /// Whether cookies and their like are sent.
    pub credentials: bool,
    /// How long the answer to a preflight request may be kept.
    #[serde(with = "time::option")]
    pub max_age: Option<Duration>,
}

/// Where a script comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// Anywhere.
    Any,
    /// `scheme://host[:port]`, of which the host may begin with `*.`.
    Of(String),
}
