// SPDX-License-Identifier: Apache-2.0
//! A network namespace in memory: it answers the requests of a [`Netlink`] as the kernel would, as far as agents ask.

use std::io;
use std::sync::Arc;

use futures::FutureExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rtnetlink::packet_core::{NLM_F_DUMP, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::packet_route::rule::{RuleAction, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use rtnetlink::sys::SocketAddr;

use crate::Result;
use crate::netlink::{Address, Changes, LinkChange, Mac, Netlink, Route, Scope, Transport, VethEnd};

/// A network namespace in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct Network(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    links: Vec<LinkMessage>,
    addresses: Vec<AddressMessage>,
    routes: Vec<RouteMessage>,
    neighbours: Vec<NeighbourMessage>,
    last_index: u32,
    watchers: Vec<UnboundedSender<(NetlinkMessage<Message>, SocketAddr)>>,
}

impl Default for Network {
    fn default() -> Self {
        let network = Self(Arc::default());
        let mut loopback = named("lo");
        loopback.header.flags = LinkFlags::Up | LinkFlags::Running | LinkFlags::Loopback;
        network.0.lock().add_link(loopback);
        network
    }
}

impl Network {
    /// One with a loopback device.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A socket in it.
    #[must_use]
    pub fn netlink(&self) -> Netlink {
        Netlink::over(Arc::new(self.clone()))
    }

    /// Adds a device of hardware that is up, with these addresses and a default route. Returns its index.
    ///
    /// # Errors
    ///
    /// The name is taken.
    pub async fn add_device(&self, name: &str, addresses: &[ipnet::IpNet]) -> Result<u32> {
        let index = self.0.lock().add_link(named(name));
        let netlink = self.netlink();
        netlink.change_link(index, LinkChange { up: Some(true), ..LinkChange::default() }).await?;
        for net in addresses {
            netlink.replace_address(Address { ifindex: index, net: *net, scope: Scope::Universe }).await?;
        }
        let default = ipnet::IpNet::from(ipnet::Ipv4Net::default());
        netlink.replace_route(&Route { ifindex: Some(index), ..Route::to(default) }).await?;
        Ok(index)
    }

    /// Adds a veth pair as a CNI plugin does, of which one end would be in the pod. Returns the index of the host's end.
    ///
    /// # Errors
    ///
    /// The name is taken.
    pub async fn add_pod(&self, name: &str) -> Result<u32> {
        let inside = format!("{name}-pod");
        let end = |name| VethEnd { name, ..VethEnd::default() };
        let netlink = self.netlink();
        netlink.create_veth(end(name), end(&inside)).await?;
        Ok(netlink.link(name).await?.map(|link| link.index).unwrap_or_default())
    }
}

impl Transport for Network {
    fn transact(&self, request: Message, flags: u16) -> BoxFuture<'_, io::Result<Vec<Message>>> {
        let answer = self.0.lock().answer(request, flags & NLM_F_DUMP == NLM_F_DUMP);
        async move { answer }.boxed()
    }

    fn changes(&self) -> Result<Changes> {
        let (sender, messages) = unbounded();
        self.0.lock().watchers.push(sender);
        Ok(Changes { messages })
    }

    fn another(&self) -> Result<Arc<dyn Transport>> {
        Ok(Arc::new(self.clone()))
    }
}

impl State {
    fn answer(&mut self, request: Message, dump: bool) -> io::Result<Vec<Message>> {
        match request {
            Message::GetLink(_) if dump => Ok(self.links.iter().cloned().map(Message::NewLink).collect()),
            Message::GetLink(wanted) => self.find(&wanted).map(|link| vec![Message::NewLink(link.clone())]),
            Message::NewLink(link) if self.find(&link).is_ok() => Err(errno(libc::EEXIST)),
            Message::NewLink(link) => Ok(self.create(link)),
            Message::SetLink(change) => self.change(change),
            Message::DelLink(link) => self.remove_link(&link),
            Message::GetAddress(_) => Ok(self.addresses.iter().cloned().map(Message::NewAddress).collect()),
            Message::NewAddress(address) => {
                self.addresses.retain(|present| !is_same_address(present, &address));
                self.addresses.push(address.clone());
                Ok(self.tell(Message::NewAddress(address)))
            }
            Message::DelAddress(address) => {
                take(&mut self.addresses, |present| is_same_address(present, &address), libc::EADDRNOTAVAIL)?;
                Ok(self.tell(Message::DelAddress(address)))
            }
            Message::GetRoute(wanted) => {
                let family = wanted.header.address_family;
                let of_family = self.routes.iter().filter(|route| route.header.address_family == family);
                Ok(of_family.cloned().map(Message::NewRoute).collect())
            }
            Message::NewRoute(route) => {
                self.routes.retain(|present| place(present) != place(&route));
                self.routes.push(route.clone());
                Ok(self.tell(Message::NewRoute(route)))
            }
            Message::DelRoute(route) => {
                take(&mut self.routes, |present| place(present) == place(&route), libc::ESRCH)?;
                Ok(self.tell(Message::DelRoute(route)))
            }
            Message::GetNeighbour(_) => Ok(self.neighbours.iter().cloned().map(Message::NewNeighbour).collect()),
            Message::NewNeighbour(neighbour) => {
                self.neighbours.retain(|present| !is_same_neighbour(present, &neighbour));
                self.neighbours.push(neighbour);
                Ok(Vec::new())
            }
            Message::DelNeighbour(neighbour) => {
                take(&mut self.neighbours, |present| is_same_neighbour(present, &neighbour), libc::ENOENT)?;
                Ok(Vec::new())
            }
            Message::GetRule(wanted) => Ok(vec![Message::NewRule(main_table(wanted.header.family))]),
            _ => Err(errno(libc::EOPNOTSUPP)),
        }
    }

