// SPDX-License-Identifier: Apache-2.0
//! The host side of pods' interfaces in the kernel.

use crate::attachment::PodAttachment;
use crate::interfaces::Interfaces;
use crate::manager::restore::HostLinks;
use datapath::Hooks;
use datapath::bpf::{Direction, LinkPin, Program};
use datapath::netlink::{LinkChange, Mac, Neighbour, Netlink, Route, Scope};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Attaches a pod's two programs immediately, or replaces them. False means that [`settle`] must follow.
fn attach(hooks: &dyn Hooks, name: &str, ifindex: u32) -> datapath::Result<bool> {
    let [egress, ingress] = pins(name);
    // The pod's egress is the host side's ingress.
    let egress = hooks.attach_tc_at_once(Program::PodEgress, ifindex, Direction::Ingress, &egress)?;
    let ingress = hooks.attach_tc_at_once(Program::PodIngress, ifindex, Direction::Egress, &ingress)?;
    Ok(egress && ingress)
}

/// Attaches both permanently, which takes longer.
fn settle(hooks: &dyn Hooks, name: &str, ifindex: u32) -> datapath::Result<()> {
    let [egress, ingress] = pins(name);
    hooks.attach_tc(Program::PodEgress, ifindex, Direction::Ingress, &egress)?;
    hooks.attach_tc(Program::PodIngress, ifindex, Direction::Egress, &ingress)
}

const PREFIX: &str = "pod_";
const SUFFIXES: [&str; 2] = ["_egress", "_ingress"];

/// Pin names of an interface's two programs.
fn pins(interface: &str) -> [String; 2] {
    SUFFIXES.map(|suffix| format!("{PREFIX}{interface}{suffix}"))
}

/// The interface of a pin, if it is a pod program's.
fn interface_of(pin: &str) -> Option<&str> {
    let name = pin.strip_prefix(PREFIX)?;
    SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix))
}

/// The host's interfaces cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Kernel(#[from] datapath::Error),
    #[error("the interface with index {0} is gone")]
    Gone(u32),
}

/// Interfaces, routes and neighbours by netlink, and programs.
#[derive(Debug)]
pub(crate) struct HostInterfaces {
    hooks: Arc<dyn Hooks>,
    netlink: Netlink,
    unsettled: UnboundedSender<Unsettled>,
    /// Held while an interface is removed, and while its programs settle.
    turn: Arc<Mutex<()>>,
}

impl HostInterfaces {
    /// The interfaces, and a settler for their programs once no pod has been added for that long.
    pub(crate) fn new(hooks: Arc<dyn Hooks>, netlink: Netlink, quiet: Duration) -> (Self, Settler) {
        let (unsettled, queue) = unbounded_channel();
        let turn = Arc::new(Mutex::new(()));
        let settler =
            Settler { hooks: Arc::clone(&hooks), netlink: netlink.clone(), queue, turn: Arc::clone(&turn), quiet };
        (Self { hooks, netlink, unsettled, turn }, settler)
    }

    /// Detaches what is pinned under names that meet a condition.
    async fn detach(&self, chosen: impl Fn(&str, u32) -> bool + Send + 'static) -> Result<(), Error> {
        let hooks = Arc::clone(&self.hooks);
        let detached = move || {
            // The index is 0 if the interface is gone.
            let chosen = |link: &LinkPin| chosen(&link.name, link.ifindex.unwrap_or_default());
            hooks.links()?.into_iter().filter(chosen).try_for_each(|link| hooks.detach(&link.name).map(drop))
        };
        Ok(statedb::blocking(detached).await?)
    }
}

impl Interfaces for HostInterfaces {
    type Error = Error;

