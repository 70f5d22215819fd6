// SPDX-License-Identifier: Apache-2.0
//! The checksums of the Internet protocols and of SCTP, computed the slow and obvious way.

/// RFC 1071.
#[must_use]
pub fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// CRC-32C, bit by bit (RFC 3720, 12.1).
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |remainder: u32, byte| {
        (0..8).fold(remainder ^ u32::from(*byte), |r, _| if r & 1 == 1 { r >> 1 ^ 0x82f6_3b78 } else { r >> 1 })
    })
}
