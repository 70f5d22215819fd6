// SPDX-License-Identifier: Apache-2.0
//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};

use super::{Existing, Netlink, Scope, failed, unless_absent};
use crate::Result;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Index of the interface.
    pub ifindex: u32,
    /// The address, and the prefix that is reachable through it.
    pub net: IpNet,
    /// How far it is valid.
    pub scope: Scope,
}

impl Netlink {
    /// All addresses, of all interfaces.
    pub async fn addresses(&self) -> Result<Vec<Address>> {
        let answers = self.dump(Message::GetAddress(AddressMessage::default())).await;
        let answers = answers.map_err(|source| failed("list", "addresses".into(), source))?;
        Ok(answers.into_iter().filter_map(parse).collect())
    }

    /// Adds an address, or makes the one that is there like it. IPv6 addresses are used at once, without asking the
    /// neighbours whether they have them: the caller knows that they are unique.
    pub async fn replace_address(&self, address: Address) -> Result<()> {
        let made = self.create(Message::NewAddress(message(address)), Existing::Replace).await;
        made.map_err(|source| failed("add", describe(address), source))
    }

    /// Removes an address; false when there was none.
    pub async fn delete_address(&self, address: Address) -> Result<bool> {
        let removed = unless_absent(self.change(Message::DelAddress(message(address)))).await;
        Ok(removed.map_err(|source| failed("remove", describe(address), source))?.is_some())
    }
}

fn describe(address: Address) -> String {
    format!("address {} of interface {}", address.net, address.ifindex)
}

fn message(address: Address) -> AddressMessage {
    let ip = address.net.addr();
    let mut message = AddressMessage::default();
    message.header.index = address.ifindex;
    message.header.prefix_len = address.net.prefix_len();
    message.header.scope = match address.scope {
        Scope::Universe => AddressScope::Universe,
        Scope::Link => AddressScope::Link,
        Scope::Host => AddressScope::Host,
    };
    message.header.family = family(ip);
    if ip.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes.push(AddressAttribute::Address(ip));
    message.attributes.push(AddressAttribute::Local(ip));
    message
}

pub(super) fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn parse(answer: Message) -> Option<Address> {
    match answer {
        Message::NewAddress(message) => address(&message),
        _ => None,
    }
}

/// The address that a message describes.
pub(super) fn address(message: &AddressMessage) -> Option<Address> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    // IPv6 has no "local" unless there is a peer.
    let ip = local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })?;
    let scope = match message.header.scope {
        AddressScope::Link => Scope::Link,
        AddressScope::Host => Scope::Host,
        _ => Scope::Universe,
    };
    let net = IpNet::new(ip, message.header.prefix_len).ok()?;
    Some(Address { ifindex: message.header.index, net, scope })
}
