// SPDX-License-Identifier: Apache-2.0
//! The routing tables as packets see them: routes of every kind, as far as they decide where packets go, and the tables that the
//! rules send packets to. It makes nothing: [`super::Route`] is for routes of our own.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags, RouteVia,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::route::{ip, parse_encap};
use super::{Encap, Netlink, failed};
use crate::Result;

/// A route of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibRoute {
    /// Whose packets it is for.
    pub place: Place,
    /// Of routes with one place, that with the lowest counts.
    pub metric: u32,
    /// What happens to them.
    pub way: Way,
}

/// Where in the tables a route is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Table.
    pub table: u32,
    /// To where.
    pub destination: IpNet,
    /// From where.
    pub source: IpNet,
    /// Type of service; 0 for all.
    pub tos: u8,
}

/// What happens to packets that follow a route. What the host's own packets get from it is no part of this: source address, hop
/// limit, and the like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// `RTN_UNICAST`, and the like.
    pub kind: u8,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// Number of the next hop object.
    pub object: Option<u32>,
    /// What a router has said of itself.
    pub preference: u8,
    /// To where: of several, each takes a share. None where packets go no further.
    pub hops: Vec<NextHop>,
}

/// A next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    /// Index of the interface, or 0.
    pub ifindex: u32,
    /// The neighbour, if the destination is none itself.
    pub gateway: Option<IpAddr>,
    /// The tunnel into which packets go.
    pub encap: Option<Encap>,
    /// Share among several, less one.
    pub weight: u8,
    /// The interface is down, or has no carrier.
    pub down: bool,
}

/// A change of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteChange {
    /// A route is new, beside the others of its place.
    Added(FibRoute),
    /// A route has taken the place of one with its metric.
    Replaced(FibRoute),
    /// A route has gone.
    Removed(FibRoute),
}

impl Netlink {
    /// All routes of all tables, of both families.
    pub async fn fib(&self) -> Result<Vec<FibRoute>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = self.dump(Message::GetRoute(message)).await;
            let answers = answers.map_err(|source| failed("list", "routes".into(), source))?;
            routes.extend(answers.iter().filter_map(|answer| match answer {
                Message::NewRoute(message) => route(message),
                _ => None,
            }));
        }
        Ok(routes)
    }

    /// The tables that rules send packets to; none if it may be any.
    pub async fn tables(&self) -> Result<Option<BTreeSet<u32>>> {
        let mut tables = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RuleMessage::default();
            message.header.family = family;
            let answers = match self.dump(Message::GetRule(message)).await {
                // A kernel without rules.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) => {
                    return Ok(None);
                }
                answers => answers.map_err(|source| failed("list", "rules".into(), source))?,
            };
            for answer in answers {
                let Message::NewRule(rule) = answer else { continue };
                if rule.header.action == RuleAction::ToTable {
                    match table(&rule) {
                        Some(table) => tables.insert(table),
                        // The table is that of the packet's interface.
                        None => return Ok(None),
                    };
                }
            }
        }
        Ok(Some(tables))
    }
}

fn table(rule: &RuleMessage) -> Option<u32> {
    let named = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    named.or(Some(rule.header.table.into())).filter(|table| *table != 0)
}

/// The route that a message describes; none for what the kernel remembers of routes (exceptions).
pub(super) fn route(message: &RouteMessage) -> Option<FibRoute> {
    let header = &message.header;
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let all: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut destination, mut source) = (all, all);
    let (mut table, mut metric, mut several) = (header.table.into(), 0, Vec::new());
    let mut way = Way { kind: header.kind.into(), mtu: None, object: None, preference: 0, hops: Vec::new() };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = ip(to.clone())?,
            RouteAttribute::Source(from) => source = ip(from.clone())?,
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::NhId(id) => way.object = Some(*id),
            RouteAttribute::Preference(preference) => way.preference = (*preference).into(),
            RouteAttribute::MultiPath(hops) => several = hops.iter().map(one_of_several).collect(),
            RouteAttribute::Metrics(metrics) => {
                way.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let mut only = hop(&message.attributes);
    only.down = header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown);
    way.hops = if several.is_empty() { vec![only] } else { several };
    way.hops.retain(|hop| hop.ifindex != 0 || hop.gateway.is_some());
    let place = Place {
        table,
        destination: IpNet::new(destination, header.destination_prefix_length).ok()?,
        source: IpNet::new(source, header.source_prefix_length).ok()?,
        tos: header.tos,
    };
    Some(FibRoute { place, metric, way })
}

fn one_of_several(several: &RouteNextHop) -> NextHop {
    let down = several.flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown);
    NextHop { ifindex: several.interface_index, weight: several.hops, down, ..hop(&several.attributes) }
}

fn hop(attributes: &[RouteAttribute]) -> NextHop {
    let mut hop = NextHop::default();
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => hop.ifindex = *ifindex,
            RouteAttribute::Gateway(gateway) => hop.gateway = ip(gateway.clone()),
            RouteAttribute::Via(via) => hop.gateway = neighbour(via),
            RouteAttribute::Encap(attributes) => hop.encap = parse_encap(attributes),
            _ => {}
        }
    }
    hop
}

/// A gateway of the other family.
fn neighbour(via: &RouteVia) -> Option<IpAddr> {
    ip(match via {
        RouteVia::Inet(ip) => RouteAddress::Inet(*ip),
        RouteVia::Inet6(ip) => RouteAddress::Inet6(*ip),
        _ => return None,
    })
}