    /// By index, or else by name.
    fn find(&self, wanted: &LinkMessage) -> io::Result<&LinkMessage> {
        let is_wanted = |link: &&LinkMessage| match wanted.header.index {
            0 => name(link) == name(wanted),
            index => link.header.index == index,
        };
        self.links.iter().find(is_wanted).ok_or_else(|| errno(libc::ENODEV))
    }

    fn create(&mut self, mut link: LinkMessage) -> Vec<Message> {
        let peer = link.attributes.iter_mut().find_map(take_peer);
        let index = self.add_link(link);
        if let Some(mut peer) = peer {
            peer.attributes.push(LinkAttribute::Link(index));
            let info = self.link_mut(index).map(|link| link.attributes.clone()).unwrap_or_default();
            peer.attributes.extend(info.into_iter().filter(|a| matches!(a, LinkAttribute::LinkInfo(_))));
            let other = self.add_link(peer);
            self.link_mut(index).into_iter().for_each(|link| link.attributes.push(LinkAttribute::Link(other)));
        }
        Vec::new()
    }

    fn add_link(&mut self, mut link: LinkMessage) -> u32 {
        self.last_index += 1;
        let index = self.last_index;
        link.header.index = index;
        let [.., high, low] = index.to_be_bytes();
        if !link.attributes.iter().any(|a| matches!(a, LinkAttribute::Address(_))) {
            link.attributes.push(LinkAttribute::Address(Mac([2, 0, 0, 0, high, low]).0.into()));
        }
        if !link.attributes.iter().any(|a| matches!(a, LinkAttribute::Mtu(_))) {
            link.attributes.push(LinkAttribute::Mtu(1500));
        }
        self.links.push(link.clone());
        self.tell(Message::NewLink(link));
        index
    }

    fn link_mut(&mut self, index: u32) -> Option<&mut LinkMessage> {
        self.links.iter_mut().find(|link| link.header.index == index)
    }

    fn change(&mut self, change: LinkMessage) -> io::Result<Vec<Message>> {
        let link = self.link_mut(change.header.index).ok_or_else(|| errno(libc::ENODEV))?;
        let mask = change.header.change_mask;
        link.header.flags = (link.header.flags & !mask) | (change.header.flags & mask);
        // Every carrier is there.
        link.header.flags.set(LinkFlags::Running, link.header.flags.contains(LinkFlags::Up));
        for attribute in change.attributes {
            link.attributes.retain(|present| std::mem::discriminant(present) != std::mem::discriminant(&attribute));
            link.attributes.push(attribute);
        }
        let changed = Message::NewLink(link.clone());
        Ok(self.tell(changed))
    }

    /// The other end of a pair goes along, and so does what is on either.
    fn remove_link(&mut self, wanted: &LinkMessage) -> io::Result<Vec<Message>> {
        let link = self.find(wanted)?;
        let peer = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Link(peer) => Some(*peer),
            _ => None,
        });
        for index in [Some(link.header.index), peer].into_iter().flatten() {
            self.addresses.retain(|address| address.header.index != index);
            self.routes.retain(|route| !route.attributes.contains(&RouteAttribute::Oif(index)));
            self.neighbours.retain(|neighbour| neighbour.header.ifindex != index);
            if let Ok(gone) = take(&mut self.links, |link| link.header.index == index, libc::ENODEV) {
                self.tell(Message::DelLink(gone));
            }
        }
        Ok(Vec::new())
    }

    fn tell(&mut self, change: Message) -> Vec<Message> {
        let message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(change));
        let from_kernel = SocketAddr::new(0, 0);
        self.watchers.retain(|watcher| watcher.unbounded_send((message.clone(), from_kernel)).is_ok());
        Vec::new()
    }
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.into()));
    link
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// What is asked for the other end of a pair, which the kernel does not show with this one.
fn take_peer(attribute: &mut LinkAttribute) -> Option<LinkMessage> {
    let LinkAttribute::LinkInfo(info) = attribute else { return None };
    let at = info.iter().position(|info| matches!(info, LinkInfo::Data(InfoData::Veth(_))))?;
    match info.remove(at) {
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))) => Some(peer),
        _ => None,
    }
}

/// Removes the first that a condition chooses, or fails with that code.
fn take<T>(all: &mut Vec<T>, chosen: impl Fn(&T) -> bool, code: i32) -> io::Result<T> {
    let at = all.iter().position(chosen).ok_or_else(|| errno(code))?;
    Ok(all.remove(at))
}

fn is_same_address(a: &AddressMessage, b: &AddressMessage) -> bool {
    (a.header.index, a.header.prefix_len, &a.attributes) == (b.header.index, b.header.prefix_len, &b.attributes)
}

fn is_same_neighbour(a: &NeighbourMessage, b: &NeighbourMessage) -> bool {
    let destination = |message: &NeighbourMessage| {
        message.attributes.iter().find(|a| matches!(a, NeighbourAttribute::Destination(_))).cloned()
    };
    a.header.ifindex == b.header.ifindex && destination(a) == destination(b)
}

/// One route can be there: family, table, destination with its length, metric.
fn place(route: &RouteMessage) -> (AddressFamily, u8, Vec<RouteAttribute>) {
    let tells = |attribute: &&RouteAttribute| {
        matches!(attribute, RouteAttribute::Destination(_) | RouteAttribute::Table(_) | RouteAttribute::Priority(_))
    };
    let attributes = route.attributes.iter().filter(tells).cloned().collect();
    (route.header.address_family, route.header.destination_prefix_length, attributes)
}

fn main_table(family: AddressFamily) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.action = RuleAction::ToTable;
    rule.header.table = 254;
    rule
}
