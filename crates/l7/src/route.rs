// SPDX-License-Identifier: Apache-2.0
//! Which request goes where.

use crate::compact::{Rare, exact};
use crate::{Filters, HostMatch, Mirror, Name, Redirect, time};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What is done with the requests that match: one rule of an HTTPRoute, a GRPCRoute or an Ingress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Shown in logs, metrics and errors.
    pub name: Name,
    /// Where it is found.
    pub attachments: Arc<[Attachment]>,
    /// A request must satisfy one of these. None: the route is for no request.
    pub matches: Arc<[RouteMatch]>,
    /// Changes on the way, whichever backend is chosen.
    #[serde(default, skip_serializing_if = "Rare::is_default")]
    pub filters: Rare<Filters>,
    /// Where the request goes.
    pub action: RouteAction,
    /// Name of the [`crate::RateLimit`] that counts its requests.
    #[serde(default)]
    pub rate_limit: Option<Name>,
}

impl Route {
    /// A route that does its action and nothing else.
    pub fn plain(
        name: impl Into<Name>,
        attachment: Attachment,
        matches: impl Into<Arc<[RouteMatch]>>,
        action: RouteAction,
    ) -> Self {
        let (attachments, matches) = ([attachment].into(), matches.into());
        Self { name: name.into(), attachments, matches, filters: Rare::default(), action, rate_limit: None }
    }
}

/// A table of a listener, and the hosts for which the route is in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attachment {
    /// What [`crate::TableRef`]s refer to.
    pub table: Name,
    /// Routes of a more specific host are tried before all others.
    #[serde(deserialize_with = "exact")]
    pub hosts: Vec<HostMatch>,
}

impl Attachment {
    /// For every host of a table.
    pub fn any(table: impl Into<Name>) -> Self {
        Self { table: table.into(), hosts: vec![HostMatch::Any] }
    }
}

/// What a request must have; all of it must be there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteMatch {
    /// Of the routes of a host, the one that precedes takes the request.
    pub precedence: Precedence,
    /// The path, without the query.
    pub path: PathMatch,
    /// The method.
    #[serde(default)]
    pub method: Option<String>,
    /// Headers by name, of which the case does not matter. Of a header that comes several times, the values are one, joined by commas.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "exact")]
    pub headers: Vec<(String, ValueMatch)>,
    /// Query parameters by name. Of one that comes several times, the first counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "exact")]
    pub query: Vec<(String, ValueMatch)>,
}

impl RouteMatch {
    /// Any request of a path.
    #[must_use]
    pub fn on(path: PathMatch) -> Self {
        Self { path, ..Self::default() }
    }

    /// Any request below a path. Of several of these, the longest precedes.
    #[must_use]
    pub fn below(path: &str) -> Self {
        let rest = u32::MAX - u32::try_from(path.len()).unwrap_or(u32::MAX);
        let precedence = Precedence { specificity: [rest, 0, 0, 0, 0], ..Precedence::default() };
        Self { precedence, ..Self::on(PathMatch::Prefix(path.to_owned())) }
    }
}

/// Which match is tried first: the order of the fields, and of each the smaller value. Ties are for the producer to avoid; the route's
/// name breaks them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Precedence {
    /// What the match itself says, most significant number first.
    pub specificity: [u32; 5],
    /// When the object was made, in seconds since 1970.
    pub created: i64,
    /// Namespace and name of the object.
    pub source: Arc<str>,
    /// Place in the object.
    pub place: u32,
}

/// A path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathMatch {
    /// All of it.
    Exact(String),
    /// Its beginning, letter by letter: `/a` is before `/ab`.
    Start(String),
    /// Its first segments: `/a` is before `/a`, `/a/` and `/a/b`, not before `/ab`. A final slash says nothing.
    Prefix(String),
    /// An expression that all of it matches.
    Regex(String),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".into())
    }
}

