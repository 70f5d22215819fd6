// SPDX-License-Identifier: Apache-2.0
//! Protocols and ports of rules.

use super::{Context, NonEmpty};
use std::sync::Arc;

/// Maximum length of a port's name (RFC 6335, 5.1).
const MAX_NAME: usize = 15;

/// TCP, UDP and SCTP by their numbers (IANA).
const TCP: u8 = abi::flow::proto::TCP;
const UDP: u8 = abi::flow::proto::UDP;
const SCTP: u8 = abi::flow::proto::SCTP;

/// A protocol with ports, or ICMP with types.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum L4 {
    /// A range; the full range means the whole protocol.
    Range {
        /// IP protocol number.
        proto: u8,
        /// First port, or type of ICMP.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// A named container port: the subject's own for ingress, the peer's for egress.
    Named {
        /// IP protocol number.
        proto: u8,
        name: Arc<str>,
    },
}

impl L4 {
    /// The whole protocol.
    #[must_use]
    pub const fn all(proto: u8) -> Self {
        Self::Range { proto, first: 0, last: u16::MAX }
    }
}

/// A port as written in Cilium's policies.
#[derive(Clone, Debug, Default)]
pub(super) struct RawPort {
    pub(super) port: Option<String>,
    pub(super) end: Option<i64>,
    pub(super) protocol: Option<String>,
}

impl RawPort {
    /// One entry per protocol.
    pub(super) fn parse(&self, context: &Context) -> Result<Vec<L4>, String> {
        let protos = protocols(self.protocol.as_deref(), context)?;
        let text = self.port.as_deref().unwrap_or("0");
        let Ok(number) = text.parse::<u32>() else {
            return named(text, self.end, &protos);
        };
        let first = u16::try_from(number).map_err(|_| format!("port {number} is above 65535"))?;
        let last = match self.end {
            None | Some(0) => first,
            Some(end) => u16::try_from(end).map_err(|_| format!("endPort {end} is not a port"))?,
        };
        if last < first {
            return Err(format!("endPort {last} is below port {first}"));
        }
        // Port 0 by itself means all ports.
        let (first, last) = if (first, last) == (0, 0) { (0, u16::MAX) } else { (first, last) };
        Ok(protos.into_iter().map(|proto| L4::Range { proto, first, last }).collect())
    }
}

fn named(name: &str, end: Option<i64>, protos: &[u8]) -> Result<Vec<L4>, String> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(format!("{name:?} is neither a port number nor a port name"));
    }
    if end.is_some_and(|end| end != 0) {
        return Err(format!("endPort cannot follow the named port {name:?}"));
    }
    let name: Arc<str> = name.to_ascii_lowercase().into();
    Ok(protos.iter().map(|&proto| L4::Named { proto, name: name.clone() }).collect())
}

fn protocols(text: Option<&str>, context: &Context) -> Result<Vec<u8>, String> {
    match text.unwrap_or("ANY") {
        "ANY" | "" if context.sctp => Ok(vec![TCP, UDP, SCTP]),
        "ANY" | "" => Ok(vec![TCP, UDP]),
        "TCP" => Ok(vec![TCP]),
        "UDP" => Ok(vec![UDP]),
        "SCTP" => Ok(vec![SCTP]),
        other => Err(format!("protocol {other:?} is not supported")),
    }
}

/// An ICMP type as policies write it: family and number or name.
pub(super) fn parse_icmp(family: Option<&str>, kind: &str) -> Result<L4, String> {
    let v6 = match family.unwrap_or("IPv4") {
        "IPv4" => false,
        "IPv6" => true,
        other => return Err(format!("{other:?} is not an ICMP family")),
    };
    let names = if v6 { ICMPV6_TYPES } else { ICMPV4_TYPES };
    let number = kind.parse::<u8>().ok();
    let number = number.or_else(|| names.iter().find(|(name, _)| *name == kind).map(|(_, number)| *number));
    let number = u16::from(
        number.ok_or_else(|| format!("{kind:?} is not a type of ICMP over {}", if v6 { "IPv6" } else { "IPv4" }))?,
    );
    let proto = if v6 { abi::flow::proto::ICMPV6 } else { abi::flow::proto::ICMP };
    Ok(L4::Range { proto, first: number, last: number })
}

