// SPDX-License-Identifier: Apache-2.0
//! Two streams joined: what comes out of one goes into the other.

use crate::lease::LOOK;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::time::sleep;

const BUFFER: usize = 16 << 10;

/// Joins them until both have ended, one fails, nothing has come from either for `idle`, or they may not go on.
pub(crate) async fn join<A, B>(a: A, b: B, idle: Duration, mut may_go_on: impl FnMut() -> bool)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let moved = AtomicBool::new(false);
    let (mut a, mut b) = (Noted { io: a, moved: &moved }, Noted { io: b, moved: &moved });
    let over = async {
        let (look, mut quiet) = (idle.min(LOOK), Duration::ZERO);
        while quiet < idle && may_go_on() {
            sleep(look).await;
            quiet = if moved.swap(false, Relaxed) { Duration::ZERO } else { quiet + look };
        }
    };
    tokio::select! {
        // How it ends is the two peers' affair.
        _ = copy_bidirectional_with_sizes(&mut a, &mut b, BUFFER, BUFFER) => {}
        () = over => {}
    }
}

struct Noted<'a, T> {
    io: T,
    moved: &'a AtomicBool,
}

impl<T: AsyncRead + Unpin> AsyncRead for Noted<'_, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if result.is_ready() {
            self.moved.store(true, Relaxed);
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Noted<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
