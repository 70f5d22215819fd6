// SPDX-License-Identifier: Apache-2.0
//! The names that the addresses and numbers of an event had when it happened.
//!
//! Kept with the event are rows and shared strings, never a snapshot: a snapshot keeps alive all that changed in its table since, and
//! there is one for every event in the ring. Nothing is kept of a row that grows with the cluster, such as a frontend with its backends.

use abi::event::Event;
use model::{
    Endpoint, EndpointId, Frontend, FrontendKey, Identity, IdentityId, IpEntry, L4Addr, MeshPod, Node, NodeName, Pod,
    PodName, Protocol, Provenance, ProvenanceId, ServiceName,
};
use statedb::{Reader, Snapshot};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

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

/// What the tables say of one event. To find it allocates nothing.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Of the source.
    pub(crate) source: Peer,
    /// Of the destination; its service is the one that the source asked for, if any.
    pub(crate) destination: Peer,
    /// The rule behind the egress verdict.
    pub(crate) egress: Option<Arc<Provenance>>,
    /// The rule behind the ingress verdict.
    pub(crate) ingress: Option<Arc<Provenance>>,
    /// This node.
    pub(crate) node: Option<Arc<Node>>,
}

/// What the tables say of one side of an event.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The local endpoint.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// The address, unless the local endpoint already names a pod.
    pub(crate) address: Option<Arc<IpEntry>>,
    /// The Kubernetes object of a pod of this node.
    pub(crate) pod: Option<Arc<Pod>>,
    /// The identity with its labels.
    pub(crate) identity: Option<Arc<Identity>>,
    /// The service that has the address and port.
    pub(crate) service: Option<ServiceName>,
}

impl Tables {
    /// The names of an event on the node with this name, as the tables are now.
    pub(crate) fn names(&self, node: &NodeName, event: &Event) -> Names {
        let frontends = self.frontends.snapshot();
        let (sport, dport) = (u16::from_be(event.sport), u16::from_be(event.dport));
        let service = |ip, port| service(&frontends, ip, port, event.proto);
        let asked_for = if event.dst_orig.is_none() { event.dst } else { event.dst_orig };
        let peer = |endpoint, identity, ip| self.peer(&node.cluster, endpoint, identity, ip);
        let source = peer(event.src_endpoint, event.src_identity, event.src.into());
        let destination = peer(event.dst_endpoint, event.dst_identity, event.dst.into());
        let provenance = self.provenance.snapshot();
        let rule = |id| if id == 0 { None } else { provenance.get(&ProvenanceId(id)) };
        Names {
            source: Peer { service: service(event.src.into(), sport), ..source },
            destination: Peer {
                service: service(asked_for.into(), dport).or_else(|| service(event.dst.into(), dport)),
                ..destination
            },
            egress: rule(event.egress.provenance),
            ingress: rule(event.ingress.provenance),
            node: self.nodes.snapshot().get(node),
        }
    }

    /// The identity with this number.
    pub(crate) fn identity(&self, id: u32) -> Option<Arc<Identity>> {
        static RESERVED: LazyLock<Vec<Arc<Identity>>> =
            LazyLock::new(|| model::reserved::all().into_iter().map(Arc::new).collect());
        let id = IdentityId(id);
        let known = self.identities.snapshot().get(&id);
        known.or_else(|| RESERVED.iter().find(|identity| identity.id == id).cloned())
    }

    /// One side without its service, as seen from this cluster.
    fn peer(&self, cluster: &str, endpoint: u16, identity: u32, ip: IpAddr) -> Peer {
        let endpoint = if endpoint == 0 { None } else { self.endpoints.snapshot().get(&EndpointId(endpoint)) };
        let named = endpoint.as_ref().is_some_and(|endpoint| endpoint.pod().is_some());
        let address = if named { None } else { self.ipcache.snapshot().get(&ip.into()) };
        let mut peer = Peer { endpoint, address, pod: None, identity: self.identity(identity), service: None };
        let ours = peer.mesh_pod().is_none_or(|pod| *pod.cluster == *cluster);
        peer.pod = peer.pod_name().filter(|_| ours).and_then(|name| self.pods.snapshot().get(name));
        peer
    }
}

impl Peer {
    /// The pod that it is.
    pub(crate) fn pod_name(&self) -> Option<&PodName> {
        let local = self.endpoint.as_ref().and_then(|endpoint| endpoint.pod());
        local.or_else(|| Some(&self.mesh_pod()?.pod))
    }

    /// The pod that has the address.
    fn mesh_pod(&self) -> Option<&MeshPod> {
        self.address.as_ref()?.pod.as_ref()
    }
}

fn service(frontends: &Snapshot<Frontend>, ip: IpAddr, port: u16, proto: u8) -> Option<ServiceName> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = all.into_iter().find(|protocol| protocol.number() == proto)?;
    frontends.get(&FrontendKey::external(L4Addr { ip, port, protocol })).map(|frontend| frontend.service.clone())
}
