// SPDX-License-Identifier: Apache-2.0
//! The names behind an event's addresses and numbers at the time it happened.
//!
//! Kept with the event are shared strings, labels and rules: never a snapshot, which keeps alive all that changed in its table since, nor
//! a row of which flows show a part only, such as a pod with its annotations or a frontend with its backends.

use crate::application;
use crate::ring::Weigh;
use abi::event::{Event, SocketEvent};
use abi::{Addr, identity};
use ipnet::IpNet;
use l7::Exchange;
use model::{
    Endpoint, EndpointId, Frontend, FrontendKey, Identity, IdentityId, IpEntry, L4Addr, MeshPod, Node, NodeName, Pod,
    PodName, Protocol, Provenance, ProvenanceId, ServiceName, Workload,
};
use parking_lot::Mutex;
use statedb::{Index, Reader, Snapshot};
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

/// The tables with the names behind an event's numbers.
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

/// What the tables say of one event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Names {
    pub(crate) source: Peer,
    /// Its service is the one that the source asked for, if any.
    pub(crate) destination: Peer,
    /// The rule behind the egress verdict.
    pub(crate) egress: Option<Arc<Provenance>>,
    /// The rule behind the ingress verdict.
    pub(crate) ingress: Option<Arc<Provenance>>,
    /// This node's, `key=value`.
    pub(crate) node_labels: Option<Arc<[String]>>,
    /// The interface of the event, if it is the host's side of a local endpoint.
    pub(crate) interface: InterfaceName,
}

/// What the tables say of one side of an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Peer {
    pub(crate) pod: Option<PodName>,
    /// Of a pod of this node.
    pub(crate) workload: Option<Arc<Workload>>,
    /// With its labels.
    pub(crate) identity: Option<Arc<Identity>>,
    /// The service that has the address and port.
    pub(crate) service: Option<ServiceName>,
}

/// Name of a network interface, which the kernel holds to fifteen bytes; what is longer is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct InterfaceName([u8; 15]);

impl InterfaceName {
    pub(crate) fn new(name: &str) -> Self {
        let mut bytes = [0; 15];
        bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        Self(bytes)
    }
}

impl std::fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        f.write_str(&String::from_utf8_lossy(bytes))
    }
}

/// Finds names, without an allocation unless the labels of this node have changed.
pub(crate) struct Resolver {
    tables: Tables,
    endpoints: Index<Endpoint, IpAddr>,
    /// By the cookies of their network namespaces.
    namespaces: Index<Endpoint, u64>,
    node: NodeName,
    labels: Mutex<Option<NodeLabels>>,
}

/// The labels of this node, and the row that they were read from.
struct NodeLabels {
    node: Arc<Node>,
    labels: Arc<[String]>,
}

impl Resolver {
    pub(crate) fn new(tables: Tables, node: NodeName) -> Self {
        let endpoints = tables.endpoints.index(|endpoint: &Endpoint| endpoint.addresses().collect::<Vec<_>>());
        let known = |endpoint: &Endpoint| Some(endpoint.netns_cookie).filter(|cookie| *cookie != 0);
        let namespaces = tables.endpoints.index(known);
        Self { tables, endpoints, namespaces, node, labels: Mutex::new(None) }
    }

    /// An event with all that it is to say, and its names. None of a socket that is neither a pod's nor the host's: it may be of a
    /// container in a container, or of a pod whose network is only being made, and nobody knows its address.
    pub(crate) fn complete(&self, event: &Event) -> Option<(Event, Names)> {
        let Some(socket) = event.socket() else { return Some((*event, self.names(event))) };
        let socket = self.owned(socket)?;
        let event = Event::from(socket);
        let mut names = self.names(&event);
        let asked_for = (socket.dst_orig.into(), u16::from_be(socket.dport_orig));
        let service = service(&self.tables.frontends.snapshot(), asked_for.0, asked_for.1, socket.proto);
        names.destination.service = service.or(names.destination.service);
        Some((event, names))
    }

