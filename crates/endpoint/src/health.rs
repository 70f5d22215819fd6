// SPDX-License-Identifier: Apache-2.0
//! The node's health endpoint: an endpoint in the agent's own network namespace, reached exactly as a pod is. Other
//! nodes probe it to learn whether they can reach this node's pods (feature `endpointHealthChecking`).
//!
//! Only this process holds the namespace: it goes away with the agent, and so does its interface. A new agent creates a
//! new one, with the addresses published before.

use crate::addresses::{AddressError, Allocated, Families};
use crate::cni::netns::Namespace;
use crate::cni::wire;
use crate::manager::{CreateError, Manager};
use crate::reference::EndpointRef;
use ipnet::IpNet;
use model::{Endpoint, EndpointId, EndpointKind, LocalNode, Node};
use statedb::{Backoff, Reader, Retries};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Name of the host's end of its veth pair, as in Cilium.
pub const INTERFACE: &str = "lxc_health";
/// Name of its own end.
const INSIDE: &str = "cilium";
/// Back-off between failed attempts.
const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

/// The current health endpoint.
#[derive(Clone, Debug)]
pub struct HealthEndpoint {
    /// Its network namespace, which lives as long as this does.
    pub netns: Arc<OwnedFd>,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("its network namespace cannot be created: {}", statedb::with_causes(.0))]
    Netns(#[from] datapath::Error),
    #[error("{0}")]
    Interface(#[from] crate::cni::Error),
    #[error(transparent)]
    Create(#[from] CreateError),
}

/// Keeps the health endpoint running.
pub(crate) struct Keeper {
    pub(crate) manager: Arc<Manager>,
    pub(crate) node: Reader<LocalNode>,
    pub(crate) nodes: Reader<Node>,
    /// The endpoint, or why there is none.
    pub(crate) state: watch::Sender<Result<HealthEndpoint, String>>,
}

/// The facts about the node it depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    /// Gateway of each enabled family, IPv6 before IPv4.
    gateways: Vec<IpAddr>,
    pod_cidrs: Vec<IpNet>,
    mtu: u32,
    route_mtu: u32,
}

impl Plan {
    fn new(node: &LocalNode, families: Families) -> Self {
        let v6 = node.router_ipv6.filter(|_| families.ipv6).map(IpAddr::V6);
        let v4 = node.router_ipv4.filter(|_| families.ipv4).map(IpAddr::V4);
        let gateways = v6.into_iter().chain(v4).collect();
        Self { gateways, pod_cidrs: node.pod_cidrs.clone(), mtu: node.device_mtu, route_mtu: node.route_mtu }
    }

    fn link(&self, addresses: Allocated) -> wire::Link {
        let of_family = |gateway: &IpAddr| match gateway {
            IpAddr::V4(_) => addresses.ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => addresses.ipv6.map(IpAddr::V6),
        };
        wire::Link {
            host_name: INTERFACE.to_owned(),
            pod_name: INSIDE.to_owned(),
            mtu: self.mtu,
            route_mtu: self.route_mtu,
            addresses: self.gateways.iter().filter_map(|gateway| Some((of_family(gateway)?, *gateway))).collect(),
        }
    }
}

impl Keeper {
    /// Runs until dropped. Starts once the previous process's endpoints have reclaimed their addresses.
    pub(crate) async fn run(self) {
        self.manager.endpoints().initialized().await;
        self.node.initialized().await;
        self.nodes.initialized().await;
        let mut retries = Retries::new(RETRY);
        loop {
            match self.make().await {
                Ok((id, plan)) => {
                    self.until_stale(id, &plan).await;
                    self.manager.remove(&EndpointRef::Local(id)).await;
                    retries.succeeded();
                }
                Err(error) => {
                    self.report(error.to_string());
                    tokio::time::sleep(retries.failed()).await;
                }
            }
        }
    }

    async fn make(&self) -> Result<(EndpointId, Plan), Error> {
        let families = self.families();
        let Some(plan) = self.node.snapshot().get(&()).map(|node| Plan::new(&node, families)) else {
            return Err(AddressError::NotReady("the node is not known yet".into()).into());
        };
        let addresses = self.addresses(families, &plan)?;
        match self.attach(&plan, addresses).await {
            Ok((endpoint, netns)) => {
                let made = HealthEndpoint { netns: Arc::new(netns), addresses: endpoint.addresses().collect() };
                tracing::info!(addresses = ?made.addresses, "health endpoint created");
                drop(self.state.send_replace(Ok(made)));
                Ok((endpoint.id, plan))
            }
            Err(error) => {
                for ip in addresses.iter() {
                    // Never take another endpoint's.
                    let _ = self.manager.release(Some(Endpoint::HEALTH), ip);
                }
                Err(error)
            }
        }
    }

    fn families(&self) -> Families {
        let config = self.manager.config();
        Families { ipv4: config.ipv4, ipv6: config.ipv6 }
    }

    /// The published addresses, where still free; otherwise new ones.
    fn addresses(&self, families: Families, plan: &Plan) -> Result<Allocated, AddressError> {
        let own = self.nodes.snapshot().iter().find(|node| node.local).map(|node| node.health_ips.clone());
        let ours = |ip: &IpAddr| plan.pod_cidrs.iter().any(|prefix| prefix.contains(ip));
        let mut kept = Allocated::default();
        for ip in own.into_iter().flatten().filter(ours) {
            match ip {
                IpAddr::V4(v4) if families.ipv4 && kept.ipv4.is_none() && self.claim(ip) => kept.ipv4 = Some(v4),
                IpAddr::V6(v6) if families.ipv6 && kept.ipv6.is_none() && self.claim(ip) => kept.ipv6 = Some(v6),
                _ => {}
            }
        }
        let missing =
            Families { ipv4: families.ipv4 && kept.ipv4.is_none(), ipv6: families.ipv6 && kept.ipv6.is_none() };
        match self.manager.allocate(Endpoint::HEALTH, missing, false) {
            Ok(new) => Ok(Allocated { ipv4: kept.ipv4.or(new.ipv4), ipv6: kept.ipv6.or(new.ipv6) }),
            Err(error) => {
                for ip in kept.iter() {
                    let _ = self.manager.release(Some(Endpoint::HEALTH), ip);
                }
                Err(error)
            }
        }
    }

    fn claim(&self, ip: IpAddr) -> bool {
        self.manager.claim(Endpoint::HEALTH, ip).is_ok()
    }

    async fn attach(&self, plan: &Plan, addresses: Allocated) -> Result<(Endpoint, OwnedFd), Error> {
        // That of a process that has just died may still exist.
        wire::remove(INTERFACE).await?;
        let namespace = Namespace::of(statedb::blocking(datapath::netns::create).await?, "of the health endpoint");
        let link = plan.link(addresses);
        let made = wire::make(&link, &namespace, "").await?;
        let draft = Endpoint {
            id: EndpointId(0),
            kind: EndpointKind::Health,
            container_id: String::new(),
            interface: link.pod_name,
            netns: String::new(),
            netns_cookie: made.netns_cookie,
            host_interface: link.host_name,
            host_ifindex: made.host_ifindex,
            mac: made.mac,
            host_mac: made.host_mac,
            ipv4: addresses.ipv4,
            ipv6: addresses.ipv6,
        };
        let endpoint = self.manager.create_health(draft).await?;
        Ok((endpoint, namespace.into_fd()))
    }

    /// Waits until the endpoint is gone, or the node's facts have changed.
    async fn until_stale(&self, id: EndpointId, plan: &Plan) {
        let mut endpoints = self.manager.endpoints().subscribe();
        let mut node = self.node.subscribe();
        loop {
            tokio::select! {
                _ = endpoints.next() => {}
                _ = node.next() => {}
            }
            // The current tables: before its first batch a subscription's own snapshot is empty.
            let gone = self.manager.endpoints().snapshot().get(&id).is_none();
            let present = self.node.snapshot().get(&()).map(|node| Plan::new(&node, self.families()));
            // Without a row there is nothing new about the node.
            if gone || present.is_some_and(|present| present != *plan) {
                return self.report("it is being recreated".to_owned());
            }
        }
    }

    /// Logs that there is no endpoint, when the reason changes.
    fn report(&self, why: String) {
        self.state.send_if_modified(|state| {
            let news = !matches!(state, Err(before) if *before == why);
            if news {
                tracing::warn!(why, "cannot create the health endpoint");
                *state = Err(why);
            }
            news
        });
    }
}

#[cfg(test)]
mod tests;
