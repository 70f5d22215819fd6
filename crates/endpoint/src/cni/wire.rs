// SPDX-License-Identifier: Apache-2.0
//! The pod's interface: a veth pair whose one end is made in the pod's namespace right away, under its final name, with
//! addresses, routes and the gateway's hardware address. The host's end stays down: the agent lets it up when its programs
//! are there, so that no packet passes before.

use super::error::{Code, Error};
use super::netns::Namespace;
use datapath::netlink::{
    Address, Link as Interface, LinkChange, Mac as LinkMac, Neighbour, Netlink, Route, Scope, VethEnd,
};
use datapath::sysctl;
use ipnet::IpNet;
use model::Mac;
use rand::Rng;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

/// What to make.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Name of the host's end.
    pub(crate) host_name: String,
    /// Name of the pod's end.
    pub(crate) pod_name: String,
    /// MTU of both.
    pub(crate) mtu: u32,
    /// MTU of the default routes.
    pub(crate) route_mtu: u32,
    /// Address and gateway of each family.
    pub(crate) addresses: Vec<(IpAddr, IpAddr)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) host_ifindex: u32,
    /// 0 where the kernel does not tell.
    pub(crate) netns_cookie: u64,
    pub(crate) mac: Mac,
    pub(crate) host_mac: Mac,
}

/// Makes the pair and sets the pod's end up. When that fails, nothing of it stays.
pub(crate) async fn make(link: &Link, namespace: &Namespace, reserved_ports: &str) -> Result<Made, Error> {
    let host = Netlink::open().map_err(|e| failed("the host", &e))?;
    let (pod, netns_cookie) = prepare(link, namespace, reserved_ports).await?;
    let (mac, host_mac) = (random_mac(), random_mac());
    let host_end =
        VethEnd { name: &link.host_name, mac: Some(LinkMac(host_mac.0)), mtu: Some(link.mtu), ..VethEnd::default() };
    let pod_end =
        VethEnd { name: &link.pod_name, mac: Some(LinkMac(mac.0)), mtu: Some(link.mtu), netns: Some(namespace.fd()) };
    host.create_veth(host_end, pod_end).await.map_err(|e| failed(&link.host_name, &e))?;
    match set_up(link, &pod, host_mac).await {
        Ok(host_ifindex) => {
            let name = link.host_name.clone();
            statedb::blocking(move || quiet_host_end(&name)).await;
            Ok(Made { host_ifindex, netns_cookie, mac, host_mac })
        }
        Err(error) => {
            let _ = remove(&link.host_name).await;
            Err(error)
        }
    }
}

/// Settings of the pod's namespace, a socket in it, and its cookie. Settings wait for the kernel's lock of all interfaces.
async fn prepare(link: &Link, namespace: &Namespace, reserved_ports: &str) -> Result<(Netlink, u64), Error> {
    let runtime = tokio::runtime::Handle::current();
    let ipv6 = link.addresses.iter().any(|(ip, _)| ip.is_ipv6());
    let reserved_ports = reserved_ports.to_owned();
    let visit = move || {
        let _entered = runtime.enter();
        if ipv6 {
            sysctl::write_if_present("net/ipv6/conf/all/disable_ipv6", "0")?;
        }
        if !reserved_ports.is_empty() {
            let name = "net/ipv4/ip_local_reserved_ports";
            let present = sysctl::read(name)?;
            let both = if present.is_empty() { reserved_ports } else { format!("{present},{reserved_ports}") };
            sysctl::write(name, &both)?;
        }
        Ok::<_, datapath::Error>((Netlink::open()?, datapath::netns::cookie()))
    };
    let subject = format!("network namespace {}", namespace.path());
    let fd = namespace.try_clone().map_err(|e| Error::because(Code::Io, &subject, e))?;
    let opened = statedb::blocking(move || datapath::netns::run(fd.as_fd(), visit)).await;
    opened.and_then(|opened| opened).map_err(|e| failed(&subject, &e))
}

/// Sets the pod's end up and returns the index of the host's.
async fn set_up(link: &Link, pod: &Netlink, host_mac: Mac) -> Result<u32, Error> {
    let fail = |e: datapath::Error| failed(&link.pod_name, &e);
    let end = pod.link(&link.pod_name).await.map_err(fail)?.ok_or_else(|| gone(&link.pod_name))?;
    let host_ifindex = end.peer.ok_or_else(|| gone(&link.host_name))?;
    // A name for people; a kernel that cannot store it (before 5.5) changes nothing for the pod.
    let _ = pod.add_alt_name(end.index, &format!("cilium_cni:{}", link.pod_name)).await;
    pod.change_link(end.index, LinkChange { up: Some(true), ..LinkChange::default() }).await.map_err(fail)?;
    for (ip, gateway) in &link.addresses {
        configure(pod, &end, (*ip, *gateway), link.route_mtu, host_mac).await.map_err(fail)?;
    }
    Ok(host_ifindex)
}

