// SPDX-License-Identifier: Apache-2.0
//! The frames that tell where an address is.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::netlink::Mac;

const EVERYBODY: [u8; 6] = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A request by that address for itself (RFC 5227, 3): who knows it by another hardware address learns this one.
pub(super) fn gratuitous_arp(mac: Mac, address: Ipv4Addr) -> [u8; 42] {
    let mut frame = Frame::new(EVERYBODY, mac, 0x0806);
    frame.put(&[0, 1, 8, 0, 6, 4, 0, 1]).put(&mac.0).put(&address.octets());
    frame.put(&[0; 6]).put(&address.octets());
    frame.bytes
}

/// An advertisement that nobody asked for and that overrides what is known (RFC 4861, 4.4).
pub(super) fn advertisement(mac: Mac, address: Ipv6Addr) -> [u8; 86] {
    let mut message = Frame { bytes: [0; 32], used: 0 };
    message.put(&[136, 0, 0, 0, 0x20, 0, 0, 0]).put(&address.octets()).put(&[2, 1]).put(&mac.0);
    let mut message = message.bytes;
    let sum = checksum(&[&address.octets(), &ALL_NODES.octets(), &[0, 0, 0, 32, 0, 0, 0, 58], &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = Frame::new(group_mac(ALL_NODES).0, mac, 0x86dd);
    frame.put(&[0x60, 0, 0, 0, 0, 32, 58, 255]).put(&address.octets()).put(&ALL_NODES.octets()).put(&message);
    frame.bytes
}

/// Hardware address of the group in which an address is looked for (RFC 4291, 2.7.1).
pub(super) fn group(address: Ipv6Addr) -> Mac {
    let [.., a, b, c] = address.octets();
    Mac([0x33, 0x33, 0xff, a, b, c])
}

/// Hardware address of a group (RFC 2464, 7).
fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// Bytes that are filled from the front.
struct Frame<const N: usize> {
    bytes: [u8; N],
    used: usize,
}

impl<const N: usize> Frame<N> {
    fn new(to: [u8; 6], from: Mac, ethertype: u16) -> Self {
        let mut frame = Self { bytes: [0; N], used: 0 };
        frame.put(&to).put(&from.0).put(&ethertype.to_be_bytes());
        frame
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        let places = self.bytes.iter_mut().skip(self.used);
        places.zip(bytes).for_each(|(place, byte)| *place = *byte);
        self.used += bytes.len();
        self
    }
}

/// The checksum of bytes in parts of even length (RFC 1071).
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.as_chunks::<2>().0).map(|word| u32::from(u16::from_be_bytes(*word)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    #[test]
    fn a_gratuitous_request_is_by_the_address_for_itself_to_everybody() {
        let frame = gratuitous_arp(MAC, Ipv4Addr::new(192, 0, 2, 240));
        let expected = "ffffffffffff 020000000007 0806 0001 0800 0604 0001 020000000007 c00002f0 000000000000 c00002f0";
        assert_eq!(hex(&frame), expected.replace(' ', ""));
    }

    #[test]
    fn an_advertisement_goes_to_all_nodes_overrides_and_sums_to_nothing() {
        let address = "2001:db8::f0".parse().unwrap();
        let frame = advertisement(MAC, address);
        assert_eq!(hex(&frame[..14]), "33330000000102000000000786dd");
        assert_eq!(hex(&frame[14..22]), "6000000000203aff");
        assert_eq!(frame[54], 136);
        assert_eq!(frame[58], 0x20, "override, and not solicited");
        assert_eq!(hex(&frame[62..78]), hex(&address.octets()));
        assert_eq!(hex(&frame[78..]), "0201020000000007");
        let covered = [&frame[22..38], &frame[38..54], &[0, 0, 0, 32, 0, 0, 0, 58], &frame[54..]];
        assert_eq!(checksum(&covered), 0, "a receiver finds nothing wrong");
    }

    #[test]
    fn an_address_is_looked_for_in_the_group_of_its_last_three_bytes() {
        assert_eq!(group("2001:db8::12:3456".parse().unwrap()).to_string(), "33:33:ff:12:34:56");
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
