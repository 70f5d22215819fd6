// SPDX-License-Identifier: Apache-2.0
//! Tells the node's agent of requests, for Hubble. No request waits for that: what does not fit into the queue is not told of, and counted.
//!
//! Clients write what they like into requests, and people read it. So it has a length here, and the values of headers that hold secrets never
//! leave the process.

use crate::exchange::Client;
use http::Request;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use l7::link::Exchanges;
use l7::{Exchange, REDACTED};
use prometheus_client::metrics::counter::Counter;
use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, BufWriter};
use tokio::net::UnixStream;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::sleep;

#[cfg(test)]
mod tests;

/// Between attempts to reach the agent.
const RETRY: Duration = Duration::from_secs(1);
/// Requests that wait to be told of, and how many bytes of them.
const WAITING: usize = 16 << 10;
const WAITING_BYTES: usize = 8 << 20;
/// Requests that are told of together.
const BATCH: usize = 256;

/// Longest texts, in bytes.
const METHOD: usize = 32;
const URL: usize = 2048;
const HEADER_NAME: usize = 128;
const HEADER_VALUE: usize = 512;
/// Bytes of all headers of a request.
const HEADERS: usize = 4096;

/// Words in the names of headers whose values are secrets.
const SECRET: [&str; 13] = [
    "access-key",
    "api-key",
    "apikey",
    "assertion",
    "auth",
    "cookie",
    "credential",
    "jwt",
    "passw",
    "secret",
    "session",
    "signature",
    "token",
];

/// Takes in requests.
#[derive(Debug)]
pub(crate) struct Observer {
    /// Whether there is an agent that wants to know.
    wanted: AtomicBool,
    queue: Sender<Box<Exchange>>,
    bytes: AtomicUsize,
    /// Not told of yet, nor ever will be.
    lost: AtomicU64,
    counted: Counter,
}

/// What an observer has taken in.
pub(crate) type Queue = Receiver<Box<Exchange>>;

impl Observer {
    pub(crate) fn new(counted: Counter) -> (Self, Queue) {
        let (queue, waiting) = channel(WAITING);
        let (wanted, bytes, lost) = (AtomicBool::default(), AtomicUsize::default(), AtomicU64::default());
        (Self { wanted, queue, bytes, lost, counted }, waiting)
    }

    /// What there is to tell of a request at its head; nothing if nobody wants to know.
    pub(crate) fn begin<B>(&self, client: &Client, request: &Request<B>) -> Option<Box<Exchange>> {
        self.wanted.load(Relaxed).then(|| {
            Box::new(Exchange {
                client: client.peer.client,
                server: client.peer.local,
                method: cut(request.method().as_str(), METHOD),
                url: url(client.scheme(), request),
                protocol: format!("{:?}", request.version()),
                headers: headers(request.headers()),
                ..Exchange::default()
            })
        })
    }

    /// Tells of a request that is answered, or that will not be.
    pub(crate) fn end(&self, mut exchange: Box<Exchange>) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        exchange.time = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let size = exchange.size();
        let fits = self.bytes.fetch_add(size, Relaxed) + size <= WAITING_BYTES;
        if !(fits && self.queue.try_send(exchange).is_ok()) {
            self.bytes.fetch_sub(size, Relaxed);
            self.lose(1);
        }
    }

    fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Relaxed);
        self.counted.inc_by(count);
    }

    /// What comes next of the queue, and what was lost meanwhile.
    async fn next(&self, queue: &mut Queue) -> Exchanges {
        let mut batch = Vec::with_capacity(BATCH);
        if queue.recv_many(&mut batch, BATCH).await == 0 {
            std::future::pending::<()>().await;
        }
        self.bytes.fetch_sub(batch.iter().map(|exchange| exchange.size()).sum(), Relaxed);
        Exchanges { lost: self.take_lost(), exchanges: batch.into_iter().map(|exchange| *exchange).collect() }
    }

    fn take_lost(&self) -> u64 {
        self.lost.swap(0, Relaxed)
    }

    /// Nobody observes requests on this node.
    fn forget(&self, queue: &mut Queue) {
        self.wanted.store(false, Relaxed);
        while let Ok(exchange) = queue.try_recv() {
            self.bytes.fetch_sub(exchange.size(), Relaxed);
        }
        self.take_lost();
    }
}

/// Tells the agent for as long as the process runs. While an agent that has been there is away, requests wait for the next.
pub(crate) async fn tell(socket: PathBuf, observer: Arc<Observer>, mut queue: Queue) {
    loop {
        match UnixStream::connect(&socket).await {
            Ok(stream) => session(stream, &observer, &mut queue).await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => observer.forget(&mut queue),
            Err(_) => {}
        }
        sleep(RETRY).await;
    }
}

async fn session(stream: UnixStream, observer: &Observer, queue: &mut Queue) {
    observer.wanted.store(true, Relaxed);
    let (mut reader, writer) = stream.into_split();
    let mut writer = BufWriter::new(writer);
    // The agent says nothing: this ends when it does.
    let gone = reader.read_u8();
    tokio::pin!(gone);
    // From here on, all that is not told of is counted, which the agent learns by a first word.
    let mut told = Exchanges { lost: observer.take_lost(), exchanges: Vec::new() };
    loop {
        if told.tell(&mut writer).await.is_err() {
            let untold = told.exchanges.len() as u64;
            observer.counted.inc_by(untold);
            observer.lost.fetch_add(told.lost + untold, Relaxed);
            return;
        }
        told = tokio::select! {
            biased;
            _ = &mut gone => return,
            next = observer.next(queue) => next,
        };
    }
}

/// The whole URL, as the client has written it.
fn url<B>(scheme: &str, request: &Request<B>) -> String {
    let uri = request.uri();
    let host = match (uri.authority(), request.headers().get(HOST)) {
        (Some(authority), _) => Cow::Borrowed(authority.as_str()),
        (None, Some(host)) => String::from_utf8_lossy(host.as_bytes()),
        (None, None) => Cow::Borrowed(""),
    };
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    cut(&format!("{scheme}://{host}{path}"), URL)
}

/// As many as fit, in their order.
fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut room = HEADERS;
    let each = headers.iter().map(|(name, value)| (cut(name.as_str(), HEADER_NAME), shown(name, value)));
    let fits = |(name, value): &(String, String)| {
        let left = room.checked_sub(name.len() + value.len());
        room = left.unwrap_or(0);
        left.is_some()
    };
    each.take_while(fits).collect()
}

fn shown(name: &HeaderName, value: &HeaderValue) -> String {
    if value.is_sensitive() || SECRET.iter().any(|word| name.as_str().contains(word)) {
        return REDACTED.to_owned();
    }
    cut(&String::from_utf8_lossy(value.as_bytes()), HEADER_VALUE)
}

/// The text, or as much of it as so many bytes hold, with an ellipsis.
fn cut(text: &str, most: usize) -> String {
    const ELLIPSIS: char = '…';
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most.saturating_sub(ELLIPSIS.len_utf8()));
    format!("{}{ELLIPSIS}", text.get(..end).unwrap_or_default())
}
