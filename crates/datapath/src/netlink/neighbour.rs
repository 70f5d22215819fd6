// SPDX-License-Identifier: Apache-2.0
//! Neighbours: which hardware address an address has.

use std::net::IpAddr;

use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};

use super::address::family;
use super::{Existing, Mac, Netlink, failed, unless_absent};
use crate::Result;

/// A neighbour that needs no asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// Index of the interface.
    pub ifindex: u32,
    /// Address.
    pub ip: IpAddr,
    /// Its hardware address.
    pub mac: Mac,
}

impl Netlink {
    /// All permanent neighbours.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>> {
        let answers = self.dump(Message::GetNeighbour(NeighbourMessage::default())).await;
        let answers = answers.map_err(|source| failed("list", "neighbours".into(), source))?;
        Ok(answers.into_iter().filter_map(parse).collect())
    }

    /// Adds a permanent neighbour, or replaces the one of that address.
    pub async fn replace_neighbour(&self, neighbour: Neighbour) -> Result<()> {
        let mut message = message(neighbour);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbour.mac.0.into()));
        let made = self.create(Message::NewNeighbour(message), Existing::Replace).await;
        made.map_err(|source| failed("add", describe(neighbour), source))
    }

    /// Removes the neighbour of that address, whatever its hardware address; false when there was none.
    pub async fn delete_neighbour(&self, neighbour: Neighbour) -> Result<bool> {
        let removed = unless_absent(self.change(Message::DelNeighbour(message(neighbour)))).await;
        Ok(removed.map_err(|source| failed("remove", describe(neighbour), source))?.is_some())
    }
}

fn describe(neighbour: Neighbour) -> String {
    format!("neighbour {} of interface {}", neighbour.ip, neighbour.ifindex)
}

fn message(neighbour: Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = neighbour.ifindex;
    message.header.family = family(neighbour.ip);
    message.attributes.push(NeighbourAttribute::Destination(match neighbour.ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    }));
    message
}

fn parse(answer: Message) -> Option<Neighbour> {
    let Message::NewNeighbour(message) = answer else { return None };
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut ip, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::V4(v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::V6(v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some(Neighbour { ifindex: message.header.ifindex, ip: ip?, mac: mac? })
}
