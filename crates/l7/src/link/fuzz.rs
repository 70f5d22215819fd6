// SPDX-License-Identifier: Apache-2.0
//! What the fuzzer calls: frames of the socket between agent and proxy. Not part of the product.

use super::{FromProxy, ToProxy};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// A frame is read or refused, whoever it is for.
pub fn frame(data: &[u8]) {
    read::<FromProxy>(data);
    read::<ToProxy>(data);
}

fn read<T: serde::de::DeserializeOwned>(mut data: &[u8]) {
    let frame = pin!(super::frame::read::<T>(&mut data));
    assert!(matches!(frame.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_)), "the bytes are all there");
}