/// RFC 792 and IANA's registry of ICMP types.
const ICMPV4_TYPES: &[(&str, u8)] = &[
    ("EchoReply", 0),
    ("DestinationUnreachable", 3),
    ("Redirect", 5),
    ("Echo", 8),
    ("EchoRequest", 8),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("ParameterProblem", 12),
    ("Timestamp", 13),
    ("TimestampReply", 14),
    ("Photuris", 40),
    ("ExtendedEchoRequest", 42),
    ("ExtendedEcho Reply", 43),
    ("ExtendedEchoReply", 43),
];

/// RFC 4443, RFC 4861 and IANA's registry of ICMPv6 types.
const ICMPV6_TYPES: &[(&str, u8)] = &[
    ("DestinationUnreachable", 1),
    ("PacketTooBig", 2),
    ("TimeExceeded", 3),
    ("ParameterProblem", 4),
    ("EchoRequest", 128),
    ("EchoReply", 129),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("MulticastListenerDone", 132),
    ("RouterSolicitation", 133),
    ("RouterAdvertisement", 134),
    ("NeighborSolicitation", 135),
    ("NeighborAdvertisement", 136),
    ("RedirectMessage", 137),
    ("RouterRenumbering", 138),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("HomeAgentAddressDiscoveryRequest", 144),
    ("HomeAgentAddressDiscoveryReply", 145),
    ("MobilePrefixSolicitation", 146),
    ("MobilePrefixAdvertisement", 147),
    ("DuplicateAddressRequestCodeSuffix", 157),
    ("DuplicateAddressConfirmationCodeSuffix", 158),
    ("ExtendedEchoRequest", 160),
    ("ExtendedEchoReply", 161),
];

/// A deduplicated list, or `None` if it is empty.
pub(super) fn collect(all: Vec<L4>) -> Option<NonEmpty<L4>> {
    NonEmpty::new(all).map(NonEmpty::sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(port: &str, end: Option<i64>, protocol: Option<&str>) -> Result<Vec<L4>, String> {
        let context = Context { cluster: "default".into(), default_local_cluster: true, sctp: false };
        RawPort { port: Some(port.into()), end, protocol: protocol.map(str::to_owned) }.parse(&context)
    }

    #[test]
    fn a_port_without_protocol_is_meant_for_tcp_and_udp() {
        assert_eq!(parse("53", None, None).unwrap().len(), 2);
        let with_sctp = Context { cluster: "default".into(), default_local_cluster: true, sctp: true };
        let port = RawPort { port: Some("53".into()), end: None, protocol: Some("ANY".into()) };
        let all = [6, 17, 132].map(|proto| L4::Range { proto, first: 53, last: 53 });
        assert_eq!(port.parse(&with_sctp).unwrap(), all);
        assert_eq!(parse("0", None, Some("TCP")).unwrap(), [L4::all(6)]);
        let range = L4::Range { proto: 17, first: 8000, last: 8010 };
        assert_eq!(parse("8000", Some(8010), Some("UDP")).unwrap(), [range]);
        assert_eq!(parse("HTTP", None, Some("TCP")).unwrap(), [L4::Named { proto: 6, name: "http".into() }]);
    }

    #[test]
    fn a_port_that_cannot_be_is_refused() {
        for (port, end) in [("70000", None), ("80", Some(79)), ("80", Some(70000)), ("", None), ("http", Some(90))] {
            assert!(parse(port, end, None).is_err(), "{port} {end:?}");
        }
        assert!(parse("0", None, Some("VRRP")).is_err());
        let (longest, too_long) = ("a-port-of-15-by", ["a-port-of-16-byt", "a-port-of-17-byte"]);
        assert!(parse(longest, None, Some("TCP")).is_ok());
        too_long.iter().for_each(|name| assert!(parse(name, None, Some("TCP")).is_err(), "{name}"));
    }

    #[test]
    fn icmp_types_have_numbers_and_names() {
        let echo = L4::Range { proto: 1, first: 8, last: 8 };
        assert_eq!(parse_icmp(None, "8").unwrap(), echo);
        assert_eq!(parse_icmp(Some("IPv4"), "EchoRequest").unwrap(), echo);
        assert_eq!(parse_icmp(Some("IPv6"), "EchoRequest").unwrap(), L4::Range { proto: 58, first: 128, last: 128 });
        assert!(parse_icmp(None, "PacketTooBig").is_err() && parse_icmp(Some("IPX"), "0").is_err());
    }
}
