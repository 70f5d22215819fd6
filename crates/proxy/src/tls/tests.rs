// SPDX-License-Identifier: Apache-2.0
use super::hello::{LONGEST, Malformed, server_name};
use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::sync::Arc;

/// What rustls would send.
fn hello(name: &'static str, alpn: usize) -> Vec<u8> {
    let builder = ClientConfig::builder_with_provider(super::provider()).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = (0..alpn).map(|n| format!("protocol-{n}").into_bytes()).collect();
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same handshake in records of so many bytes.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let records = hello[5..].chunks(size).map(|chunk| {
        let length = u16::try_from(chunk.len()).unwrap().to_be_bytes();
        [&[22, 3, 1], &length[..], chunk].concat()
    });
    records.collect::<Vec<_>>().concat()
}

#[test]
fn the_name_is_known_with_the_last_byte_of_the_hello_and_not_before() {
    for (name, wanted) in [("Shop.Example", "shop.example"), ("10.0.0.1", "")] {
        let whole = hello(name, 2);
        for bytes in [whole.clone(), in_records(&whole, 100), in_records(&whole, 1)] {
            for length in 0..bytes.len() {
                assert_eq!(server_name(&bytes[..length]), None, "{length} of {}", bytes.len());
            }
            let more = [bytes, b"early data".to_vec()].concat();
            assert_eq!(server_name(&more), Some(Ok(wanted.to_owned())));
        }
    }
}

#[test]
fn a_hello_of_many_records_is_as_long_as_one_may_be() {
    let bytes = in_records(&hello("shop.example", 900), 500);
    assert!(bytes.len() > 10_000);
    assert_eq!(server_name(&bytes), Some(Ok("shop.example".to_owned())));
}

/// A hello with these extensions, as they are on the wire.
fn with_extensions(extensions: &[u8]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let body = [&[3, 3][..], &[0; 32], &[0], &sized(&[0x13, 0x01]), &[1, 0], &sized(extensions)].concat();
    let handshake = [&[1, 0][..], &sized(&body)].concat();
    [&[22, 3, 1][..], &sized(&handshake)].concat()
}

#[test]
fn a_hello_that_names_two_servers_is_refused() {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let host = |name: &str| [&[0][..], &sized(name.as_bytes())].concat();
    let extension = |names: &[u8]| [&[0, 0][..], &sized(&sized(names))].concat();
    let one = with_extensions(&extension(&host("A.example.")));
    assert_eq!(server_name(&one), Some(Ok("a.example".to_owned())));
    let both = [host("a.example"), host("b.example")].concat();
    let twice = [extension(&host("a.example")), extension(&host("b.example"))].concat();
    for extensions in [extension(&both), twice] {
        assert_eq!(server_name(&with_extensions(&extensions)), Some(Err(Malformed)));
    }
}

#[test]
fn what_is_no_hello_is_refused_at_once() {
    let rows: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n",
        b"SSH-2.0",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x02\x00\x00\x05",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
    ];
    for bytes in rows {
        assert_eq!(server_name(bytes), Some(Err(Malformed)), "{bytes:?}");
    }
    let endless = b"\x16\x03\x01\x40\x00\x01\xff\xff\xff";
    assert_eq!(server_name(endless), Some(Err(Malformed)), "longer than any");
}

proptest! {
    #[test]
    fn a_damaged_hello_is_read_or_refused(at in 0..200_usize, byte: u8, length in 0..400_usize) {
        let mut bytes = hello("shop.example", 1);
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(length);
        if let Some(Ok(name)) = server_name(&bytes) {
            prop_assert!(name.len() <= 253);
        }
    }

    #[test]
    fn any_bytes_are_decided_before_the_longest_hello(mut bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        bytes.resize(LONGEST + 5 + 1, 0);
        prop_assert!(server_name(&bytes).is_some());
    }
}
