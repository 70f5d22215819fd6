// SPDX-License-Identifier: Apache-2.0
//! TCP segments in Ethernet frames, with valid lengths and header checksums.

use std::net::IpAddr;

pub(crate) const SYN: u8 = abi::flow::tcp::SYN;
pub(crate) const ACK: u8 = abi::flow::tcp::ACK;

/// Initial hop limit: repeated runs of a program on one packet count it down.
const HOPS: u8 = 255;

/// An empty segment between two ports.
pub(crate) fn tcp((src, sport): (IpAddr, u16), (dst, dport): (IpAddr, u16), flags: u8) -> Vec<u8> {
    let mut segment = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    // The programs neither check nor need the checksum; they only update it.
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    let mut frame = vec![2, 0, 0, 0, 0xff, 2, 2, 0, 0, 0, 0xff, 1];
    match (src, dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            frame.extend([0x08, 0x00]);
            frame.extend(ipv4(src, dst, 6, [0, 40]));
        }
        (src, dst) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, HOPS]);
            for address in [src, dst] {
                match address {
                    IpAddr::V4(address) => frame.extend(address.to_ipv6_mapped().octets()),
                    IpAddr::V6(address) => frame.extend(address.octets()),
                }
            }
        }
    }
    frame.extend(segment);
    frame
}

/// The frame in the tunnel between two nodes with IPv4 addresses, under an identity.
pub(crate) fn tunnelled(src: IpAddr, dst: IpAddr, identity: u32, frame: &[u8]) -> Vec<u8> {
    let length = |headers: usize| ((headers + frame.len()) as u16).to_be_bytes();
    let mut out = vec![2, 0, 0, 0, 0xff, 2, 2, 0, 0, 0, 0xff, 1, 0x08, 0x00];
    out.extend(ipv4(src, dst, 17, length(20 + 8 + 8)));
    out.extend(
        [[0xc0, 0x01], abi::config::ProgramConfig::default().tunnel_port.to_be_bytes(), length(8 + 8), [0, 0]].concat(),
    );
    out.extend([[8, 0, 0, 0], (identity << 8).to_be_bytes()].concat());
    out.extend(frame);
    out
}

fn ipv4(src: IpAddr, dst: IpAddr, proto: u8, length: [u8; 2]) -> Vec<u8> {
    let before = [&[0x45, 0], &length[..], &[0, 0, 0x40, 0, HOPS, proto]].concat();
    let addresses = [src, dst].map(|address| match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => [0; 4],
    });
    let sum = checksum(&[before.as_slice(), &[0, 0], &addresses.concat()].concat());
    [before.as_slice(), &sum, &addresses.concat()].concat()
}

/// A frame that the datapath ignores.
pub(crate) fn foreign() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0xff, 2, 2, 0, 0, 0, 0xff, 1, 0x88, 0xcc];
    frame.resize(64, 0);
    frame
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::{ACK, IpAddr, checksum, tcp};

    #[test]
    fn the_header_checksum_covers_the_header() {
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        let frame = tcp((ip(1), 1000), (ip(2), 80), ACK);
        assert_eq!((frame.len(), checksum(&frame[14..34])), (54, [0, 0]));
    }

    #[test]
    fn an_ipv6_segment_is_twenty_bytes_longer() {
        let ip = |last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
        assert_eq!(tcp((ip(1), 1000), (ip(2), 80), ACK).len(), 74);
    }
}
