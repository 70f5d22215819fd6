// SPDX-License-Identifier: Apache-2.0
//! Frames that are not IP, and frames in frames.

use crate::{Mac, NODE_MAC, WIRE_MAC};

/// An ARP request or reply (RFC 826), from a hardware and a protocol address to others.
#[must_use]
pub fn arp(operation: u8, sender: (Mac, [u8; 4]), target: (Mac, [u8; 4]), dst: Mac) -> Vec<u8> {
    let header = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation];
    [&dst[..], &sender.0, &header, &sender.0, &sender.1, &target.0, &target.1].concat()
}

/// A frame of a protocol that a datapath for IP ignores (LLDP).
#[must_use]
pub fn foreign() -> Vec<u8> {
    let mut frame = [&NODE_MAC[..], &WIRE_MAC, &[0x88, 0xcc]].concat();
    frame.resize(64, 0);
    frame
}

/// A frame in VXLAN (RFC 7348), as the payload of a datagram.
#[must_use]
pub fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    [&[0x08, 0, 0, 0][..], &(vni << 8).to_be_bytes(), frame].concat()
}
