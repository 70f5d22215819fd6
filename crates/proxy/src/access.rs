// SPDX-License-Identifier: Apache-2.0
//! The access log: a line of JSON per request. A log that nobody reads loses lines rather than holding requests up.

use http::Request;
use l7::Name;
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines that wait to be written.
const WAITING: usize = 16 << 10;

/// One request.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Entry {
    /// Milliseconds since 1970.
    time: u128,
    pub(crate) listener: Option<Name>,
    pub(crate) client: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_name: Option<Arc<str>>,
    method: String,
    host: String,
    path: String,
    protocol: String,
    pub(crate) request_id: String,
    pub(crate) status: u16,
    /// Of the answer's body.
    pub(crate) bytes: u64,
    pub(crate) duration_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) endpoint_identity: u32,
    pub(crate) attempts: u32,
    /// Why the proxy answered itself, or the answer ended before its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
}

impl Entry {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let host = request.uri().authority().map_or_else(|| header(http::header::HOST), |authority| authority.as_str());
        Self {
            time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis(),
            method: request.method().to_string(),
            host: host.to_owned(),
            path: request.uri().path().to_owned(),
            protocol: format!("{:?}", request.version()),
            ..Self::default()
        }
    }
}

/// Where entries go.
#[derive(Debug)]
pub(crate) struct AccessLog {
    lines: SyncSender<Vec<u8>>,
    lost: Counter,
}

impl AccessLog {
    /// Writes to a file, or to standard output for `-`. Lines that are lost are counted.
    ///
    /// # Errors
    ///
    /// The file or a thread cannot be had.
    pub(crate) fn open(path: &Path, lost: Counter) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match path.as_os_str() == "-" {
            true => Box::new(io::stdout()),
            false => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        };
        let (lines, waiting) = sync_channel(WAITING);
        std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(out, &waiting))?;
        Ok(Self { lines, lost })
    }

    pub(crate) fn write(&self, entry: &Entry) {
        let Ok(mut line) = serde_json::to_vec(entry) else { return };
        line.push(b'\n');
        if self.lines.try_send(line).is_err() {
            self.lost.inc();
        }
    }
}

fn write_all(mut out: Box<dyn Write + Send>, lines: &Receiver<Vec<u8>>) {
    while let Ok(mut batch) = lines.recv() {
        lines.try_iter().take(WAITING).for_each(|line| batch.extend_from_slice(&line));
        // A full disk is no reason to stop serving; what it does not take is gone.
        let _ = out.write_all(&batch).and_then(|()| out.flush());
    }
}
