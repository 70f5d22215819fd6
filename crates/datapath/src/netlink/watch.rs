// SPDX-License-Identifier: Apache-2.0
//! Being told of changes.

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::sys::SocketAddr;

use super::address::address;
use super::link::link;
use super::{Address, Link, Netlink, failed};
use crate::Result;

/// Something has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface is new, or not what it was.
    Link(Link),
    /// An interface has gone.
    LinkGone(Link),
    /// An address is new, or not what it was.
    Address(Address),
    /// An address has gone.
    AddressGone(Address),
    /// Some route has come, changed or gone: through the interface with this index, unless it is through none or several.
    Route(Option<u32>),
    /// Changes were lost: look at everything again.
    Lost,
}

/// Changes of interfaces, addresses and routes, in order.
#[derive(Debug)]
pub struct Changes {
    messages: UnboundedReceiver<(NetlinkMessage<Message>, SocketAddr)>,
}

impl Netlink {
    /// Changes from now on, in the network namespace of the calling thread. The runtime that is entered drives it.
    pub fn changes() -> Result<Changes> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(|source| failed("open", "a netlink socket for changes".into(), source))?;
        tokio::spawn(connection);
        Ok(Changes { messages })
    }
}

impl Changes {
    /// The next change; none when the runtime shuts down.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            let (message, _) = self.messages.next().await?;
            let change = match message.payload {
                NetlinkPayload::Overrun(_) => Some(Change::Lost),
                NetlinkPayload::InnerMessage(message) => change(message),
                _ => None,
            };
            if change.is_some() {
                return change;
            }
        }
    }
}

fn change(message: Message) -> Option<Change> {
    match message {
        Message::NewLink(message) => Some(Change::Link(link(message))),
        Message::DelLink(message) => Some(Change::LinkGone(link(message))),
        Message::NewAddress(message) => address(&message).map(Change::Address),
        Message::DelAddress(message) => address(&message).map(Change::AddressGone),
        Message::NewRoute(route) | Message::DelRoute(route) => Some(Change::Route(device(&route))),
        _ => None,
    }
}

fn device(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    })
}
