// SPDX-License-Identifier: Apache-2.0
//! What HTTP/2 refuses before it is a request: streams above their limit, headers that are too large, floods. Nobody is told of it but the
//! client, so it is counted in what is written.

use crate::metrics::ListenerMetrics;
use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Length of a frame's header (RFC 9113, 4.1).
const HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const PROTOCOL_ERROR: u32 = 1;
const END_STREAM: u8 = 1;
/// What of a block of headers is looked at: all of one that says a status and nothing else.
const BLOCK: usize = 8;
/// Streams that are known at a time. Of one that its client has ended nothing is written any more.
const KNOWN: usize = 4096;

/// Frames that are written, as far as they have to be looked at.
#[derive(Debug, Default)]
struct Frames {
    /// A frame's beginning, and how much of it there is.
    begun: [u8; HEADER + BLOCK],
    length: usize,
    /// Bytes until the next frame.
    skip: usize,
    /// Streams whose answer has begun: what comes after are its trailers.
    answered: BTreeSet<u32>,
    /// The stream whose headers were too large last.
    too_large: Option<u32>,
}

impl Frames {
    /// Looks at what was written, and tells of what was refused by it.
    fn see(&mut self, mut bytes: &[u8], mut refused: impl FnMut(&'static str)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.split_at(skipped).1;
            let wanted = self.wanted();
            let (some, rest) = bytes.split_at(bytes.len().min(wanted - self.length));
            for (to, byte) in self.begun.iter_mut().skip(self.length).zip(some) {
                *to = *byte;
            }
            self.length += some.len();
            bytes = rest;
            if self.length >= HEADER && self.length == self.wanted() {
                self.skip = self.payload().saturating_sub(self.length - HEADER);
                if let Some(reason) = self.refusal() {
                    refused(reason);
                }
                self.length = 0;
            }
        }
    }

    fn payload(&self) -> usize {
        let [high, middle, low, ..] = self.begun;
        u32::from_be_bytes([0, high, middle, low]) as usize
    }

    fn kind(&self) -> u8 {
        let [_, _, _, kind, ..] = self.begun;
        kind
    }

    /// How much of the frame has to be there.
    fn wanted(&self) -> usize {
        match self.kind() {
            _ if self.length < HEADER => HEADER,
            HEADERS => HEADER + self.payload().min(BLOCK),
            RST_STREAM => HEADER + 4,
            GOAWAY => HEADER + 8,
            _ => HEADER,
        }
    }

    fn refusal(&mut self) -> Option<&'static str> {
        let [_, _, _, kind, flags, a, b, c, d, payload @ ..] = self.begun;
        let stream = u32::from_be_bytes([a, b, c, d]);
        let [e, f, g, h, i, j, k, l] = payload;
        let ends = flags & END_STREAM != 0;
        match kind {
            HEADERS if self.answered.remove(&stream) => None,
            HEADERS if ends => {
                let block = payload.get(..self.payload()).unwrap_or_default();
                // Answers of requests say more, such as their date.
                is_status_alone(block).then(|| {
                    self.too_large = Some(stream);
                    "headers-too-large"
                })
            }
            HEADERS => {
                self.answered.insert(stream);
                if self.answered.len() > KNOWN {
                    self.answered.pop_first();
                }
                None
            }
            DATA if ends => {
                self.answered.remove(&stream);
                None
            }
            RST_STREAM => {
                self.answered.remove(&stream);
                // There was a body besides.
                let counted = self.too_large == Some(stream);
                reason(u32::from_be_bytes([e, f, g, h])).filter(|_| !counted)
            }
            GOAWAY => reason(u32::from_be_bytes([i, j, k, l])),
            _ => None,
        }
    }
}

/// Whether a block of headers has one field that can be a status (RFC 7541, 6): one that is indexed, or one with the name of the first status in
/// the static table.
fn is_status_alone(block: &[u8]) -> bool {
    match block {
        [indexed] => indexed & 0x80 != 0,
        [0x08 | 0x48, length, value @ ..] => usize::from(length & 0x7f) == value.len(),
        _ => false,
    }
}

