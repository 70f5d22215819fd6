// SPDX-License-Identifier: Apache-2.0
//! The agent's REST API over its unix socket (contracts L.1).

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;

/// Where the agent listens.
pub(crate) const SOCKET: &str = "/var/run/cilium/cilium.sock";

/// The agent.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    /// Its socket.
    pub(crate) socket: PathBuf,
    /// How long to wait for an answer.
    pub(crate) timeout: Duration,
}

impl Agent {
    /// The object at a path below `/v1`.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = self.get_bytes(path).await?;
        serde_json::from_slice(&body).with_context(|| format!("the agent's answer to GET /v1{path}"))
    }

    /// The answer as it is.
    pub(crate) async fn get_bytes(&self, path: &str) -> Result<Bytes> {
        let answer = tokio::time::timeout(self.timeout, self.fetch(path)).await;
        let (status, body) = answer.with_context(|| format!("the agent does not answer GET /v1{path}"))??;
        if status.is_success() {
            return Ok(body);
        }
        // The agent says why as a JSON string, or as plain text.
        let why: Option<String> = serde_json::from_slice(&body).ok();
        let text = why.unwrap_or_else(|| String::from_utf8_lossy(&body).trim().to_owned());
        match status {
            StatusCode::NOT_FOUND if text.is_empty() => bail!("the agent has no /v1{path}"),
            _ if text.is_empty() => bail!("GET /v1{path}: {status}"),
            _ => bail!("GET /v1{path}: {status}: {text}"),
        }
    }

    async fn fetch(&self, path: &str) -> Result<(StatusCode, Bytes)> {
        let connect = || format!("connect to the agent at {}: is it running?", self.socket.display());
        let stream = UnixStream::connect(&self.socket).await.with_context(connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.with_context(connect)?;
        // Ends with the request; what goes wrong shows there.
        tokio::spawn(connection);
        let request = Request::get(format!("/v1{path}")).header(HOST, "localhost").body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await.with_context(|| format!("GET /v1{path}"))?;
        let status = response.status();
        let body = response.into_body().collect().await.with_context(|| format!("GET /v1{path}"))?;
        Ok((status, body.to_bytes()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::collections::BTreeMap;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    /// An agent that answers these paths with these bodies.
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
                let path = head.split(' ').nth(1).unwrap().trim_start_matches("/v1").to_owned();
                let (status, body) = bodies.get(&path).map_or(("404 Not Found", ""), |b| ("200 OK", b.as_str()));
                let length = body.len();
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (Agent { socket, timeout: Duration::from_secs(10) }, dir)
    }

    #[tokio::test]
    async fn what_goes_wrong_is_named() {
        let (agent, dir) = agent(&[("/good", "[1]"), ("/bad", "nonsense")]);
        assert_eq!(agent.get::<Vec<u32>>("/good").await.unwrap(), [1]);
        let error = async |path| format!("{:#}", agent.get::<Vec<u32>>(path).await.unwrap_err());
        assert!(error("/bad").await.contains("answer to GET /v1/bad"));
        assert!(error("/none").await.contains("has no /v1/none"));
        let nobody = Agent { socket: dir.path().join("none.sock"), ..agent.clone() };
        assert!(format!("{:#}", nobody.get::<u32>("/good").await.unwrap_err()).contains("is it running?"));
    }
}
