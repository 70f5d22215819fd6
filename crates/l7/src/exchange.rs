// SPDX-License-Identifier: Apache-2.0
//! A request that was served and its answer, for whoever watches. What clients may write anything into has been cut and cleared of secrets by
//! the proxy.

use crate::Name;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// What stands in place of what is left out.
pub const REDACTED: &str = "HUBBLE_REDACTED";

/// One request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Exchange {
    /// When it was answered or given up, in nanoseconds since 1970.
    pub time: i64,
    /// From its head to that of the answer, in nanoseconds.
    pub latency: u64,
    /// Who asked.
    pub client: SocketAddr,
    /// The endpoint that was asked; without one, what the client has connected to.
    pub server: SocketAddr,
    /// Identity of the endpoint; 0 if there is none or it is not known.
    pub identity: u32,
    /// The endpoint's cluster.
    pub cluster: Option<Name>,
    /// `GET`
    pub method: String,
    /// With scheme and host, as the client has written it.
    pub url: String,
    /// `HTTP/1.1`
    pub protocol: String,
    /// Of the request, as the client has written them.
    pub headers: Vec<(String, String)>,
    /// 0: the client left before there was an answer.
    pub status: u16,
    /// Whose answer it is.
    pub outcome: Outcome,
}

/// Who has answered a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The proxy, as the route says.
    #[default]
    Answered,
    /// A backend.
    Forwarded,
    /// The proxy, because the request could not be served.
    Refused,
}

impl Default for Exchange {
    fn default() -> Self {
        let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self {
            time: 0,
            latency: 0,
            client: nobody,
            server: nobody,
            identity: 0,
            cluster: None,
            method: String::new(),
            url: String::new(),
            protocol: String::new(),
            headers: Vec::new(),
            status: 0,
            outcome: Outcome::default(),
        }
    }
}

impl Exchange {
    /// Bytes that it takes, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let header = |(name, value): &(String, String)| size_of::<(String, String)>() + name.len() + value.len();
        let texts = self.method.len() + self.url.len() + self.protocol.len();
        size_of::<Self>() + texts + self.headers.iter().map(header).sum::<usize>()
    }
}
