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

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener, router: Router) {
    match Connections::new(CONNECTIONS, LONGEST).accept(listener, |stream| connection(stream, router.clone())).await {}
}

async fn connection(stream: TcpStream, router: Router) {
    // Without it a reader that has stopped would hold its place.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(STALLED));
    surface::serve_connection(stream, router).await;
}
