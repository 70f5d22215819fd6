// SPDX-License-Identifier: Apache-2.0
//! Backends: one that says what it was asked, and those that misbehave.

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::AbortHandle;

/// A backend, which ends with the value.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) requests: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Backend {
    /// One that does with each connection what is said.
    pub(crate) async fn raw<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(TcpStream, Arc<AtomicUsize>) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (opened, asked) = (Arc::clone(&connections), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            let mut served = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                opened.fetch_add(1, SeqCst);
                served.spawn(serve(stream, Arc::clone(&asked)));
            }
        });
        Self { address, connections, requests, task: task.abort_handle() }
    }

    /// One that says what it was asked, and its name.
    pub(crate) async fn echo(name: &'static str) -> Self {
        Self::answering(move |request| echo(name, request)).await
    }

    pub(crate) async fn answering<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::raw(move |stream, requests| {
            let answer = answer.clone();
            async move {
                let service = service_fn(move |request| {
                    requests.fetch_add(1, SeqCst);
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await
    }

    /// One that writes these bytes to whoever has written anything.
    pub(crate) async fn writing(bytes: Vec<u8>) -> Self {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        Self::raw(move |mut stream, requests| {
            let bytes = bytes.clone();
            async move {
                let _ = stream.read(&mut [0; 4096]).await;
                requests.fetch_add(1, SeqCst);
                let _ = stream.write_all(&bytes).await;
            }
        })
        .await
    }

    /// One that takes connections and never says a word.
    pub(crate) async fn silent() -> Self {
        Self::raw(|stream, _| async move {
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

async fn echo(name: &'static str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let code = head.uri.path().strip_prefix("/status/").and_then(|code| code.parse().ok()).unwrap_or(200);
    let mut text = format!("backend: {name}\nasked: {} {} {:?}\n", head.method, head.uri, head.version);
    for (key, value) in &head.headers {
        text += &format!("got-{key}: {}\n", value.to_str().unwrap());
    }
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    text += &format!("length: {}\n", body.len());
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert("x-backend", name.parse().unwrap());
    response
}

/// A backend at that address that sends each datagram back to where it came from.
pub(crate) async fn datagrams(at: &str) -> SocketAddr {
    let backend = UdpSocket::bind(at).await.unwrap();
    let address = backend.local_addr().unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; 64];
        loop {
            let (length, from) = backend.recv_from(&mut bytes).await.unwrap();
            backend.send_to(&bytes[..length], from).await.unwrap();
        }
    });
    address
}
