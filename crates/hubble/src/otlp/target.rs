// SPDX-License-Identifier: Apache-2.0
//! Where a collector is, whom to trust there, and which flows it gets.

use crate::client::{Server, Tls};
use crate::export::query;
use crate::service::Query;
use model::config::{Accepts, Form, Value};
use serde_json::Value as Json;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::Channel;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that has died is noticed after twice this.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Host and port of a collector, and whether it is spoken to with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    encrypted: bool,
    place: String,
}

impl Value for Address {
    fn form() -> Form {
        Form::new(
            "http://HOST:PORT or https://HOST:PORT",
            Accepts::Pattern(
                r"^https?://([a-zA-Z0-9.-]+|\[[0-9a-fA-F:.]+\]):0*(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[0-5]?[0-9]{1,4})/?$",
            ),
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, place) = text.split_once("://")?;
        let encrypted = match scheme {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        let (host, port) = place.rsplit_once(':')?;
        let name = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        let address = |inner: &str| inner.chars().all(|c| c.is_ascii_hexdigit() || c == ':' || c == '.');
        let known = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) => !inner.is_empty() && address(inner),
            None => !host.is_empty() && host.chars().all(name),
        };
        let digits = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
        (known && digits && port.parse::<u16>().is_ok()).then(|| Self { encrypted, place: place.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.encrypted { "https" } else { "http" }, self.place)
    }
}

/// A collector and what it gets.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: Address,
    /// A file with the authorities to trust; the system's if there is none.
    pub(crate) authorities: Option<PathBuf>,
    /// As in a filter's JSON.
    pub(crate) include: Vec<Json>,
    pub(crate) exclude: Vec<Json>,
}

impl Target {
    /// The request to the ring.
    pub(super) fn query(&self) -> Result<Query, String> {
        query(&self.include, &self.exclude, &[])
    }

    /// Connects; the error is a message for people.
    pub(super) async fn connect(&self) -> Result<Channel, String> {
        let tls = match (&self.authorities, self.address.encrypted) {
            (_, false) => None,
            (None, true) => Some(Tls::default()),
            (Some(path), true) => {
                let authorities = tokio::fs::read(path).await;
                let authorities = authorities.map_err(|error| format!("{}: {error}", path.display()))?;
                // None would mean the system's.
                if authorities.is_empty() {
                    return Err(format!("{}: it is empty", path.display()));
                }
                Some(Tls { authorities, ..Tls::default() })
            }
        };
        let server =
            Server { address: self.address.place.clone(), tls, timeout: Some(CONNECT), keepalive: Some(KEEPALIVE) };
        tokio::time::timeout(2 * CONNECT, server.connect())
            .await
            .map_err(|_| "it does not answer".to_owned())?
            .map_err(|error| error.to_string())
    }
}