    /// With its owner in place of its network namespace, and with who the backend is.
    fn owned(&self, socket: SocketEvent) -> Option<SocketEvent> {
        let backend: IpAddr = socket.dst.into();
        let known = |ip| self.identity_of(ip).map_or(identity::UNKNOWN, |identity| identity.0);
        let like = |ip: &IpAddr| ip.is_ipv4() == backend.is_ipv4();
        let (src, src_identity, src_endpoint) = if socket.src_identity == identity::HOST {
            let node = self.tables.nodes.snapshot().get(&self.node);
            let address = node.and_then(|node| node.internal_ips.iter().copied().find(like));
            (address, socket.src_identity, 0)
        } else {
            let endpoint = self.namespaces.first(&socket.netns)?;
            let address = endpoint.addresses().find(like);
            (address, address.map_or(identity::UNKNOWN, known), endpoint.id.0)
        };
        Some(SocketEvent {
            src: src.map_or(Addr::NONE, Addr::from),
            src_identity,
            src_endpoint,
            dst_identity: known(backend),
            dst_endpoint: self.endpoint_at(backend),
            netns: 0,
            ..socket
        })
    }

    /// A request as an event, and its names as the tables are now.
    pub(crate) fn exchange(&self, exchange: &Exchange) -> (Event, Names) {
        let (client, server) = (exchange.client.ip().to_canonical(), exchange.server.ip().to_canonical());
        let known = |ip| self.identity_of(ip).unwrap_or(model::reserved::WORLD).0;
        let event = Event {
            src_identity: known(client),
            dst_identity: if exchange.identity == 0 { known(server) } else { exchange.identity },
            src_endpoint: self.endpoint_at(client),
            dst_endpoint: self.endpoint_at(server),
            ..application::event(
                SocketAddr::new(client, exchange.client.port()),
                SocketAddr::new(server, exchange.server.port()),
            )
        };
        let names = self.names(&event);
        (event, names)
    }

    /// The names of an event as the tables are now.
    pub(crate) fn names(&self, event: &Event) -> Names {
        let frontends = self.tables.frontends.snapshot();
        let (sport, dport) = (u16::from_be(event.sport), u16::from_be(event.dport));
        let service = |ip, port| service(&frontends, ip, port, event.proto);
        let asked_for = if event.dst_orig.is_none() { event.dst } else { event.dst_orig };
        let endpoints = [self.endpoint(event.src_endpoint), self.endpoint(event.dst_endpoint)];
        let host_side = endpoints.iter().flatten().find(|endpoint| endpoint.host_ifindex == event.ifindex);
        let [source, destination] = &endpoints;
        let source = self.peer(source.as_deref(), event.src_identity, event.src.into());
        let destination = self.peer(destination.as_deref(), event.dst_identity, event.dst.into());
        let provenance = self.tables.provenance.snapshot();
        let rule = |id| if id == 0 { None } else { provenance.get(&ProvenanceId(id)) };
        Names {
            source: Peer { service: service(event.src.into(), sport), ..source },
            destination: Peer {
                service: service(asked_for.into(), dport).or_else(|| service(event.dst.into(), dport)),
                ..destination
            },
            egress: rule(event.egress.provenance),
            ingress: rule(event.ingress.provenance),
            node_labels: self.node_labels(),
            interface: host_side.map(|side| InterfaceName::new(&side.host_interface)).unwrap_or_default(),
        }
    }

    /// The identity with this number.
    pub(crate) fn identity(&self, id: u32) -> Option<Arc<Identity>> {
        static RESERVED: LazyLock<Vec<Arc<Identity>>> =
            LazyLock::new(|| model::reserved::all().into_iter().map(Arc::new).collect());
        let id = IdentityId(id);
        let known = self.tables.identities.snapshot().get(&id);
        known.or_else(|| RESERVED.iter().find(|identity| identity.id == id).cloned())
    }

    /// All pods that it can name.
    pub(crate) fn pods(&self) -> impl Iterator<Item = PodName> + use<> {
        let (endpoints, addresses) = (self.tables.endpoints.snapshot(), self.tables.ipcache.snapshot());
        let local: Vec<_> = endpoints.iter().filter_map(|endpoint| endpoint.pod().cloned()).collect();
        let all: Vec<_> = addresses.iter().filter_map(|entry| Some(entry.pod.as_ref()?.pod.clone())).collect();
        local.into_iter().chain(all)
    }

    /// The number of this node's endpoint at an address; 0 if there is none.
    fn endpoint_at(&self, ip: IpAddr) -> u16 {
        self.endpoints.first(&ip).map_or(0, |endpoint| endpoint.id.0)
    }