    async fn connect(&mut self, pod: &PodAttachment) -> Result<(), Error> {
        let netlink = &self.netlink;
        let endpoint = &pod.endpoint;
        let ifindex = endpoint.host_ifindex;
        let link = netlink.link_by_index(ifindex).await?.filter(|link| link.name == endpoint.host_interface);
        let link = link.ok_or(Error::Gone(ifindex))?;
        let (hooks, name) = (Arc::clone(&self.hooks), endpoint.host_interface.clone());
        if !statedb::blocking(move || attach(&*hooks, &name, ifindex)).await? {
            let name = endpoint.host_interface.clone();
            // Without a settler the programs work as they are.
            let _ = self.unsettled.send(Unsettled { name, ifindex });
        }
        if !link.up {
            netlink.change_link(ifindex, LinkChange { up: Some(true), ..LinkChange::default() }).await?;
        }
        for ip in endpoint.addresses() {
            netlink.replace_neighbour(Neighbour { ifindex, ip, mac: Mac(endpoint.mac.0) }).await?;
            netlink.replace_route(&route(pod, ip)).await?;
        }
        Ok(())
    }

    async fn disconnect(&mut self, name: &str, ifindex: u32) -> Result<(), Error> {
        let netlink = &self.netlink;
        let turn = Arc::clone(&self.turn);
        let _turn = turn.lock().await;
        // Interface first: without it no packet passes, programs or not. Its routes go with it.
        if netlink.link_by_index(ifindex).await?.is_some_and(|link| link.name == name) {
            netlink.delete_link(ifindex).await?;
        }
        let own = pins(name);
        // A later interface with that name keeps its programs.
        self.detach(move |pin, of| own.iter().any(|own| own == pin) && (of == ifindex || of == 0)).await
    }

    async fn prune(&mut self, wanted: &BTreeSet<&str>) -> Result<(), Error> {
        let wanted: BTreeSet<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        self.detach(move |pin, _| interface_of(pin).is_some_and(|interface| !wanted.contains(interface))).await
    }
}

/// An interface whose programs were attached provisionally.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unsettled {
    name: String,
    ifindex: u32,
}

/// Attaches programs permanently when the node is quiet: each takes some ten milliseconds, under a lock that every pod
/// being added or removed needs.
pub(crate) struct Settler {
    hooks: Arc<dyn Hooks>,
    netlink: Netlink,
    queue: UnboundedReceiver<Unsettled>,
    turn: Arc<Mutex<()>>,
    quiet: Duration,
}

impl Settler {
    /// Runs until there are no more interfaces.
    pub(crate) async fn run(mut self) {
        let mut waiting = VecDeque::new();
        while let Some(first) = self.queue.recv().await {
            waiting.push_back(first);
            while !waiting.is_empty() {
                while let Ok(Some(next)) = tokio::time::timeout(self.quiet, self.queue.recv()).await {
                    waiting.push_back(next);
                }
                while self.queue.is_empty()
                    && let Some(next) = waiting.pop_front()
                {
                    if let Err(error) = self.settle(&next).await {
                        let error = statedb::with_causes(&error);
                        tracing::warn!(
                            interface = next.name,
                            error,
                            "cannot attach by a tcx link: programs stay attached by a clsact filter"
                        );
                    }
                }
            }
        }
    }

    async fn settle(&self, unsettled: &Unsettled) -> datapath::Result<()> {
        let _turn = self.turn.lock().await;
        let present = self.netlink.link_by_index(unsettled.ifindex).await?;
        if present.is_none_or(|link| link.name != unsettled.name) {
            return Ok(());
        }
        let (hooks, Unsettled { name, ifindex }) = (Arc::clone(&self.hooks), unsettled.clone());
        statedb::blocking(move || settle(&*hooks, &name, ifindex)).await
    }
}

/// How the host reaches the pod, and from which address.
fn route(pod: &PodAttachment, ip: IpAddr) -> Route {
    let mut route = Route::to(IpNet::from(ip));
    route.ifindex = Some(pod.endpoint.host_ifindex);
    route.scope = Scope::Link;
    route.source = if ip.is_ipv4() { pod.router_ipv4.map(IpAddr::V4) } else { pod.router_ipv6.map(IpAddr::V6) };
    route
}

/// The interfaces of a network namespace.
#[derive(Clone, Debug)]
pub(crate) struct Links(pub(crate) Netlink);

impl HostLinks for Links {
    type Error = datapath::Error;

    async fn list(&self) -> Result<BTreeMap<String, u32>, Self::Error> {
        Ok(self.0.links().await?.into_iter().map(|link| (link.name, link.index)).collect())
    }
}
