// SPDX-License-Identifier: Apache-2.0
//! Strangers, for tests and fuzz targets: clients that ask whatever bytes say, and servers that answer so. Both are in memory, and neither is
//! part of the product.

#![allow(clippy::expect_used, reason = "a wrong answer is to be loud")]

mod client;
mod server;
#[cfg(test)]
mod tests;

pub use client::Call;
pub use server::{Answer, connect};

/// Set in the first byte of what is sent, it says that the rest is sent as it comes, not as messages.
const BARE: u8 = 0x80;

/// A message as it is sent: not compressed, its length, and itself.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend(message);
    frame
}

/// The messages of frames.
fn messages(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (head, rest) = frames.split_first_chunk::<5>()?;
        let [_, length @ ..] = *head;
        let (message, rest) = rest.split_at_checked(u32::from_be_bytes(length) as usize)?;
        frames = rest;
        Some(message)
    })
}
