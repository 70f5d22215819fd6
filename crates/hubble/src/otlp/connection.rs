// SPDX-License-Identifier: Apache-2.0
//! A connection to a collector, by either protocol, and what its answers mean.

use super::target::{Address, Protocol, Target};
use crate::client::{Dialer, Server};
use crate::proto::opentelemetry::logs_service_client::LogsServiceClient;
use crate::proto::opentelemetry::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use prost::Message;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that has died is noticed after twice this.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// What an answer may have: it is a few words.
const ANSWER: usize = 64 << 10;
/// How much of what a collector says of an error is shown.
const SHOWN: usize = 200;
/// The longest that a collector may have us wait.
const LONGEST: Duration = Duration::from_secs(300);
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Why a request was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Sent again, it would be refused again.
    pub(super) for_good: bool,
    /// How long the collector wants to be left alone.
    pub(super) pause: Option<Duration>,
    /// For people.
    pub(super) text: String,
}

/// An open connection.
pub(super) enum Connection {
    Grpc(Channel),
    Http { sender: SendRequest<Full<Bytes>>, _task: AbortOnDropHandle<()> },
}

impl Connection {
    /// Connects; the error is a message for people.
    pub(super) async fn open(target: &Target) -> Result<Self, String> {
        let connect = async {
            match target.protocol {
                Protocol::Grpc => Self::grpc(target).await,
                Protocol::Http => Self::http(target).await,
            }
        };
        tokio::time::timeout(2 * CONNECT, connect).await.map_err(|_| "it does not answer".to_owned())?
    }

    async fn grpc(target: &Target) -> Result<Self, String> {
        let (address, tls) = (target.address.place(), target.tls().await?);
        let server = Server { address, tls, timeout: Some(CONNECT), keepalive: Some(KEEPALIVE) };
        server.connect().await.map(Self::Grpc).map_err(|error| error.to_string())
    }

    async fn http(target: &Target) -> Result<Self, String> {
        let place = target.address.place();
        match target.tls().await? {
            Some(tls) => {
                let stream = Dialer::new(&place, tls, b"http/1.1")?.dial().await;
                Self::over(stream.map_err(|error| error.to_string())?).await
            }
            None => {
                let stream = TcpStream::connect(place).await;
                Self::over(stream.map_err(|error| error.to_string())?).await
            }
        }
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self, String> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let run = async move {
            // How it ends, the next request is told.
            let _ = connection.await;
        };
        Ok(Self::Http { sender, _task: AbortOnDropHandle::new(tokio::spawn(run)) })
    }

    /// Sends one request and waits for the answer.
    pub(super) async fn export(
        &mut self,
        address: &Address,
        headers: HeaderMap,
        records: ExportLogsServiceRequest,
    ) -> Result<ExportLogsServiceResponse, Failure> {
        match self {
            Self::Grpc(channel) => {
                let mut request = tonic::Request::new(records);
                *request.metadata_mut() = MetadataMap::from_headers(headers);
                let answer = LogsServiceClient::new(channel.clone()).export(request).await;
                answer.map(tonic::Response::into_inner).map_err(|status| Failure::from(&status))
            }
            Self::Http { sender, .. } => {
                let request = request(address, headers, &records)?;
                sender.ready().await.map_err(|error| Failure::passing(&error))?;
                let response = sender.send_request(request).await.map_err(|error| Failure::passing(&error))?;
                answer(response).await
            }
        }
    }
}

fn request(
    address: &Address,
    headers: HeaderMap,
    records: &ExportLogsServiceRequest,
) -> Result<Request<Full<Bytes>>, Failure> {
    let host = HeaderValue::from_str(address.authority()).map_err(|error| Failure::passing(&error))?;
    let request = Request::post(address.path()).body(Full::new(records.encode_to_vec().into()));
    let mut request = request.map_err(|error| Failure::passing(&error))?;
    *request.headers_mut() = headers;
    for (name, value) in [(HOST, host), (CONTENT_TYPE, PROTOBUF), (ACCEPT, PROTOBUF)] {
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// What an answer over HTTP means (OTLP, "Failures").
async fn answer(response: hyper::Response<Incoming>) -> Result<ExportLogsServiceResponse, Failure> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER).collect().await.map(|body| body.to_bytes());
    if head.status == StatusCode::OK {
        let body = body.map_err(|error| Failure::passing(&*error))?;
        return ExportLogsServiceResponse::decode(body).map_err(|error| Failure::passing(&error));
    }
    let again = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    Err(Failure {
        for_good: !again.contains(&head.status),
        pause: pause(&head.headers),
        text: format!("{}{}", head.status, shown(&body.unwrap_or_default())),
    })
}

/// Seconds, or nothing: a date would be of the collector's clock.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

/// What a collector says, if it is text.
fn shown(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    let text: String = text.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

impl Failure {
    /// It may be another time: nobody has refused it.
    pub(super) fn passing(error: &(impl ToString + ?Sized)) -> Self {
        Self { for_good: false, pause: None, text: error.to_string() }
    }
}

impl From<&Status> for Failure {
    fn from(status: &Status) -> Self {
        let text = format!("{:?}: {}", status.code(), status.message());
        Self { for_good: is_for_good(status), pause: None, text }
    }
}

/// Whether the protocol says not to send the request again. A collector that has too much to do says so in the details, where it
/// wants to be asked again; what our side could not send or hear is tried again.
fn is_for_good(status: &Status) -> bool {
    let again = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => !status.details().is_empty(),
        _ => std::error::Error::source(status).is_some(),
    };
    !again
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_protocol_says_to_send_again_is() {
        for code in [
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::Cancelled,
            Code::OutOfRange,
            Code::DataLoss,
        ] {
            assert!(!is_for_good(&Status::new(code, "")), "{code:?}");
        }
        for code in [
            Code::InvalidArgument,
            Code::Unauthenticated,
            Code::PermissionDenied,
            Code::Unimplemented,
            Code::Internal,
            Code::ResourceExhausted,
        ] {
            assert!(is_for_good(&Status::new(code, "")), "{code:?}");
        }
        let details = b"when to come back".as_slice().into();
        assert!(!is_for_good(&Status::with_details(Code::ResourceExhausted, "", details)));
    }

    #[test]
    fn a_collector_may_have_us_wait_but_not_for_ever() {
        let wait = |text: &'static str| pause(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]));
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("86400"), Some(LONGEST));
        assert_eq!((wait("Fri, 31 Dec 1999 23:59:59 GMT"), pause(&HeaderMap::new())), (None, None));
    }
}
