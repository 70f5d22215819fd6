// SPDX-License-Identifier: Apache-2.0
//! What these tests use of hand-made packets.

pub(crate) use frames::{ACK, FIN, Packet, RST, SYN, Transport, arp, checksum, octets};

/// Source port of a frame without options.
pub(crate) fn source_port(frame: &[u8]) -> u16 {
    let at = 14 + if frame[12..14] == [8, 0] { 20 } else { 40 };
    u16::from_be_bytes([frame[at], frame[at + 1]])
}
