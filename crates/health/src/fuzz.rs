// SPDX-License-Identifier: Apache-2.0
//! What the fuzzer calls: packets that raw sockets deliver. Not part of the product.

/// Whatever comes answers none of our requests: nobody knows their tokens.
pub fn reply(data: &[u8]) {
    for v6 in [false, true] {
        assert_eq!(crate::icmp::answered_by(v6, data), None);
    }
}