/// The value of a header or of a query parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ValueMatch {
    /// This value.
    Exact(String),
    /// An expression that all of it matches.
    Regex(String),
    /// Any value.
    Present,
    /// There is none.
    Absent,
    /// There is one, and it is another.
    Not(Box<ValueMatch>),
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteAction {
    /// To a backend.
    Forward(HttpForward),
    /// Back to the client, who is to ask elsewhere.
    Redirect(Box<Redirect>),
    /// Back to the client with this status: what the route refers to is not there.
    Respond(u16),
    /// Back to the client, as the route says.
    Answer(Answer),
}

/// An answer that no backend is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, which is plain text unless the route's headers say otherwise.
    #[serde(default)]
    pub body: String,
}

/// How requests reach backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpForward {
    /// One is chosen by weight for each request. Without one that weighs anything, the answer is 500.
    #[serde(deserialize_with = "exact")]
    pub backends: Vec<Backend>,
    /// Copies, whose answers are dropped.
    #[serde(default, deserialize_with = "exact")]
    pub mirrors: Vec<Mirror>,
    /// Time from the request's head to the end of the answer, bodies and retries included. Then the answer is 504, or is cut off if it has begun.
    /// What a connection is upgraded to may take longer.
    #[serde(default, with = "time::option")]
    pub timeout: Option<Duration>,
    /// The same for one attempt, from when it begins.
    #[serde(default, with = "time::option")]
    pub attempt_timeout: Option<Duration>,
    /// Whether and when another attempt is made.
    #[serde(default)]
    pub retry: Option<Box<Retry>>,
    /// Whether a client comes back to its backend.
    #[serde(default)]
    pub persistence: Option<Box<Persistence>>,
    /// What the client is given for that is made with it. Without one, it is good at one process only.
    #[serde(default)]
    pub token_key: Option<TokenKey>,
}

/// A key that all proxies of a cluster have. It is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenKey(Arc<[u8; 32]>);

impl TokenKey {
    /// The key.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for TokenKey {
    fn from(key: [u8; 32]) -> Self {
        Self(Arc::new(key))
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey")
    }
}

/// Where bytes and datagrams go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Shown in logs and metrics.
    pub route: Name,
    /// One is chosen by weight for each connection.
    #[serde(deserialize_with = "exact")]
    pub backends: Vec<Backend>,
}

/// A share of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Where they go.
    pub target: Target,
    /// The share is this part of the sum of all.
    pub weight: u32,
    /// Changes for this backend only, after those of the route.
    #[serde(default, skip_serializing_if = "Rare::is_default")]
    pub filters: Rare<Filters>,
}

impl Backend {
    /// A share that goes to a cluster as it is.
    pub fn to(cluster: impl Into<Name>, weight: u32) -> Self {
        Self { target: Target::Cluster(cluster.into()), weight, filters: Rare::default() }
    }
}

/// Where a backend's share goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// To an endpoint of this [`crate::Cluster`].
    Cluster(Name),
    /// The backend does not exist or may not be referred to: its share gets this status, its connections are closed.
    Status(u16),
}

/// Whether and when another attempt is made. Only requests whose body has not been begun, and no more than a few kilobytes of it, are
/// sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Attempts after the first.
    pub attempts: u32,
    /// Statuses after which there is another; a backend that cannot be reached is left for another in any case.
    #[serde(default)]
    pub statuses: Vec<u16>,
    /// Least time between two attempts; it doubles with each.
    #[serde(default, with = "time")]
    pub backoff: Duration,
    /// What all requests of the route may try again.
    #[serde(default)]
    pub budget: RetryBudget,
}

/// How many retries a route's requests may make together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryBudget {
    /// As a part of the requests of the last interval.
    pub percent: u32,
    /// The interval.
    #[serde(with = "time")]
    pub interval: Duration,
    /// As many as this per interval are allowed in any case.
    pub least: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: 20, interval: Duration::from_secs(10), least: 100 }
    }
}

/// How a client comes back to its backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Persistence {
    /// By a cookie that the proxy sets.
    Cookie {
        /// Its name.
        name: String,
        /// How long it is valid; none: until the browser ends.
        #[serde(default, with = "time::option")]
        lifetime: Option<Duration>,
    },
    /// By a header that the proxy sends and the client repeats.
    Header(String),
}
