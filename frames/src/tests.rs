// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

const ENDS: [[&str; 2]; 2] = [["192.0.2.1", "192.0.2.2"], ["2001:db8::1", "2001:db8::2"]];

fn packet([src, dst]: [&str; 2], transport: Transport) -> Packet {
    Packet::new(src.parse().unwrap(), dst.parse().unwrap(), transport).payload(b"twenty octets are in")
}

fn udp(ends: [&str; 2]) -> Packet {
    packet(ends, Transport::Udp { sport: 1, dport: 2 })
}

#[test]
fn what_is_summed_with_its_checksum_gives_zero() {
    let tcp = Transport::Tcp { sport: 1, dport: 2, flags: SYN };
    for transport in [udp(ENDS[0]).transport, tcp, Transport::Icmp { kind: 8, code: 0, rest: [1, 2, 3, 4] }] {
        for ends in ENDS {
            let packet = packet(ends, transport);
            let body = packet.transport_bytes();
            let pseudo = if packet.proto() == ICMP { Vec::new() } else { packet.pseudo_header(body.len()) };
            assert_eq!(checksum(&[pseudo, body].concat()), [0, 0], "{packet:?}");
        }
    }
    assert_eq!(checksum(&udp(ENDS[0]).network()[..20]), [0, 0]);
}

#[test]
fn the_checksum_of_sctp_is_that_of_the_standards_example() {
    // RFC 3720, B.4: 32 bytes of zeros.
    assert_eq!(crc32c(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
}

#[test]
fn what_is_left_to_a_card_has_the_sum_of_the_pseudo_header() {
    for ends in ENDS {
        let (whole, blank) = (udp(ends).bytes(), udp(ends).without_checksum());
        let transport = whole.len() - 28;
        assert_eq!(
            [&whole[..transport + 6], &whole[transport + 8..]].concat(),
            [&blank[..transport + 6], &blank[transport + 8..]].concat()
        );
        // The card sums up the segment, this sum in it, and stores the complement.
        assert_eq!(checksum(&blank[transport..]), whole[transport + 6..transport + 8]);
    }
}

#[test]
fn two_fragments_are_the_packet() {
    for (ends, header) in [(ENDS[0], 20), (ENDS[1], 48)] {
        let whole = udp(ends);
        let [first, later] = whole.split(7, 2).map(|part| part.network()[header..].to_vec());
        assert_eq!((first.len(), [first, later].concat()), (16, whole.transport_bytes()));
    }
    let [first, later] = udp(ENDS[0]).split(7, 2).map(|part| part.network()[4..8].to_vec());
    assert_eq!((first, later), (vec![0, 7, 0x20, 0], vec![0, 7, 0, 2]));
}

#[test]
fn extension_headers_name_each_other_and_the_last_names_the_transport() {
    let network = udp(ENDS[1]).extension(60, &[1, 2, 3]).extension(0, &[4; 7]).fragment(9, 0, true).network();
    let chain = &network[40..72];
    assert_eq!(
        (network[6], chain),
        (60, &[0, 0, 1, 2, 3, 0, 0, 0, 44, 1, 4, 4, 4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0, UDP, 0, 0, 1, 0, 0, 0, 9][..])
    );
    assert_eq!(u16::from_be_bytes([network[4], network[5]]), 32 + 28);
}

#[test]
fn an_answer_goes_back_to_where_the_packet_came_from() {
    let (sent, answer) = (udp(ENDS[0]), udp(ENDS[0]).reply());
    assert_eq!((answer.src, answer.dst), (sent.dst, sent.src));
    assert!(matches!(answer.transport, Transport::Udp { sport: 2, dport: 1 }));
    let echo = Packet::echo_request(sent.src, sent.dst, 7);
    assert_eq!(echo.reply().network(), Packet::echo_reply(sent.dst, sent.src, 7).network());
}

#[test]
fn the_network_identifier_of_vxlan_has_three_octets() {
    assert_eq!(vxlan(0x0a_0b0c, b"frame"), b"\x08\0\0\0\x0a\x0b\x0c\0frame");
}
