// SPDX-License-Identifier: Apache-2.0
//! Requests to the agent: HTTP/1.1 over its unix socket, one connection for a whole call.

use super::error::{Code, Error};
use crate::reference::AttachmentId;
use crate::rest::{DaemonConfigurationStatus, EndpointBatchDeleteRequest, EndpointChangeRequest, IpamResponse};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rest::{Endpoint, EndpointHealth};
use serde::Serialize;
use serde::de::DeserializeOwned;
use statedb::{Backoff, Retries};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

/// How long one request may take. PUT waits for policy and datapath.
const REQUEST: Duration = Duration::from_secs(90);
/// Back-off between attempts to connect.
const RETRY: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("the agent does not answer on {}", .0.display())]
    Away(PathBuf, #[source] io::Error),
    #[error("the connection to the agent broke")]
    Broken(#[from] hyper::Error),
    #[error("the agent took longer than {} s", REQUEST.as_secs())]
    TimedOut,
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    #[error("the agent's answer is not understood")]
    Answer(#[source] serde_json::Error),
}

impl CallError {
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::NOT_FOUND, .. })
    }

    /// Whether the agent responded at all.
    pub(super) const fn is_answer(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Answer(_))
    }

    /// The error for the runtime.
    pub(super) fn into_error(self, what: &str) -> Error {
        let code = match &self {
            Self::Away(..) | Self::Broken(_) | Self::TimedOut => Code::TryAgainLater,
            Self::Refused { status, .. } => match *status {
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::TOO_MANY_REQUESTS => {
                    Code::TryAgainLater
                }
                StatusCode::BAD_REQUEST => Code::InvalidConfig,
                StatusCode::NOT_FOUND => Code::UnknownContainer,
                _ => Code::Io,
            },
            Self::Answer(_) => Code::Decode,
        };
        Error::because(code, what, statedb::with_causes(&self))
    }
}

/// A connection to the agent.
pub(super) struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects, retrying until the deadline in case the agent is about to start.
    pub(super) async fn connect(socket: &Path, patience: Duration) -> Result<Self, CallError> {
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        let attempts = async {
            let mut retries = Retries::new(RETRY);
            loop {
                match UnixStream::connect(socket).await {
                    Ok(stream) => return stream,
                    Err(error) => last = error,
                }
                sleep(retries.failed()).await;
            }
        };
        let connected = timeout(patience, attempts).await;
        let Ok(stream) = connected else { return Err(CallError::Away(socket.to_owned(), last)) };
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    pub(super) async fn config(&mut self) -> Result<DaemonConfigurationStatus, CallError> {
        self.call(Method::GET, "/v1/config", None::<&()>).await
    }

    pub(super) async fn allocate(&mut self, owner: &str) -> Result<IpamResponse, CallError> {
        let path = format!("/v1/ipam?owner={}&expiration=true", encode(owner));
        self.call(Method::POST, &path, None::<&()>).await
    }

    pub(super) async fn release(&mut self, owner: &str, ip: IpAddr) -> Result<(), CallError> {
        let path = format!("/v1/ipam/{ip}?owner={}", encode(owner));
        self.send(Method::DELETE, &path, None::<&()>).await.map(drop)
    }

    pub(super) async fn create(
        &mut self,
        id: &AttachmentId,
        request: &EndpointChangeRequest,
    ) -> Result<Endpoint, CallError> {
        self.call(Method::PUT, &attachment_path(id), Some(request)).await
    }

    pub(super) async fn delete_container(&mut self, container_id: &str) -> Result<(), CallError> {
        let body = EndpointBatchDeleteRequest { container_id: container_id.to_owned() };
        self.send(Method::DELETE, "/v1/endpoint", Some(&body)).await.map(drop)
    }

    pub(super) async fn delete(&mut self, id: &AttachmentId) -> Result<(), CallError> {
        self.send(Method::DELETE, &attachment_path(id), None::<&()>).await.map(drop)
    }

    pub(super) async fn health(&mut self, id: &AttachmentId) -> Result<EndpointHealth, CallError> {
        self.call(Method::GET, &format!("{}/healthz", attachment_path(id)), None::<&()>).await
    }

    pub(super) async fn endpoints(&mut self) -> Result<Vec<Endpoint>, CallError> {
        self.call(Method::GET, "/v1/endpoint", None::<&()>).await
    }

    pub(super) async fn agent_health(&mut self) -> Result<(), CallError> {
        self.send(Method::GET, "/v1/healthz", None::<&()>).await.map(drop)
    }

    async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, CallError> {
        let bytes = self.send(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(CallError::Answer)
    }

    async fn send(&mut self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<Bytes, CallError> {
        let body = body.map(serde_json::to_vec).transpose().map_err(CallError::Answer)?.unwrap_or_default();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("localhost"));
        headers.insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
        timeout(REQUEST, self.exchange(request)).await.map_err(|_| CallError::TimedOut)?
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Bytes, CallError> {
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return Ok(bytes);
        }
        let text = || String::from_utf8_lossy(&bytes).trim().to_owned();
        let message = serde_json::from_slice::<String>(&bytes).unwrap_or_else(|_| format!("{status} {}", text()));
        Err(CallError::Refused { status, message })
    }
}

fn attachment_path(id: &AttachmentId) -> String {
    format!("/v1/endpoint/{}", encode(&format!("cni-attachment-id:{id}")))
}

/// Percent-encodes a path segment or query value.
fn encode(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
