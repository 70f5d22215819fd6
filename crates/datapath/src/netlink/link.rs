// SPDX-License-Identifier: Apache-2.0
//! Interfaces.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Prop,
};

use super::{Existing, Netlink, failed, unless_absent};
use crate::Result;

/// A hardware address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Largest packet.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// It is up and has a carrier.
    pub running: bool,
    /// It is the loopback device.
    pub loopback: bool,
    /// Neighbours on it are asked for their hardware addresses.
    pub arp: bool,
    /// Kind of virtual device (`veth`, `vxlan`, `bridge` ...); none for a device of hardware.
    pub kind: Option<String>,
    /// Index of the other end of a veth pair, or of the lower device.
    pub peer: Option<u32>,
    /// Index of the bridge or bond that it is a port of.
    pub controller: Option<u32>,
    /// UDP port of a vxlan device.
    pub vxlan_port: Option<u16>,
    /// It is a vxlan device that takes packets without a UDP checksum over IPv6 too.
    pub vxlan_zero_checksum6: bool,
    /// Other names.
    pub alt_names: Vec<String>,
}

/// One end of a veth pair.
#[derive(Clone, Copy, Debug, Default)]
pub struct VethEnd<'a> {
    /// Name.
    pub name: &'a str,
    /// Hardware address, or the kernel chooses.
    pub mac: Option<Mac>,
    /// Largest packet, or the kernel's default.
    pub mtu: Option<u32>,
    /// Network namespace, or that of the socket.
    pub netns: Option<BorrowedFd<'a>>,
}

/// A vxlan device whose tunnel key and peer come with each packet (`external`), without learning.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vxlan<'a> {
    /// Name.
    pub name: &'a str,
    /// UDP port.
    pub port: u16,
    /// Range of UDP source ports, or the kernel's default.
    pub source_ports: Option<(u16, u16)>,
    /// Largest packet, or the kernel's default.
    pub mtu: Option<u32>,
    /// Hardware address, or the kernel chooses.
    pub mac: Option<Mac>,
}

/// What to change of an interface; what is none stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkChange<'a> {
    /// Administratively up or down.
    pub up: Option<bool>,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Name; the interface must be down.
    pub name: Option<&'a str>,
    /// Whether neighbours are asked for their hardware addresses.
    pub arp: Option<bool>,
}

