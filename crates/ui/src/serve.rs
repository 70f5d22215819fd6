// SPDX-License-Identifier: Apache-2.0
//! Connections of browsers: bounded in number, in time, and in how long they may leave unread what they are told.

use axum::Router;
use socket2::SockRef;
use std::time::Duration;
use surface::Connections;
use tokio::net::{TcpListener, TcpStream};

/// The most at the same time, each for so long at most: browsers connect again.
const CONNECTIONS: usize = 512;
const LONGEST: Duration = Duration::from_secs(3600);
/// A connection on which nothing was taken for so long is over.
const STALLED: Duration = Duration::from_secs(60);
/// After a connection could not be accepted.
const BREATH: Duration = Duration::from_millis(100);

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener, router: Router) {
    let mut connections = Connections::new(CONNECTIONS, LONGEST);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.serve(connection(stream, router.clone())),
            // With no file descriptor left the next one fails at once, too.
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    // Without it a reader that has stopped would hold its place.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(STALLED));
    surface::serve_connection(stream, router).await;
}
