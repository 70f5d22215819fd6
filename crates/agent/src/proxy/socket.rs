// SPDX-License-Identifier: Apache-2.0
//! Unix sockets on which the agent waits for the node's proxies.

use std::path::Path;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

/// After a connection could not be accepted: with no file descriptor left the next one fails at once, too.
const BREATH: Duration = Duration::from_millis(100);

/// Serves the proxies that connect, for ever.
pub(super) async fn serve<F>(socket: &Path, serve: impl Fn(UnixStream) -> F) -> Result<(), String>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = rest::listen(socket).and_then(UnixListener::from_std);
    let listener = listener.map_err(|error| format!("proxy socket {}: {error}", socket.display()))?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream))),
            Err(error) => {
                warn!(socket = %socket.display(), %error, "a proxy cannot connect");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}
