// SPDX-License-Identifier: Apache-2.0
//! What the fuzzer calls: answers of the kernel. Not part of the product.

/// A datagram of netfilter's socket: no more answers than it has room for.
pub fn answers(data: &[u8]) {
    let answers = super::message::answers(data);
    assert!(answers.len() <= data.len() / 16, "{answers:?}");
}
