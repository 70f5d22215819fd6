// SPDX-License-Identifier: Apache-2.0
//! Endpoints that the kernel has and the disk has lost: a torn file, an empty folder, or no folder at all. What the
//! programs know about a pod is enough to find it among the pods of this node, and its name gives the rest.

use super::Manager;
use crate::health;
use abi::endpoint::Endpoint as Entry;
use model::{Endpoint, EndpointId, EndpointKind, Mac, Pod};
use statedb::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Name prefix of pods' interfaces on the host.
const PREFIX: &str = "lxc";

/// An endpoint whose pod is not known.
pub(super) struct Orphan {
    pub(super) id: EndpointId,
    /// Name on the host.
    interface: String,
    entry: Entry,
}

/// Endpoints in the kernel's map whose interface exists, with nothing on disk under their id.
pub(super) fn orphans(
    entries: Vec<(u32, Entry)>,
    known: &BTreeSet<EndpointId>,
    present: &BTreeMap<String, u32>,
) -> Vec<Orphan> {
    let by_index: BTreeMap<u32, &String> = present.iter().map(|(name, index)| (*index, name)).collect();
    let orphan = |(ifindex, entry): (u32, Entry)| {
        let id = EndpointId(entry.id);
        let interface = by_index.get(&ifindex)?.as_str();
        let is_pod = interface.starts_with(PREFIX) && interface != health::INTERFACE;
        (is_pod && id.0 != 0 && !known.contains(&id)).then(|| Orphan { id, interface: interface.to_owned(), entry })
    };
    entries.into_iter().filter_map(orphan).collect()
}

impl Orphan {
    /// Whose its addresses are until its pod is known.
    fn owner(&self) -> String {
        format!("endpoint {}", self.id)
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [self.entry.ipv4, self.entry.ipv6].into_iter().filter(|addr| *addr != abi::Addr::NONE).map(IpAddr::from)
    }

    /// The endpoint, once its pod is found.
    fn endpoint(&self, pod: &Pod) -> Endpoint {
        let (mut ipv4, mut ipv6) = (None, None);
        for ip in self.addresses() {
            match ip {
                IpAddr::V4(ip) => ipv4 = Some(ip),
                IpAddr::V6(ip) => ipv6 = Some(ip),
            }
        }
        Endpoint {
            id: self.id,
            kind: EndpointKind::Pod { name: pod.name.clone(), uid: pod.uid.clone() },
            container_id: String::new(),
            interface: "eth0".into(),
            netns: String::new(),
            netns_cookie: 0,
            host_interface: self.interface.clone(),
            host_ifindex: self.entry.ifindex,
            mac: Mac(self.entry.mac),
            host_mac: Mac(self.entry.host_mac),
            ipv4,
            ipv6,
        }
    }
}

/// The endpoint of a pod with these addresses and no other endpoint.
fn identify(orphan: &Orphan, pods: &Snapshot<Pod>, others: &[Endpoint]) -> Option<Endpoint> {
    let has_all = |pod: &Pod| orphan.addresses().all(|ip| pod.ips.contains(&ip));
    let is_free = |pod: &Pod| !others.iter().any(|other| other.pod() == Some(&pod.name));
    let pod = pods.iter().find(|pod| !pod.host_network && !pod.ended && has_all(pod) && is_free(pod))?;
    Some(orphan.endpoint(pod))
}

impl Manager {
    /// Keeps the addresses of orphans from other pods.
    pub(super) fn reserve(&self, orphans: &[Orphan]) {
        for orphan in orphans {
            for ip in orphan.addresses() {
                if let Err(error) = self.addresses.claim(&orphan.owner(), ip) {
                    tracing::warn!(endpoint = %orphan.id, %error, "cannot reserve the address of an endpoint");
                }
            }
        }
    }

    /// Finds the pods of orphans. Those without one are not recovered: no pod of this node has their addresses.
    pub(super) async fn recover(&self, mut orphans: Vec<Orphan>) -> Vec<Endpoint> {
        let mut recovered: Vec<Endpoint> = Vec::new();
        if orphans.is_empty() {
            return recovered;
        }
        let reserved: Vec<_> = orphans.iter().flat_map(|o| o.addresses().map(|ip| (o.owner(), ip))).collect();
        for orphan in &orphans {
            tracing::error!(
                endpoint = %orphan.id, interface = orphan.interface, addresses = ?orphan.addresses().collect::<Vec<_>>(), folder = %self.config.state().display(),
                "endpoint is running but its state on disk is lost; it will be recovered once the API server has reported its pod"
            );
        }
        self.sources.pods.initialized().await;
        let identify_all = async {
            let mut changes = self.sources.pods.subscribe();
            while !orphans.is_empty() {
                changes.next().await;
                let present = self.endpoints.snapshot();
                let others: Vec<_> = present.iter().map(|endpoint| Endpoint::clone(endpoint)).collect();
                orphans.retain(|orphan| {
                    match identify(orphan, changes.snapshot(), &[&others[..], &recovered].concat()) {
                        Some(endpoint) => {
                            recovered.push(endpoint);
                            false
                        }
                        None => true,
                    }
                });
            }
        };
        // The address of a pod that has just started may still be on its way to the API server.
        let _ = tokio::time::timeout(self.config.waits.pod, identify_all).await;
        for Orphan { id, interface, .. } in &orphans {
            tracing::error!(endpoint = %id, interface, "endpoint not recovered: no pod of this node has its addresses");
        }
        self.save_again(recovered.clone()).await;
        for (owner, ip) in reserved {
            let _ = self.addresses.release(&owner, ip);
        }
        recovered
    }

    async fn save_again(&self, endpoints: Vec<Endpoint>) {
        let state = self.state.clone();
        let save = move || {
            for endpoint in &endpoints {
                let owner = endpoint.owner();
                match state.save(endpoint) {
                    Ok(()) => tracing::info!(endpoint = %endpoint.id, owner, "endpoint recovered"),
                    Err(error) => {
                        let error = statedb::with_causes(&error);
                        tracing::error!(endpoint = %endpoint.id, owner, error, "cannot save a recovered endpoint");
                    }
                }
            }
        };
        statedb::blocking(save).await;
    }
}