/// What a code says (RFC 9113, 7), unless it is no refusal or was counted as what it was: an answer that was cut off.
fn reason(code: u32) -> Option<&'static str> {
    match code {
        PROTOCOL_ERROR => Some("http2-protocol-error"),
        3 => Some("http2-flow-control-error"),
        4 => Some("http2-settings-timeout"),
        5 => Some("http2-stream-closed"),
        6 => Some("http2-frame-size-error"),
        7 => Some("http2-refused-stream"),
        9 => Some("http2-compression-error"),
        11 => Some("http2-enhance-your-calm"),
        _ => None,
    }
}

/// A stream whose frames are looked at.
#[derive(Debug)]
pub(super) struct Seen<T> {
    io: T,
    frames: Frames,
    metrics: Arc<ListenerMetrics>,
}

impl<T> Seen<T> {
    pub(super) fn new(io: T, metrics: Arc<ListenerMetrics>) -> Self {
        Self { io, frames: Frames::default(), metrics }
    }

    fn written(&mut self, bytes: &[u8]) {
        self.frames.see(bytes, |reason| self.metrics.refused(reason));
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Seen<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Seen<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = result {
            self.written(buf.get(..written).unwrap_or_default());
        }
        result
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
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(mut written)) = result {
            for buf in bufs {
                let some = written.min(buf.len());
                self.written(buf.get(..some).unwrap_or_default());
                written -= some;
            }
        }
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn seen<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<&'static str> {
        let (mut frames, mut all) = (Frames::default(), Vec::new());
        pieces.for_each(|piece| frames.see(piece, |reason| all.push(reason)));
        all
    }

    proptest! {
        #[test]
        fn refusals_are_seen_however_they_are_written(size in 1_usize..40, noise in vec((4_u8..10, 0_usize..50), 0..5)) {
            let noise: Vec<u8> = noise
                .iter()
                .filter(|(kind, _)| *kind != GOAWAY)
                .flat_map(|(kind, length)| frame(*kind, 0, 9, &vec![RST_STREAM; *length]))
                .collect();
            let bytes = [
                // `:status: 431`, said for the first time; and by its number, to a request with a body.
                frame(HEADERS, 5, 1, b"\x48\x03431"),
                noise.clone(),
                frame(HEADERS, 5, 3, &[0xbe]),
                frame(RST_STREAM, 0, 3, &[0, 0, 0, 1]),
                noise.clone(),
                frame(RST_STREAM, 0, 5, &[0, 0, 0, 1]),
                frame(RST_STREAM, 0, 7, &[0, 0, 0, 7]),
                frame(RST_STREAM, 0, 9, &[0, 0, 0, 8]),
                noise,
                frame(GOAWAY, 0, 0, &[0, 0, 0, 9, 0, 0, 0, 11, b'm', b'o', b'r', b'e']),
                frame(GOAWAY, 0, 0, &[0; 8]),
            ]
            .concat();
            let wanted = [
                "headers-too-large",
                "headers-too-large",
                "http2-protocol-error",
                "http2-refused-stream",
                "http2-enhance-your-calm",
            ];
            prop_assert_eq!(seen(bytes.chunks(size)), wanted);
        }
    }

    #[test]
    fn answers_and_their_trailers_are_not_taken_for_refusals() {
        let bytes = [
            frame(HEADERS, 5, 1, &[0x88, 0xbe]),
            frame(HEADERS, 4, 3, &[0x88, 0xbe]),
            frame(DATA, 0, 3, b"x"),
            frame(HEADERS, 5, 3, &[0xbf]),
            frame(HEADERS, 4, 5, &[0x88]),
            frame(DATA, 1, 5, b"x"),
            frame(HEADERS, 5, 7, &[&[0x88][..], &[0xbe; 100]].concat()),
        ]
        .concat();
        assert!(seen([&bytes[..]].into_iter()).is_empty());
    }
}
