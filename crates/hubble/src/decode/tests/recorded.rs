// SPDX-License-Identifier: Apache-2.0
//! Events as the programs wrote them, byte by byte, and what clients see of them. Each line of the file is a name and the bytes of one event, in
//! hexadecimal digits; they were recorded from the programs while packets were put through them.

use super::{decode, json};
use abi::Addr;
use abi::event::{Event, Verdict};
use serde_json::Value;
use std::path::Path;

const EVENTS: &str = include_str!("../../../tests/golden/events.txt");

/// Takes numbers off the beginning, in the byte order of the machine that the programs run on.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        *head
    }

    fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn byte(&mut self) -> u8 {
        let [byte] = self.take();
        byte
    }

    fn addr(&mut self) -> Addr {
        Addr { hi: self.long(), lo: self.long() }
    }

    fn verdict(&mut self) -> Verdict {
        Verdict { provenance: self.word(), outcome: self.byte(), match_type: self.byte(), pad: self.short() }
    }

    /// In the order of the fields.
    fn event(&mut self) -> Event {
        Event {
            time: self.long(),
            src: self.addr(),
            dst: self.addr(),
            src_xlated: self.addr(),
            dst_orig: self.addr(),
            sport: self.short(),
            dport: self.short(),
            src_mac: self.take(),
            dst_mac: self.take(),
            src_identity: self.word(),
            dst_identity: self.word(),
            src_endpoint: self.short(),
            dst_endpoint: self.short(),
            ifindex: self.word(),
            len: self.word(),
            packets: self.word(),
            egress: self.verdict(),
            ingress: self.verdict(),
            kind: self.byte(),
            point: self.byte(),
            reason: self.byte(),
            proto: self.byte(),
            tcp_flags: self.byte(),
            icmp_code: self.byte(),
            reply: self.byte(),
            direction: self.byte(),
        }
    }
}

/// The name of an event, and its flows.
fn flows(line: &str) -> (String, Value) {
    let (name, digits) = line.rsplit_once(' ').unwrap();
    let bytes: Vec<u8> =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
    let mut rest = Bytes(&bytes);
    let event = rest.event();
    assert!(rest.0.is_empty(), "{name} has {} bytes too many", rest.0.len());
    (name.to_owned(), decode(event).iter().map(json).collect())
}

#[test]
fn what_the_programs_wrote_is_shown_as_the_protocol_has_it() {
    let found: Value = Value::Object(EVENTS.lines().map(flows).collect());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/events.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
    }
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for (name, flows) in found.as_object().unwrap() {
        assert_eq!(flows, &expected[name], "{name}");
    }
    assert_eq!(found.as_object().unwrap().len(), expected.as_object().unwrap().len());
}