impl Netlink {
    /// All interfaces.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let answers = self.dump(Message::GetLink(LinkMessage::default())).await;
        let answers = answers.map_err(|source| failed("list", "interfaces".into(), source))?;
        Ok(answers.into_iter().filter_map(parse).collect())
    }

    /// The interface of that name.
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        self.get(message).await.map_err(|source| failed("get", format!("interface {name}"), source))
    }

    /// The interface of that index.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Link>> {
        let message = with_index(index);
        self.get(message).await.map_err(|source| failed("get", format!("interface {index}"), source))
    }

    async fn get(&self, message: LinkMessage) -> io::Result<Option<Link>> {
        let answers = unless_absent(self.transact(Message::GetLink(message), 0)).await?;
        Ok(answers.unwrap_or_default().into_iter().find_map(parse))
    }

    /// Makes a veth pair, both ends down. An end in another network namespace is made there right away.
    pub async fn create_veth(&self, host: VethEnd<'_>, peer: VethEnd<'_>) -> Result<()> {
        let mut message = end(&host);
        let data = InfoData::Veth(InfoVeth::Peer(end(&peer)));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]));
        let made = self.create(Message::NewLink(message), Existing::Refuse).await;
        made.map_err(|source| failed("create", format!("veth pair {} and {}", host.name, peer.name), source))
    }

    /// Makes a vxlan device, up.
    pub async fn create_vxlan(&self, vxlan: Vxlan<'_>) -> Result<()> {
        let mut data = vec![
            InfoVxlan::CollectMetadata(true),
            InfoVxlan::Learning(false),
            InfoVxlan::Port(vxlan.port),
            // The tunnelled packets have checksums of their own (RFC 6935). The last two are about IPv6, and cannot be changed later.
            InfoVxlan::UDPCsum(false),
            InfoVxlan::UDPZeroCsumTX(true),
            InfoVxlan::UDPZeroCsumRX(true),
        ];
        data.extend(vxlan.source_ports.map(InfoVxlan::PortRange));
        let mut message = end(&VethEnd { name: vxlan.name, mac: vxlan.mac, mtu: vxlan.mtu, netns: None });
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = LinkFlags::Up;
        let info = vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))];
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let made = self.create(Message::NewLink(message), Existing::Refuse).await;
        made.map_err(|source| failed("create", format!("vxlan device {}", vxlan.name), source))
    }

    /// Changes an interface.
    pub async fn change_link(&self, index: u32, change: LinkChange<'_>) -> Result<()> {
        let mut message = with_index(index);
        // The kernel's flag says the opposite.
        for (flag, set) in [(LinkFlags::Up, change.up), (LinkFlags::Noarp, change.arp.map(|arp| !arp))] {
            message.header.change_mask.set(flag, set.is_some());
            message.header.flags.set(flag, set == Some(true));
        }
        message.attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.0.into())));
        message.attributes.extend(change.name.map(|name| LinkAttribute::IfName(name.into())));
        let changed = self.change(Message::SetLink(message)).await;
        changed.map_err(|source| failed("change", format!("interface {index}"), source))
    }

    /// Gives an interface another name (up to 127 characters) beside its own.
    pub async fn add_alt_name(&self, index: u32, name: &str) -> Result<()> {
        let mut message = with_index(index);
        message.attributes.push(LinkAttribute::PropList(vec![Prop::AltIfName(name.into())]));
        let flags = NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE | NLM_F_APPEND;
        let added = self.transact(Message::NewLinkProp(message), flags).await;
        added.map(drop).map_err(|source| failed("name", format!("interface {index} {name}"), source))
    }

    /// Removes an interface; false when there was none.
    pub async fn delete_link(&self, index: u32) -> Result<bool> {
        let removed = unless_absent(self.change(Message::DelLink(with_index(index)))).await;
        let removed = removed.map_err(|source| failed("delete", format!("interface {index}"), source))?;
        Ok(removed.is_some())
    }
}

fn with_index(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn end(end: &VethEnd<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(end.name.into()));
    message.attributes.extend(end.mac.map(|mac| LinkAttribute::Address(mac.0.into())));
    message.attributes.extend(end.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(end.netns.map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())));
    message
}

fn parse(answer: Message) -> Option<Link> {
    match answer {
        Message::NewLink(message) => Some(link(message)),
        _ => None,
    }
}

/// The interface that a message describes.
pub(super) fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        running: message.header.flags.contains(LinkFlags::Up | LinkFlags::Running),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        arp: !message.header.flags.contains(LinkFlags::Noarp),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Link(peer) => link.peer = Some(peer),
            LinkAttribute::Controller(controller) => link.controller = Some(controller),
            LinkAttribute::PropList(properties) => {
                link.alt_names = properties.into_iter().filter_map(alt_name).collect();
            }
            LinkAttribute::LinkInfo(info) => info.into_iter().for_each(|info| describe(&mut link, info)),
            _ => {}
        }
    }
    link
}

fn alt_name(property: Prop) -> Option<String> {
    match property {
        Prop::AltIfName(name) => Some(name),
        _ => None,
    }
}

fn describe(link: &mut Link, info: LinkInfo) {
    match info {
        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
        LinkInfo::Data(InfoData::Vxlan(data)) => {
            link.vxlan_port = data.iter().find_map(|data| match data {
                InfoVxlan::Port(port) => Some(*port),
                _ => None,
            });
            link.vxlan_zero_checksum6 = data.contains(&InfoVxlan::UDPZeroCsumRX(true));
        }
        _ => {}
    }
}
