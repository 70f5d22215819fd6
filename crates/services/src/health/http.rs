// SPDX-License-Identifier: Apache-2.0
//! A server for ports that are open to the network: it keeps no connection, and bounds how many there are and how long each takes.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use surface::Connections;
use tokio::net::{TcpListener, TcpStream};

/// Connections at the same time.
pub(super) const CONNECTIONS: usize = 32;
/// How long a connection may take.
const CONNECTION: Duration = Duration::from_secs(5);

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
    /// How much of the traffic should come here, for balancers that share by it.
    pub(super) weight: Option<usize>,
}

/// Listens on all addresses of the node.
pub(super) async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        // A kernel without IPv6.
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        outcome => outcome,
    }
}

/// Answers every GET as `answer` says for its path: nothing is not found. Ends with the task.
pub(super) async fn serve(
    listener: TcpListener,
    answer: impl Fn(&str) -> Option<Answer> + Clone + Send + Sync + 'static,
) -> Infallible {
    Connections::new(CONNECTIONS, CONNECTION).accept(listener, |stream| converse(stream, answer.clone())).await
}

async fn converse(stream: TcpStream, answer: impl Fn(&str) -> Option<Answer> + Send + Sync) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let path = request.uri().path();
        let response = match *request.method() {
            Method::GET | Method::HEAD => answer(path).map_or_else(|| empty(StatusCode::NOT_FOUND), render),
            _ => empty(StatusCode::METHOD_NOT_ALLOWED),
        };
        ready(Ok::<_, Infallible>(response))
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(CONNECTION).keep_alive(false).max_buf_size(8 << 10);
    server.serve_connection(TokioIo::new(stream), service).await
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

fn render(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(answer.body.to_string()));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, hyper::header::HeaderValue::from_static("nosniff"));
    if let Some(weight) = answer.weight {
        headers.insert("x-load-balancing-endpoint-weight", weight.into());
    }
    response
}
