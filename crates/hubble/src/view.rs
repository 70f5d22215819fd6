// SPDX-License-Identifier: Apache-2.0
//! The names that addresses and numbers had when an event happened.
//!
//! Each event in the ring holds the view that was current when it came. A view is a handle on snapshots, so keeping one
//! costs a reference count; snapshots share what did not change between them.

use model::{
    Endpoint, EndpointId, Frontend, Identity, IdentityId, IpEntry, L4Addr, Node, Pod, PodName, Protocol, Provenance,
    ProvenanceId,
};
use statedb::{Reader, Snapshot};
use std::net::IpAddr;
use std::sync::Arc;

/// The tables that name what events only number.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Address to identity and pod.
    pub ipcache: Reader<IpEntry>,
    /// Pods of this node.
    pub endpoints: Reader<Endpoint>,
    /// Their Kubernetes objects.
    pub pods: Reader<Pod>,
    /// Labels of identities.
    pub identities: Reader<Identity>,
    /// Services by address.
    pub frontends: Reader<Frontend>,
    /// Rules behind verdicts.
    pub provenance: Reader<Provenance>,
    /// Nodes of the cluster.
    pub nodes: Reader<Node>,
}

impl Tables {
    /// All tables as they are now.
    pub(crate) fn view(&self) -> View {
        View {
            ipcache: self.ipcache.snapshot(),
            endpoints: self.endpoints.snapshot(),
            pods: self.pods.snapshot(),
            identities: self.identities.snapshot(),
            frontends: self.frontends.snapshot(),
            provenance: self.provenance.snapshot(),
            nodes: self.nodes.snapshot(),
        }
    }

    /// Calls `publish` with a view now and after every change, for ever.
    pub(crate) async fn follow(self, publish: impl Fn(View)) {
        let mut ipcache = self.ipcache.subscribe();
        let mut endpoints = self.endpoints.subscribe();
        let mut pods = self.pods.subscribe();
        let mut identities = self.identities.subscribe();
        let mut frontends = self.frontends.subscribe();
        let mut provenance = self.provenance.subscribe();
        let mut nodes = self.nodes.subscribe();
        loop {
            publish(self.view());
            tokio::select! {
                _ = ipcache.next() => {}
                _ = endpoints.next() => {}
                _ = pods.next() => {}
                _ = identities.next() => {}
                _ = frontends.next() => {}
                _ = provenance.next() => {}
                _ = nodes.next() => {}
            }
        }
    }
}

/// All tables at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    ipcache: Snapshot<IpEntry>,
    endpoints: Snapshot<Endpoint>,
    pods: Snapshot<Pod>,
    identities: Snapshot<Identity>,
    frontends: Snapshot<Frontend>,
    provenance: Snapshot<Provenance>,
    nodes: Snapshot<Node>,
}

impl View {
    /// The local endpoint with this number.
    pub(crate) fn endpoint(&self, id: u16) -> Option<Arc<Endpoint>> {
        if id == 0 { None } else { self.endpoints.get(&EndpointId(id)) }
    }

    /// The name of the interface on the host's side of a local endpoint.
    pub(crate) fn interface(&self, endpoints: [u16; 2], ifindex: u32) -> Option<String> {
        let mut local = endpoints.into_iter().filter_map(|id| self.endpoint(id));
        local.find(|e| e.host_ifindex == ifindex).map(|e| e.host_interface.clone())
    }

    /// The pod that has this address.
    pub(crate) fn pod_at(&self, ip: IpAddr) -> Option<PodName> {
        self.ipcache.get(&ip.into()).and_then(|entry| entry.pod.clone())
    }

    /// The Kubernetes object of a pod of this node.
    pub(crate) fn pod(&self, name: &PodName) -> Option<Arc<Pod>> {
        self.pods.get(name)
    }

    /// The labels of an identity.
    pub(crate) fn identity(&self, id: u32) -> Option<Identity> {
        let id = IdentityId(id);
        let known = self.identities.get(&id).map(|i| Identity::clone(&i));
        known.or_else(|| model::reserved::all().into_iter().find(|i| i.id == id))
    }

    /// The service that has this address.
    pub(crate) fn service(&self, ip: IpAddr, port: u16, proto: u8) -> Option<Arc<Frontend>> {
        let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let protocol = all.into_iter().find(|p| p.number() == proto)?;
        self.frontends.get(&L4Addr { ip, port, protocol })
    }

    /// The rule behind a verdict.
    pub(crate) fn rule(&self, id: u32) -> Option<Arc<Provenance>> {
        if id == 0 { None } else { self.provenance.get(&ProvenanceId(id)) }
    }

    /// Labels of this node, `key=value`.
    pub(crate) fn node_labels(&self, name: &str) -> Vec<String> {
        let node = self.nodes.get(name);
        node.map_or_else(Vec::new, |n| n.labels.iter().map(|(k, v)| format!("{k}={v}")).collect())
    }
}
