// SPDX-License-Identifier: Apache-2.0
//! Being told of changes.

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NLM_F_REPLACE, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::sys::SocketAddr;

use super::address::address;
use super::fib::route;
use super::link::link;
use super::{Address, Link, RouteChange, failed};
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
    /// A route has come, changed or gone.
    Route(RouteChange),
    /// Some rule has come or gone.
    Rules,
    /// Changes were lost: look at everything again.
    Lost,
}

/// Changes of interfaces, addresses, routes and rules, in order.
#[derive(Debug)]
pub struct Changes {
    pub(crate) messages: UnboundedReceiver<(NetlinkMessage<Message>, SocketAddr)>,
}

impl Changes {
    /// Those of the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
        ];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(|source| failed("open", "a netlink socket for changes".into(), source))?;
        tokio::spawn(connection);
        Ok(Self { messages })
    }

    /// The next change; none when the runtime shuts down.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            let (message, _) = self.messages.next().await?;
            let change = match message.payload {
                NetlinkPayload::Overrun(_) => Some(Change::Lost),
                NetlinkPayload::InnerMessage(content) => change(content, message.header.flags),
                _ => None,
            };
            if change.is_some() {
                return change;
            }
        }
    }
}

fn change(message: Message, flags: u16) -> Option<Change> {
    match message {
        Message::NewLink(message) => Some(Change::Link(link(message))),
        Message::DelLink(message) => Some(Change::LinkGone(link(message))),
        Message::NewAddress(message) => address(&message).map(Change::Address),
        Message::DelAddress(message) => address(&message).map(Change::AddressGone),
        Message::NewRoute(message) => {
            let replaced = flags & NLM_F_REPLACE != 0;
            let told = if replaced { RouteChange::Replaced } else { RouteChange::Added };
            route(&message).map(told).map(Change::Route)
        }
        Message::DelRoute(message) => route(&message).map(RouteChange::Removed).map(Change::Route),
        Message::NewRule(_) | Message::DelRule(_) => Some(Change::Rules),
        _ => None,
    }
}
