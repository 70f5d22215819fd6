// SPDX-License-Identifier: Apache-2.0
//! The agent's REST APIs over its unix sockets, and the proxy's over its own.

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Where the agent listens.
pub(crate) const SOCKET: &str = "/var/run/cilium/cilium.sock";
/// Base of the health API.
pub(crate) const HEALTH_SOCKET: &str = "/var/run/cilium/health.sock";
const HEALTH_SOCKET_NAME: &str = "health.sock";

/// A client of one of the agent's APIs.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    socket: PathBuf,
    base: &'static str,
    /// Who listens there, for errors.
    who: &'static str,
    timeout: Duration,
}

impl Agent {
    /// The agent's main API. `host` is the path of the socket, possibly as a URL.
    pub(crate) fn new(host: &Path, timeout: Duration) -> Self {
        Self { socket: socket(host), base: "/v1", who: "agent", timeout }
    }

    /// What the node's proxy tells of itself.
    pub(crate) fn proxy(host: &Path, timeout: Duration) -> Self {
        Self { socket: socket(host), base: "/v1", who: "proxy", timeout }
    }

    /// The health API.
    pub(crate) fn health(host: &Path, timeout: Duration) -> Self {
        Self { socket: socket(host), base: "/v1beta", who: "agent", timeout }
    }

    /// The health API of the same agent; its socket is beside the other unless it is given.
    pub(crate) fn with_health(&self, host: Option<&Path>) -> Self {
        let beside = || self.socket.with_file_name(HEALTH_SOCKET_NAME);
        Self { socket: host.map_or_else(beside, socket), base: "/v1beta", who: self.who, timeout: self.timeout }
    }

    /// The same, with another timeout.
    pub(crate) fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Gets the object at a path below the API's base.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::GET, path).await
    }

    /// The same, or `None` if the agent has no such path because the feature is off.
    pub(crate) async fn get_opt<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        let (status, body) = self.answer(Method::GET, path).await?;
        let is_absent = status == StatusCode::NOT_FOUND && body.is_empty();
        if is_absent { Ok(None) } else { self.read(&format!("GET {}{path}", self.base), status, &body).map(Some) }
    }

    /// Sends a request that changes something.
    pub(crate) async fn put<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.ask(Method::PUT, path).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T> {
        let what = format!("{method} {}{path}", self.base);
        let (status, body) = self.answer(method, path).await?;
        self.read(&what, status, &body)
    }

    async fn answer(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes)> {
        let what = format!("{method} {}{path}", self.base);
        let answer = tokio::time::timeout(self.timeout, self.fetch(method, path)).await;
        answer.with_context(|| format!("the {} does not answer {what}", self.who))?
    }

    fn read<T: DeserializeOwned>(&self, what: &str, status: StatusCode, body: &Bytes) -> Result<T> {
        if status.is_success() {
            return serde_json::from_slice(body).with_context(|| format!("the {}'s answer to {what}", self.who));
        }
        // The agent's reason, a JSON string or plain text.
        let why: Option<String> = serde_json::from_slice(body).ok();
        let text = why.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
        match status {
            StatusCode::NOT_FOUND if text.is_empty() => {
                bail!("the {} has no {}", self.who, what.split_once(' ').map_or(what, |(_, path)| path))
            }
            _ if text.is_empty() => bail!("{what}: {status}"),
            _ => bail!("{what}: {status}: {text}"),
        }
    }

    async fn fetch(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes)> {
        let connect = || format!("connect to the {} at {}: is it running?", self.who, self.socket.display());
        let stream = UnixStream::connect(&self.socket).await.with_context(connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.with_context(connect)?;
        // Ends with the request, which reports its errors.
        tokio::spawn(connection);
        let what = format!("{method} {}{path}", self.base);
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base)).header(HOST, "localhost");
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await.with_context(|| what.clone())?;
        let status = response.status();
        let body = response.into_body().collect().await.context(what)?;
        Ok((status, body.to_bytes()))
    }
}

/// The path of a socket, which may be given as a URL.
fn socket(host: &Path) -> PathBuf {
    let text = host.to_string_lossy();
    text.strip_prefix("unix://").map_or_else(|| host.to_owned(), PathBuf::from)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    /// An agent that answers these paths with these bodies, whatever the base of the API; a path may begin with a method.
    pub(crate) fn agent(bodies: &[(&str, &str)]) -> (Agent, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("cilium.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let bodies: BTreeMap<String, String> =
            bodies.iter().map(|(path, body)| ((*path).to_owned(), (*body).to_owned())).collect();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let head = String::from_utf8_lossy(request.get(..length).unwrap()).into_owned();
                let mut words = head.split(' ');
                let (method, path) = (words.next().unwrap(), words.next().unwrap());
                let path = path.trim_start_matches("/v1beta").trim_start_matches("/v1");
                let key = if method == "GET" { path.to_owned() } else { format!("{method} {path}") };
                let (status, body) = bodies.get(&key).map_or(("404 Not Found", ""), |b| ("200 OK", b.as_str()));
                let length = body.len();
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (Agent::new(&socket, Duration::from_secs(10)), dir)
    }

    #[tokio::test]
    async fn what_goes_wrong_is_named() {
        let (agent, dir) = agent(&[("/good", "[1]"), ("/bad", "nonsense")]);
        assert_eq!(agent.get::<Vec<u32>>("/good").await.unwrap(), [1]);
        let error = async |path| format!("{:#}", agent.get::<Vec<u32>>(path).await.unwrap_err());
        assert!(error("/bad").await.contains("answer to GET /v1/bad"));
        assert!(error("/none").await.contains("has no /v1/none"));
        let nobody = Agent::new(&dir.path().join("none.sock"), Duration::from_secs(10));
        assert!(format!("{:#}", nobody.get::<u32>("/good").await.unwrap_err()).contains("is it running?"));
    }

    #[tokio::test]
    async fn a_socket_may_be_a_url_and_the_health_api_has_another_base() {
        let (_, dir) = agent(&[("PUT /probe", "[2]")]);
        let url = format!("unix://{}/cilium.sock", dir.path().display());
        let health = Agent::health(Path::new(&url), Duration::from_secs(10));
        assert_eq!(health.put::<Vec<u32>>("/probe").await.unwrap(), [2]);
        let error = format!("{:#}", health.get::<Vec<u32>>("/probe").await.unwrap_err());
        assert!(error.contains("has no /v1beta/probe"), "{error}");
    }
}