async fn configure(
    pod: &Netlink,
    end: &Interface,
    (ip, gateway): (IpAddr, IpAddr),
    route_mtu: u32,
    host_mac: Mac,
) -> datapath::Result<()> {
    let ifindex = end.index;
    pod.replace_address(Address { ifindex, net: host_net(ip), scope: Scope::Universe }).await?;
    let mut to_gateway = Route::to(host_net(gateway));
    to_gateway.ifindex = Some(ifindex);
    to_gateway.scope = Scope::Link;
    pod.replace_route(&to_gateway).await?;
    let mut default = Route::to(everything(gateway));
    default.ifindex = Some(ifindex);
    default.gateway = Some(gateway);
    default.mtu = (route_mtu != 0).then_some(route_mtu);
    pod.replace_route(&default).await?;
    // The gateway never moves: asking for it would only cost the first packet.
    pod.replace_neighbour(Neighbour { ifindex, ip: gateway, mac: LinkMac(host_mac.0) }).await
}

/// The host's end has no address of its own, and pods' sources are checked by the programs. What a kernel does not have
/// need not be switched off.
fn quiet_host_end(name: &str) {
    for (setting, value) in [
        (format!("net/ipv4/conf/{name}/rp_filter"), "0"),
        (format!("net/ipv6/conf/{name}/addr_gen_mode"), "1"),
        (format!("net/ipv6/conf/{name}/accept_ra"), "0"),
    ] {
        let _ = sysctl::write_if_present(&setting, value);
    }
}

/// Removes the host's end, and with it the pod's. Without one there is nothing to do.
pub(crate) async fn remove(host_name: &str) -> Result<(), Error> {
    let fail = |e: datapath::Error| failed(host_name, &e);
    let host = Netlink::open().map_err(fail)?;
    if let Some(link) = host.link(host_name).await.map_err(fail)? {
        host.delete_link(link.index).await.map_err(fail)?;
    }
    Ok(())
}

/// The addresses that ADD answered.
pub(crate) fn addresses_in(previous: Option<&Value>) -> Vec<IpAddr> {
    let ips = previous.and_then(|result| result.get("ips")).and_then(Value::as_array);
    let address = |ip: &Value| ip.get("address")?.as_str()?.parse::<IpNet>().ok().map(|net| net.addr());
    ips.into_iter().flatten().filter_map(address).collect()
}

/// Whether the interface is there with its addresses.
pub(crate) async fn check(namespace: &Namespace, name: &str, want: &[IpAddr]) -> Result<(), Error> {
    let fail = |e: datapath::Error| failed(name, &e);
    let pod = Netlink::open_in(namespace.fd()).map_err(fail)?;
    let wrong = |why: String| Error::new(Code::Interface, format!("{}: interface {name} {why}", namespace.path()));
    let link = pod.link(name).await.map_err(fail)?.ok_or_else(|| wrong("does not exist".into()))?;
    if !link.up {
        return Err(wrong("is down".into()));
    }
    let present = pod.addresses().await.map_err(fail)?;
    for ip in want {
        if !present.iter().any(|a| a.ifindex == link.index && a.net.addr() == *ip) {
            return Err(wrong(format!("has lost address {ip}")));
        }
    }
    Ok(())
}

/// Locally administered and for one station (IEEE 802).
fn random_mac() -> Mac {
    let mut bytes: [u8; 6] = rand::rng().random();
    let [first, ..] = &mut bytes;
    *first = (*first & 0xfc) | 0x02;
    Mac(bytes)
}

fn host_net(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

fn everything(like: IpAddr) -> IpNet {
    let ip: IpAddr = if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    IpNet::new_assert(ip, 0)
}

fn failed(subject: &str, error: &datapath::Error) -> Error {
    Error::because(Code::Io, format!("{subject}: the interface cannot be set up"), statedb::with_causes(error))
}

fn gone(name: &str) -> Error {
    Error::new(Code::Io, format!("interface {name} was made and is gone"))
}