    /// The identity of an address, by the longest prefix.
    fn identity_of(&self, ip: IpAddr) -> Option<IdentityId> {
        let entries = self.tables.ipcache.snapshot();
        let longest = IpNet::from(ip).max_prefix_len();
        let prefixes = (0..=longest).rev().filter_map(|bits| IpNet::new(ip, bits).ok());
        prefixes.map(|prefix| prefix.trunc()).find_map(|prefix| entries.get(&prefix)).map(|entry| entry.identity)
    }

    fn endpoint(&self, id: u16) -> Option<Arc<Endpoint>> {
        if id == 0 { None } else { self.tables.endpoints.snapshot().get(&EndpointId(id)) }
    }

    /// One side without its service.
    fn peer(&self, endpoint: Option<&Endpoint>, identity: u32, ip: IpAddr) -> Peer {
        let local = endpoint.and_then(Endpoint::pod).cloned();
        let (ours, pod) = match local {
            Some(pod) => (true, Some(pod)),
            None => match self.tables.ipcache.snapshot().get(&ip.into()).and_then(|entry| entry.pod.clone()) {
                Some(MeshPod { cluster, pod }) => (*cluster == *self.node.cluster, Some(pod)),
                None => (false, None),
            },
        };
        // A pod of another cluster may have a namesake here.
        let object = pod.as_ref().filter(|_| ours).and_then(|name| self.tables.pods.snapshot().get(name));
        let workload = object.and_then(|pod| pod.workload.clone());
        Peer { pod, workload, identity: self.identity(identity), service: None }
    }

    fn node_labels(&self) -> Option<Arc<[String]>> {
        let node = self.tables.nodes.snapshot().get(&self.node)?;
        let mut known = self.labels.lock();
        if let Some(known) = &*known
            && Arc::ptr_eq(&known.node, &node)
        {
            return Some(Arc::clone(&known.labels));
        }
        let labels: Arc<[String]> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        *known = Some(NodeLabels { node, labels: Arc::clone(&labels) });
        Some(labels)
    }
}

fn service(frontends: &Snapshot<Frontend>, ip: IpAddr, port: u16, proto: u8) -> Option<ServiceName> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = all.into_iter().find(|protocol| protocol.number() == proto)?;
    frontends.get(&FrontendKey::external(L4Addr { ip, port, protocol })).map(|frontend| frontend.service.clone())
}

impl Weigh for Names {
    /// Names of pods, services and workloads: each event counts them as its own.
    fn own(&self) -> usize {
        let peer = |peer: &Peer| {
            peer.pod.as_ref().map_or(0, |pod| pod.namespace.len() + pod.name.len())
                + peer.service.as_ref().map_or(0, |service| service.namespace.len() + service.name.len())
                + peer.workload.as_ref().map_or(0, |workload| workload.kind.len() + workload.name.len())
        };
        peer(&self.source) + peer(&self.destination)
    }

    fn shared(&self, each: &mut impl FnMut(usize, &dyn Fn() -> usize)) {
        for identity in [&self.source.identity, &self.destination.identity].into_iter().flatten() {
            each(Arc::as_ptr(identity).addr(), &|| identity_size(identity));
        }
        for rule in [&self.egress, &self.ingress].into_iter().flatten() {
            each(Arc::as_ptr(rule).addr(), &|| rule_size(rule));
        }
        if let Some(labels) = &self.node_labels {
            each(Arc::as_ptr(labels).addr(), &|| strings_size(labels));
        }
    }
}

/// What the standard library's containers add to an entry, about.
const OVERHEAD: usize = 32;

fn identity_size(identity: &Identity) -> usize {
    let label = |label: &model::Label| label.key.len() + label.value.len() + size_of::<model::Label>() + 2 * OVERHEAD;
    size_of::<Identity>() + identity.labels.iter().map(label).sum::<usize>()
}

fn rule_size(rule: &Provenance) -> usize {
    let texts = [&rule.namespace, &rule.name, &rule.rule].into_iter().chain(&rule.log);
    size_of::<Provenance>() + texts.map(String::len).sum::<usize>() + strings_size(&rule.labels)
}

fn strings_size(strings: &[String]) -> usize {
    strings.iter().map(|text| text.len() + size_of::<String>() + OVERHEAD).sum()
}
