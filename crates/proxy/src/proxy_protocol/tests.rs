// SPDX-License-Identifier: Apache-2.0
use super::{Header, LONGEST, Malformed, Peer, decode};
use l7::ProxyProtocol::{V1, V2};
use proptest::prelude::*;

fn peer(client: &str, local: &str) -> Peer {
    Peer { client: client.parse().unwrap(), local: local.parse().unwrap() }
}

#[test]
fn what_is_written_is_read_from_any_beginning_of_it_on() {
    for peer in [peer("1.2.3.4:5", "6.7.8.9:10"), peer("[2001:db8::1]:65535", "[::2]:0")] {
        for version in [V1, V2] {
            let mut bytes = peer.encode(version);
            for length in 0..bytes.len() {
                assert_eq!(decode(&bytes[..length]), None, "{length} bytes of {version:?}");
            }
            let header = Header { length: bytes.len(), peer: Some(peer) };
            bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
            assert_eq!(decode(&bytes), Some(Ok(header)));
        }
    }
}

#[test]
fn an_address_of_each_family_is_told_as_of_one() {
    let mixed = peer("1.2.3.4:5", "[2001:db8::1]:6");
    for version in [V1, V2] {
        let read = decode(&mixed.encode(version)).unwrap().unwrap().peer.unwrap();
        assert_eq!((read.client.ip().to_canonical(), read.local), (mixed.client.ip(), mixed.local));
    }
}

#[test]
fn what_is_not_told_is_nobody() {
    assert_eq!(decode(b"PROXY UNKNOWN\r\n"), Some(Ok(Header { length: 15, peer: None })));
    assert_eq!(decode(b"PROXY UNKNOWN ffff::1 ::2 1 2\r\nG").unwrap().unwrap().peer, None);
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    assert_eq!(decode(local), Some(Ok(Header { length: 16, peer: None })));
    // A unix socket, with its addresses.
    let mut unix = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\x00\xd8".to_vec();
    unix.resize(16 + 216, 7);
    assert_eq!(decode(&unix), Some(Ok(Header { length: 232, peer: None })));
}

#[test]
fn what_is_no_header_is_refused_as_soon_as_that_is_seen() {
    let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    let short = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0b12345678901".as_slice();
    let rows: [&[u8]; 13] = [
        b"G",
        b"PROXX",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        &long,
        short,
    ];
    for bytes in rows {
        assert_eq!(decode(bytes), Some(Err(Malformed)), "{:?}", String::from_utf8_lossy(bytes));
    }
    for [command, high] in [[0x11, 0], [0x22, 0], [0x21, 0xff]] {
        let bytes = [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, 0x11, high, 12]].concat();
        assert_eq!(decode(&bytes), Some(Err(Malformed)));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decided_before_the_longest_header(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        bytes.resize(LONGEST, 0);
        let header = decode(&bytes);
        prop_assert!(header.is_some_and(|header| header.is_err() || header.is_ok_and(|h| h.length <= bytes.len())));
    }
}
