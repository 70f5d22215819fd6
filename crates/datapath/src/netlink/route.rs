// SPDX-License-Identifier: Apache-2.0
//! Routes, also into a tunnel (`encap ip id ID dst NODE`).

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_core::{DefaultNla, Nla};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteIp6Tunnel, RouteLwEnCapType, RouteLwTunnelEncap,
    RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::address::family;
use super::{Existing, Netlink, failed, unless_absent};
use crate::Result;

/// The table that every packet's route is looked up in.
pub const MAIN_TABLE: u32 = 254;

/// How far something is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everywhere.
    #[default]
    Universe,
    /// On this link.
    Link,
    /// On this host.
    Host,
}

/// Where a tunnel's packets go, and with which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Encap {
    /// Tunnel key (the VNI).
    pub id: u64,
    /// The other end.
    pub dst: IpAddr,
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Index of the interface, or that of the gateway.
    pub ifindex: Option<u32>,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Tunnel.
    pub encap: Option<Encap>,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// Table.
    pub table: u32,
    /// Metric; IPv6 takes none for 1024.
    pub priority: Option<u32>,
    /// How far the destination is.
    pub scope: Scope,
    /// The gateway is on the link, though no prefix says so.
    pub onlink: bool,
    /// Who made it (`rtprot`).
    pub protocol: u8,
    /// There is no way: senders are told that the destination is unreachable.
    pub unreachable: bool,
}

impl Route {
    /// A route of the main table, made by an administrator (`static`).
    #[must_use]
    pub fn to(destination: impl Into<IpNet>) -> Self {
        Self {
            destination: destination.into(),
            ifindex: None,
            gateway: None,
            source: None,
            encap: None,
            mtu: None,
            table: MAIN_TABLE,
            priority: None,
            scope: Scope::Universe,
            onlink: false,
            protocol: 4,
            unreachable: false,
        }
    }
}

impl Netlink {
    /// All unicast and unreachable routes of a table, of both families.
    pub async fn routes(&self, table: u32) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = self.dump(Message::GetRoute(message)).await;
            let answers = answers.map_err(|source| failed("list", "routes".into(), source))?;
            routes.extend(answers.into_iter().filter_map(parse).filter(|route| route.table == table));
        }
        Ok(routes)
    }

    /// Adds a route, or replaces the one to the same destination (with the same metric, in the same table).
    pub async fn replace_route(&self, route: &Route) -> Result<()> {
        let made = self.create(Message::NewRoute(message(route)), Existing::Replace).await;
        made.map_err(|source| failed("add", describe(route), source))
    }

    /// Removes a route; false when there was none.
    pub async fn delete_route(&self, route: &Route) -> Result<bool> {
        let removed = unless_absent(self.change(Message::DelRoute(message(route)))).await;
        Ok(removed.map_err(|source| failed("remove", describe(route), source))?.is_some())
    }

    /// Indexes of the interfaces with a default route, the preferred one first.
    pub async fn default_interfaces(&self) -> Result<Vec<u32>> {
        let mut defaults = self.routes(MAIN_TABLE).await?;
        defaults.retain(|route| route.destination.prefix_len() == 0 && !route.unreachable);
        defaults.sort_by_key(|route| (route.destination.addr().is_ipv6(), route.priority));
        let mut interfaces = Vec::new();
        for ifindex in defaults.into_iter().filter_map(|route| route.ifindex) {
            if !interfaces.contains(&ifindex) {
                interfaces.push(ifindex);
            }
        }
        Ok(interfaces)
    }
}

fn describe(route: &Route) -> String {
    let device = route.ifindex.map(|ifindex| format!(" through interface {ifindex}")).unwrap_or_default();
    format!("route to {}{device}", route.destination)
}

