// SPDX-License-Identifier: Apache-2.0
//! Where a collector is, whom to trust there, what to show it, and which flows it gets. Files are read when they are used, so that renewed
//! ones count at once.

use crate::client::Tls;
use crate::export::query;
use crate::service::Query;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use model::config::{Accepts, Choice, Form, Value};
use serde_json::Value as Json;
use std::fmt;
use std::path::{Path, PathBuf};

/// Headers that are the protocol's own.
const OWN: [HeaderName; 8] =
    [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT];

/// How records are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    #[default]
    Grpc,
    /// OTLP over HTTP/1.1, in binary.
    Http,
}

impl Choice for Protocol {
    const WANT: &'static str = "grpc or http/protobuf";
    const NAMES: &'static [(&'static str, Self)] = &[("grpc", Self::Grpc), ("http/protobuf", Self::Http)];
}

/// The URL of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    encrypted: bool,
    /// Host and port, as written.
    authority: String,
    /// Empty, or begins with a slash and has more to it.
    path: String,
}

impl Value for Address {
    fn form() -> Form {
        Form::new(
            "http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH]",
            Accepts::Pattern(
                r"^https?://([a-zA-Z0-9.-]+|\[[0-9a-fA-F:.]+\])(:0*(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[0-5]?[0-9]{1,4}))?(/[a-zA-Z0-9._~%!$&()*+,;=:@/-]*)?$",
            ),
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let encrypted = match scheme {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let known = is_authority(authority) && path.chars().all(|c| c.is_ascii_alphanumeric() || PATH.contains(c));
        let path = if path == "/" { "" } else { path };
        known.then(|| Self { encrypted, authority: authority.to_owned(), path: path.to_owned() })
    }
}

/// What a path may have besides letters and digits.
const PATH: &str = "._~%!$&()*+,;=:@/-";

/// Whether it is a host, with a port or without.
fn is_authority(text: &str) -> bool {
    let end = if text.starts_with('[') { text.find(']').map(|at| at + 1) } else { text.find(':') };
    let (host, port) = text.split_at(end.unwrap_or(text.len()));
    let name = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let address = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
    let known = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => !inner.is_empty() && inner.chars().all(address),
        None => !host.is_empty() && host.chars().all(name),
    };
    let numbered = |port: &str| port.chars().all(|c| c.is_ascii_digit()) && port.parse::<u16>().is_ok();
    known && (port.is_empty() || port.strip_prefix(':').is_some_and(numbered))
}

impl Address {
    /// Whether it is spoken to with TLS.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Whether more is asked for than what the host serves at its root.
    pub(crate) fn has_path(&self) -> bool {
        !self.path.is_empty()
    }

    /// Where logs are posted below it, if it is the base of all signals.
    pub(crate) fn logs(&self) -> Self {
        Self { path: format!("{}/v1/logs", self.path.trim_end_matches('/')), ..self.clone() }
    }

    /// Host and port.
    pub(super) fn place(&self) -> String {
        let has_port = self.authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = if self.encrypted { ":443" } else { ":80" };
        format!("{}{}", self.authority, if has_port { "" } else { port })
    }

    /// How the host is called in requests.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// What is asked for there.
    pub(super) fn path(&self) -> &str {
        if self.path.is_empty() { "/" } else { &self.path }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { encrypted, authority, path } = self;
        write!(f, "{}://{authority}{path}", if *encrypted { "https" } else { "http" })
    }
}

/// A collector and what it gets.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Over HTTP, with the path that is asked for.
    pub(crate) address: Address,
    pub(crate) protocol: Protocol,
    /// A file with the authorities to trust; the system's if there is none.
    pub(crate) authorities: Option<PathBuf>,
    /// Files with the certificate that is shown, and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// A folder with a file for each header of requests, which is called like it.
    pub(crate) headers: Option<PathBuf>,
    /// As in a filter's JSON.
    pub(crate) include: Vec<Json>,
    pub(crate) exclude: Vec<Json>,
}

impl Target {
    /// The request to the ring.
    pub(super) fn query(&self) -> Result<Query, String> {
        query(&self.include, &self.exclude, &[])
    }

    /// What TLS needs; none without it. The error is a message for people.
    pub(super) async fn tls(&self) -> Result<Option<Tls>, String> {
        if !self.address.encrypted {
            return Ok(None);
        }
        let mut tls = Tls::default();
        if let Some(path) = &self.authorities {
            tls.authorities = read(path).await?;
        }
        if let Some((certificate, key)) = &self.identity {
            tls.identity = Some((read(certificate).await?, read(key).await?));
        }
        Ok(Some(tls))
    }

    /// The headers of a request. The error names a file, and says nothing of what is in it.
    pub(super) async fn headers(&self) -> Result<HeaderMap, String> {
        let Some(folder) = &self.headers else { return Ok(HeaderMap::new()) };
        let unreadable = |error: std::io::Error| format!("{}: {error}", folder.display());
        let mut entries = tokio::fs::read_dir(folder).await.map_err(unreadable)?;
        let mut headers = HeaderMap::new();
        while let Some(entry) = entries.next_entry().await.map_err(unreadable)? {
            // Kubernetes' own links beside the files of a Secret begin with two dots.
            let path = entry.path();
            let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with("..")).map(str::to_owned)
            else {
                continue;
            };
            let (name, value) =
                header(&name, read(&path).await?).map_err(|why| format!("{}: {why}", path.display()))?;
            headers.insert(name, value);
        }
        // None would mean that somebody else asks.
        if headers.is_empty() { Err(format!("{}: there is no header in it", folder.display())) } else { Ok(headers) }
    }
}

fn header(name: &str, text: Vec<u8>) -> Result<(HeaderName, HeaderValue), &'static str> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "this cannot be the name of a header")?;
    if OWN.contains(&name) || name.as_str().starts_with("grpc-") || name.as_str().ends_with("-bin") {
        return Err("this header is the protocol's own");
    }
    let mut value = HeaderValue::from_bytes(text.trim_ascii()).map_err(|_| "it has what no header can have")?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// A file that has something in it: an empty one would mean the same as none.
async fn read(path: &Path) -> Result<Vec<u8>, String> {
    match tokio::fs::read(path).await {
        Ok(content) if content.is_empty() => Err(format!("{}: it is empty", path.display())),
        Ok(content) => Ok(content),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}
