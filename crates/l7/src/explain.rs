// SPDX-License-Identifier: Apache-2.0
//! What a proxy tells of itself at its socket [`ADMIN`]: HTTP, for the node's administrator alone.
//!
//! `/v1/explain?QUERY` answers a [`Question`] with an [`Explanation`]; `/v1/listeners`, `/v1/routes` and `/v1/clusters` list what is in force.

use crate::Name;
use serde::{Deserialize, Serialize};

/// Name of the socket, in the folder of the agent's.
pub const ADMIN: &str = "admin.sock";

/// A request, of which it is asked where it would go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The host that it is for.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// The method.
    pub method: String,
    /// Headers by name.
    pub headers: Vec<(String, String)>,
    /// Whether it comes in TLS, whose hello names the host.
    pub tls: bool,
}

impl Question {
    /// The query of the URL by which it is asked.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("host", &self.host).append_pair("path", &self.path).append_pair("method", &self.method);
        query.append_pair("tls", if self.tls { "true" } else { "false" });
        for (name, value) in &self.headers {
            query.append_pair("header", &format!("{name}:{value}"));
        }
        query.finish()
    }

    /// What a query asks. What it does not name is a GET of `/`, in clear.
    #[must_use]
    pub fn from_query(query: &str) -> Self {
        let mut question = Self { path: "/".to_owned(), method: "GET".to_owned(), ..Self::default() };
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "host" => question.host = value.into_owned(),
                "path" => question.path = value.into_owned(),
                "method" => question.method = value.into_owned(),
                "tls" => question.tls = value == "true",
                "header" => {
                    let (name, value) = value.split_once(':').unwrap_or((&value, ""));
                    question.headers.push((name.to_owned(), value.trim_start().to_owned()));
                }
                _ => {}
            }
        }
        question
    }
}

/// Where a request would go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explanation {
    /// At each listener, by name.
    pub listeners: Vec<AtListener>,
}

/// Where a request would go at a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct AtListener {
    /// Name of the listener.
    pub listener: String,
    /// The port that clients know it by.
    pub port: u16,
    /// Why no route is looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The route that takes the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_by: Option<TakenBy>,
    /// Routes for the host that do not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Other>,
    /// How many more of these there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub further: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A route that takes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TakenBy {
    /// Name of the route.
    pub route: String,
    /// The path that it is for.
    pub path: String,
    /// What it does.
    pub action: String,
    /// Where it may send the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<Share>,
}

/// A backend with its share of a route's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Share {
    /// Name of the cluster, or what is answered in place of one.
    pub backend: String,
    /// The share is this part of the sum of all.
    pub weight: u32,
    /// Endpoints that get new requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<AtEndpoint>,
}

/// A route that does not take a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Other {
    /// Name of the route.
    pub route: String,
    /// The path that it is for.
    pub path: String,
    /// Why.
    pub because: String,
}

/// A listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerState {
    /// Its name.
    pub name: String,
    /// The address that it listens at.
    pub address: String,
    /// The port that clients know it by.
    pub port: u16,
    /// HTTP, TLS, TCP or UDP.
    pub protocol: String,
    /// Open connections.
    pub connections: usize,
    /// The objects that it follows from.
    pub sources: Vec<Name>,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteState {
    /// Its name.
    pub name: String,
    /// Hosts that it is for.
    pub hosts: Vec<String>,
    /// Paths that it is for.
    pub paths: Vec<String>,
    /// What it does.
    pub action: String,
}

/// A cluster with its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterState {
    /// Its name.
    pub name: String,
    /// Requests under way.
    pub requests: usize,
    /// Endpoints that serve.
    pub endpoints: Vec<AtEndpoint>,
}

/// An endpoint of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AtEndpoint {
    /// Its address.
    pub address: String,
    /// Whether it gets new requests; otherwise only those of clients that come back to it.
    pub chosen: bool,
    /// Whether it could be reached lately.
    pub healthy: bool,
    /// Requests under way.
    pub requests: usize,
}

#[cfg(test)]
mod tests {
    use super::Question;

    #[test]
    fn a_question_is_the_same_after_its_way_through_a_url() {
        let question = Question {
            host: "shop.example".to_owned(),
            path: "/a b?c=d&e=%20".to_owned(),
            method: "PUT".to_owned(),
            headers: vec![("x-one".to_owned(), "1:2&3=".to_owned()), ("x-one".to_owned(), String::new())],
            tls: true,
        };
        assert_eq!(Question::from_query(&question.to_query()), question);
        let least = Question { path: "/".to_owned(), method: "GET".to_owned(), ..Question::default() };
        assert_eq!(Question::from_query(""), least);
    }
}
