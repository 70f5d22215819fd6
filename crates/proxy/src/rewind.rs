// SPDX-License-Identifier: Apache-2.0
//! A stream whose first bytes have been looked at and are read again.

use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// A stream that begins with bytes that were taken from it.
#[derive(Debug)]
pub(crate) struct Rewind<T> {
    first: Bytes,
    io: T,
}

impl<T> Rewind<T> {
    pub(crate) fn new(first: Bytes, io: T) -> Self {
        Self { first, io }
    }

    /// What is still to be read again, and the stream.
    pub(crate) fn into_parts(self) -> (Bytes, T) {
        (self.first, self.io)
    }
}

impl<T: AsyncRead + Unpin> Rewind<T> {
    /// Reads until `look` knows what it needs, and forgets that anything was read.
    ///
    /// # Errors
    ///
    /// The stream ends first (`UnexpectedEof`), or more than `most` bytes do not suffice (`InvalidData`).
    pub(crate) async fn peek<R>(&mut self, most: usize, look: impl Fn(&[u8]) -> Option<R>) -> io::Result<R> {
        let mut seen = BytesMut::from(std::mem::take(&mut self.first));
        let result = loop {
            if let Some(result) = look(&seen) {
                break Ok(result);
            }
            if seen.len() >= most {
                break Err(io::ErrorKind::InvalidData.into());
            }
            match self.io.read_buf(&mut seen).await {
                Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        self.first = seen.freeze();
        result
    }

    /// Takes bytes away that were looked at.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.first.advance(bytes.min(self.first.len()));
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewind<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let length = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewind<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
