// SPDX-License-Identifier: Apache-2.0
//! Fuzz target: packets from raw sockets. Not part of the product.

/// Nothing matches our requests: nobody knows their tokens.
pub fn reply(data: &[u8]) {
    for v6 in [false, true] {
        assert_eq!(crate::icmp::answered_by(v6, data), None);
    }
}
