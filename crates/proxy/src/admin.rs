// SPDX-License-Identifier: Apache-2.0
//! Metrics and the health check.

use crate::serving::Shared;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use surface::Connections;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::sleep;

/// Connections at a time.
const CONNECTIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);

/// What is told.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) shared: Arc<Shared>,
    /// Whether a configuration is in force.
    pub(crate) serving: Arc<AtomicBool>,
}

impl Admin {
    /// Serves `/metrics` and `/healthz` at an address. One that is not free is waited for.
    pub(crate) async fn serve(self, address: SocketAddr) {
        let listener = loop {
            match listen(address) {
                Ok(listener) => break listener,
                Err(error) => tracing::warn!(%address, %error, "metrics or health cannot be served yet"),
            }
            sleep(RETRY).await;
        };
        let converse = |stream| self.clone().converse(stream);
        match Connections::new(CONNECTIONS, PATIENCE).accept(listener, converse).await {}
    }

    async fn converse(self, stream: TcpStream) -> hyper::Result<()> {
        let service = service_fn(move |request| ready(Ok::<_, Infallible>(self.answer(&request))));
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<http_body_util::Full<Bytes>> {
        let (status, text) = match request.uri().path() {
            "/metrics" => {
                self.shared.metrics.unread.set(i64::try_from(self.shared.backlog.bytes()).unwrap_or(i64::MAX));
                (StatusCode::OK, self.shared.metrics.render())
            }
            "/healthz" if self.shared.drain.is_cancelled() => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".into()),
            "/healthz" if !self.serving.load(Relaxed) => {
                (StatusCode::SERVICE_UNAVAILABLE, "waiting for a configuration\n".into())
            }
            "/healthz" => (StatusCode::OK, "ok\n".into()),
            _ => (StatusCode::NOT_FOUND, String::new()),
        };
        let mut response = Response::new(http_body_util::Full::from(text));
        *response.status_mut() = status;
        response
    }
}

/// The process before and this one may have the address at the same time.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(128)
}
