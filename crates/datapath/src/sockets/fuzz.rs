// SPDX-License-Identifier: Apache-2.0
//! What the fuzzer calls: answers of the kernel. Not part of the product.

use super::message::{Answer, answers};
use abi::lb::Connected;

/// A datagram of `sock_diag`: no more answers than it has room for, and what is found can be looked at.
pub fn sockets(data: &[u8]) {
    let answers = answers(data);
    assert!(answers.len() <= data.len() / 16, "{answers:?}");
    for answer in answers {
        if let Answer::Found(found) = answer {
            found.cookie();
            found.is_connected_to(&Connected::default());
        }
    }
}
