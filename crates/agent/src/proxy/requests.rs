// SPDX-License-Identifier: Apache-2.0
//! What the node's proxies tell of requests goes to Hubble. The socket is there while Hubble is: without it, proxies tell nothing.

use hubble::Sink;
use l7::link::{Exchanges, LinkError, REQUESTS};
use model::ServiceName;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tracing::{debug, warn};

/// The socket in the folder of the proxy's sockets.
pub(super) fn socket(folder: &Path) -> PathBuf {
    folder.join(REQUESTS)
}

/// Takes the socket of an earlier agent away.
pub(super) fn refuse(folder: &Path) {
    let socket = socket(folder);
    if let Err(error) = std::fs::remove_file(&socket)
        && error.kind() != ErrorKind::NotFound
    {
        warn!(socket = %socket.display(), %error, "proxies go on to tell of requests, in vain");
    }
}

/// Serves the proxies that connect.
pub(super) async fn serve(socket: PathBuf, sink: Sink) -> Result<(), String> {
    super::socket::serve(&socket, |stream| one(stream, sink.clone())).await
}

async fn one(stream: UnixStream, sink: Sink) {
    let mut reader = BufReader::new(stream);
    loop {
        match Exchanges::hear(&mut reader).await {
            Ok(told) => take(told, &sink),
            Err(LinkError::Io(error)) => return debug!(%error, "a proxy tells of no more requests"),
            Err(error) => {
                return warn!(error = statedb::with_causes(&error), "a proxy that tells of requests is not understood");
            }
        }
    }
}

fn take(told: Exchanges, sink: &Sink) {
    sink.lost_exchanges(told.lost);
    for exchange in told.exchanges {
        let service = exchange.cluster.as_deref().and_then(gateway::service_of);
        let service = service.map(|service| ServiceName::new(service.namespace, service.name));
        sink.exchange(exchange, service);
    }
}
