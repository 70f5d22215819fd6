// SPDX-License-Identifier: Apache-2.0
//! The transport header of a flow, and the words that summarise it.

use crate::proto::flow::layer4::Protocol;
use crate::proto::flow::{IcmPv4, IcmPv6, Igmp, Layer4, Sctp, Tcp, TcpFlags, Udp, Vrrp};
use abi::event::Event;
use abi::flow::proto;

/// Numbers of IANA that the programs do not know.
const IGMP: u8 = 2;
const VRRP: u8 = 112;

/// The header and its summary.
pub(super) fn decode(event: &Event) -> (Option<Layer4>, String) {
    let (source_port, destination_port) = (u16::from_be(event.sport).into(), u16::from_be(event.dport).into());
    let (kind, code) = (event.tcp_flags, event.icmp_code);
    let (protocol, summary) = match event.proto {
        proto::TCP => {
            let flags = Some(tcp_flags(event.tcp_flags));
            (Protocol::Tcp(Tcp { source_port, destination_port, flags }), tcp_summary(event.tcp_flags))
        }
        proto::UDP => (Protocol::Udp(Udp { source_port, destination_port }), "UDP".to_owned()),
        proto::SCTP => (Protocol::Sctp(Sctp { source_port, destination_port }), "SCTP".to_owned()),
        proto::ICMP => {
            let icmp = IcmPv4 { r#type: kind.into(), code: code.into() };
            (Protocol::IcmPv4(icmp), format!("ICMPv4 {}", icmp4_name(kind, code)))
        }
        proto::ICMPV6 => {
            let icmp = IcmPv6 { r#type: kind.into(), code: code.into() };
            (Protocol::IcmPv6(icmp), format!("ICMPv6 {}", icmp6_name(kind, code)))
        }
        // What they say is no part of the event.
        IGMP => (Protocol::Igmp(Igmp::default()), "IGMP".to_owned()),
        VRRP => (Protocol::Vrrp(Vrrp::default()), "VRRP".to_owned()),
        other => return (None, format!("IP protocol {other}")),
    };
    (Some(Layer4 { protocol: Some(protocol) }), summary)
}

/// The ports that a socket has or asks for, in network order; nothing is sent yet.
pub(super) fn of_socket(protocol: u8, source: u16, destination: u16) -> (Option<Layer4>, String) {
    let (source_port, destination_port) = (u16::from_be(source).into(), u16::from_be(destination).into());
    let (protocol, summary) = match protocol {
        proto::TCP => (Protocol::Tcp(Tcp { source_port, destination_port, flags: None }), "TCP"),
        proto::UDP => (Protocol::Udp(Udp { source_port, destination_port }), "UDP"),
        proto::SCTP => (Protocol::Sctp(Sctp { source_port, destination_port }), "SCTP"),
        other => return (None, format!("IP protocol {other}")),
    };
    (Some(Layer4 { protocol: Some(protocol) }), summary.to_owned())
}

const FLAGS: [(u8, &str); 8] = [
    (0x02, "SYN"),
    (0x10, "ACK"),
    (0x04, "RST"),
    (0x01, "FIN"),
    (0x08, "PSH"),
    (0x20, "URG"),
    (0x40, "ECE"),
    (0x80, "CWR"),
];

fn tcp_flags(bits: u8) -> TcpFlags {
    let has = |bit| bits & bit != 0;
    TcpFlags {
        fin: has(0x01),
        syn: has(0x02),
        rst: has(0x04),
        psh: has(0x08),
        ack: has(0x10),
        urg: has(0x20),
        ece: has(0x40),
        cwr: has(0x80),
        ns: false,
    }
}

fn tcp_summary(bits: u8) -> String {
    let names: Vec<&str> = FLAGS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if names.is_empty() { "TCP".to_owned() } else { format!("TCP Flags: {}", names.join(", ")) }
}

/// Names of RFC 792, RFC 1256.
fn icmp4_name(kind: u8, code: u8) -> String {
    let unreachable = ["Net", "Host", "Protocol", "Port", "FragmentationNeeded", "SourceRoutingFailed"];
    let (name, codes): (_, &[&str]) = match kind {
        0 => ("EchoReply", &[]),
        3 => ("DestinationUnreachable", &unreachable),
        4 => ("SourceQuench", &[]),
        5 => ("Redirect", &["Net", "Host", "TOS+Net", "TOS+Host"]),
        8 => ("EchoRequest", &[]),
        9 => ("RouterAdvertisement", &[]),
        10 => ("RouterSolicitation", &[]),
        11 => ("TimeExceeded", &["TTLExceeded", "FragmentReassemblyTimeExceeded"]),
        12 => ("ParameterProblem", &[]),
        13 => ("TimestampRequest", &[]),
        14 => ("TimestampReply", &[]),
        _ => return format!("{kind}({code})"),
    };
    with_code(name, codes, code)
}

/// Names of RFC 4443, RFC 4861, RFC 2710.
fn icmp6_name(kind: u8, code: u8) -> String {
    let unreachable = ["NoRouteToDst", "AdminProhibited", "BeyondScopeOfSrc", "Address", "Port"];
    let (name, codes): (_, &[&str]) = match kind {
        1 => ("DestinationUnreachable", &unreachable),
        2 => ("PacketTooBig", &[]),
        3 => ("TimeExceeded", &["HopLimitExceeded", "FragmentReassemblyTimeExceeded"]),
        4 => ("ParameterProblem", &[]),
        128 => ("EchoRequest", &[]),
        129 => ("EchoReply", &[]),
        130 => ("MLDv1MulticastListenerQueryMessage", &[]),
        131 => ("MLDv1MulticastListenerReportMessage", &[]),
        132 => ("MLDv1MulticastListenerDoneMessage", &[]),
        133 => ("RouterSolicitation", &[]),
        134 => ("RouterAdvertisement", &[]),
        135 => ("NeighborSolicitation", &[]),
        136 => ("NeighborAdvertisement", &[]),
        137 => ("Redirect", &[]),
        143 => ("MLDv2MulticastListenerReportMessageV2", &[]),
        _ => return format!("{kind}({code})"),
    };
    with_code(name, codes, code)
}

fn with_code(name: &str, codes: &[&str], code: u8) -> String {
    match codes.get(usize::from(code)) {
        Some(text) => format!("{name}({text})"),
        None if code == 0 => name.to_owned(),
        None => format!("{name}({code})"),
    }
}