fn message(route: &Route) -> RouteMessage {
    let destination = route.destination.trunc();
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination.addr());
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.kind = if route.unreachable { RouteType::Unreachable } else { RouteType::Unicast };
    message.header.scope = match route.scope {
        Scope::Universe => RouteScope::Universe,
        Scope::Link => RouteScope::Link,
        Scope::Host => RouteScope::Host,
    };
    if route.onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    let attributes = &mut message.attributes;
    if destination.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(destination.addr().into()));
    }
    attributes.push(RouteAttribute::Table(route.table));
    attributes.extend(route.ifindex.map(RouteAttribute::Oif));
    attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    attributes.extend(route.priority.map(RouteAttribute::Priority));
    attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    if let Some(tunnel) = route.encap {
        let (kind, attributes_of_tunnel) = encap(tunnel);
        attributes.push(RouteAttribute::EncapType(kind));
        attributes.push(RouteAttribute::Encap(attributes_of_tunnel));
    }
    message
}

/// `LWTUNNEL_IP_ID`, which the library knows for IPv6 only.
const IP_ID: u16 = 1;
/// `LWTUNNEL_IP_DST`.
const IP_DST: u16 = 2;

fn encap(tunnel: Encap) -> (RouteLwEnCapType, Vec<RouteLwTunnelEncap>) {
    let other = |kind, value: &[u8]| RouteLwTunnelEncap::Other(DefaultNla::new(kind, value.into()));
    match tunnel.dst {
        IpAddr::V4(dst) => {
            let attributes = vec![other(IP_ID, &tunnel.id.to_be_bytes()), other(IP_DST, &dst.octets())];
            (RouteLwEnCapType::Ip, attributes)
        }
        IpAddr::V6(dst) => {
            let attributes = [RouteIp6Tunnel::Id(tunnel.id), RouteIp6Tunnel::Destination(dst)];
            (RouteLwEnCapType::Ip6, attributes.into_iter().map(RouteLwTunnelEncap::Ip6).collect())
        }
    }
}

pub(super) fn parse_encap(attributes: &[RouteLwTunnelEncap]) -> Option<Encap> {
    let (mut id, mut dst) = (None, None);
    for attribute in attributes {
        match attribute {
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Id(value)) => id = Some(*value),
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(ip)) => dst = Some(IpAddr::V6(*ip)),
            RouteLwTunnelEncap::Other(other) => {
                let mut value = vec![0; other.value_len()];
                other.emit_value(&mut value);
                match other.kind() {
                    IP_ID => id = value.try_into().ok().map(u64::from_be_bytes),
                    IP_DST => dst = <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Some(Encap { id: id?, dst: dst? })
}

pub(super) fn ip(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(ip.into()),
        RouteAddress::Inet6(ip) => Some(ip.into()),
        _ => None,
    }
}

fn parse(answer: Message) -> Option<Route> {
    let Message::NewRoute(message) = answer else { return None };
    let header = message.header;
    let unreachable = header.kind == RouteType::Unreachable;
    if !(unreachable || header.kind == RouteType::Unicast) || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let unspecified = if header.address_family == AddressFamily::Inet6 { "::".parse() } else { "0.0.0.0".parse() };
    let mut route = Route::to(IpNet::new(unspecified.ok()?, 0).ok()?);
    route.table = header.table.into();
    route.protocol = header.protocol.into();
    route.unreachable = unreachable;
    route.onlink = header.flags.contains(RouteFlags::Onlink);
    route.scope = match header.scope {
        RouteScope::Link => Scope::Link,
        RouteScope::Host => Scope::Host,
        _ => Scope::Universe,
    };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                route.destination = IpNet::new(ip(to)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::Oif(ifindex) => route.ifindex = Some(ifindex),
            RouteAttribute::Gateway(gateway) => route.gateway = ip(gateway),
            RouteAttribute::PrefSource(source) => route.source = ip(source),
            RouteAttribute::Priority(priority) => route.priority = Some(priority),
            RouteAttribute::Encap(attributes) => route.encap = parse_encap(&attributes),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(route)
}
