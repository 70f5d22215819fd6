// SPDX-License-Identifier: Apache-2.0
//! Services as the datapath knows them: frontends and the backends behind each. One row per frontend of the cluster.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
    #[serde(rename = "SCTP")]
    Sctp,
}

impl Protocol {
    /// The number in the IP header (IANA).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A text is not the name of a [`Protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not TCP, UDP or SCTP")]
pub struct UnknownProtocol;

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Tcp, Self::Udp, Self::Sctp];
        all.into_iter().find(|protocol| protocol.to_string() == text).ok_or(UnknownProtocol)
    }
}

/// Address, port and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct L4Addr {
    /// Address.
    pub ip: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
}

impl fmt::Display for L4Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.ip, self.port), self.protocol)
    }
}

/// What identifies a Service in a mesh of clusters. A Service of another cluster is shown with the cluster in front.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// Name of its cluster, if that is another one.
    pub cluster: Option<Arc<str>>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ServiceName {
    /// A Service of this cluster.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { cluster: None, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cluster.iter().try_for_each(|cluster| write!(f, "{cluster}/"))?;
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What kind of frontend it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKind {
    /// The Service's cluster address.
    ClusterIp,
    NodePort,
    /// One of the Service's external addresses.
    ExternalIps,
    /// An address of a load balancer.
    LoadBalancer,
    /// A host port of a pod on this node.
    HostPort,
    /// An address whose traffic a local redirect policy keeps on the node.
    LocalRedirect,
}

impl fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::ExternalIps => "ExternalIPs",
            Self::LoadBalancer => "LoadBalancer",
            Self::HostPort => "HostPort",
            Self::LocalRedirect => "LocalRedirect",
        })
    }
}

/// Which endpoints a Service's internal or external traffic may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Those of all nodes.
    #[default]
    Cluster,
    /// Those of the node it arrives at.
    Local,
}

impl fmt::Display for TrafficPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        })
    }
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// At random.
    #[default]
    Random,
    /// By a hash of the connection, the same on every node.
    Maglev,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "random",
            Self::Maglev => "maglev",
        })
    }
}

/// How traffic from outside reaches a backend on another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// From an address of this node, to which the reply returns.
    #[default]
    Snat,
    /// From the client's address, to which the reply goes directly.
    Dsr,
}

impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snat => "snat",
            Self::Dsr => "dsr",
        })
    }
}

/// Clients that a Service admits or refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRanges {
    /// Their prefixes.
    pub prefixes: Vec<IpNet>,
    /// They are refused, and everyone else is admitted.
    pub deny: bool,
}

/// Number of a backend, unique on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub u32);

/// What traffic a backend takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendState {
    /// New connections.
    Active,
    /// Existing connections; new ones only if no backend is active.
    Terminating,
    /// Existing connections.
    TerminatingNotServing,
    /// Nothing.
    Quarantined,
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Terminating => "terminating",
            Self::TerminatingNotServing => "terminating-not-serving",
            Self::Quarantined => "quarantined",
        })
    }
}

/// Where a backend comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendSource {
    /// An EndpointSlice.
    EndpointSlice,
    /// A pod of this node with a host port.
    Pod,
}

/// Where a connection to a service ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Number.
    pub id: BackendId,
    /// Address.
    pub addr: L4Addr,
    pub state: BackendState,
    /// The node it runs on, if known.
    pub node: Option<Arc<str>>,
    /// The zone it is in, if known.
    pub zone: Option<Arc<str>>,
    /// Name of its cluster, if that is another one.
    pub cluster: Option<Arc<str>>,
    /// Its relative share of new connections.
    pub weight: u16,
    /// What told us of it.
    pub source: BackendSource,
}

impl Backend {
    /// The default weight.
    pub const WEIGHT: u16 = 100;

    /// A backend from an EndpointSlice, without further details.
    #[must_use]
    pub const fn new(id: BackendId, addr: L4Addr, state: BackendState) -> Self {
        let (node, zone, cluster) = (None, None, None);
        Self { id, addr, state, node, zone, cluster, weight: Self::WEIGHT, source: BackendSource::EndpointSlice }
    }
}

/// Which clients a frontend is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All; or those outside the cluster, if there is a separate one for those inside.
    External,
    /// Those inside the cluster.
    Internal,
    /// Those whose traffic a redirect leaves alone.
    Unredirected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// Address.
    pub addr: L4Addr,
    /// Clients.
    pub scope: Scope,
}

impl FrontendKey {
    /// The frontend of an address for clients outside the cluster, or for all.
    #[must_use]
    pub const fn external(addr: L4Addr) -> Self {
        Self { addr, scope: Scope::External }
    }

    /// The one for clients inside the cluster.
    #[must_use]
    pub const fn internal(addr: L4Addr) -> Self {
        Self { addr, scope: Scope::Internal }
    }
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = match self.scope {
            Scope::External => "",
            Scope::Internal => "/i",
            Scope::Unredirected => "/u",
        };
        write!(f, "{}{scope}", self.addr)
    }
}

/// An address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Address and clients.
    pub key: FrontendKey,
    /// Number of the service in the maps.
    pub id: u32,
    pub service: ServiceName,
    pub port_name: Option<Arc<str>>,
    /// What kind of frontend.
    pub kind: ServiceKind,
    /// Whether clients outside the cluster may use it.
    pub exposed: bool,
    /// Whether nobody else has the address: traffic to its other ports is for no one.
    pub owns_address: bool,
    /// Policy for traffic from outside the cluster.
    pub external_policy: TrafficPolicy,
    /// Policy for traffic from inside to the cluster address.
    pub internal_policy: TrafficPolicy,
    /// Whether clients inside the cluster have a separate frontend at the address.
    pub two_scopes: bool,
    /// Whether a policy limits its backends to this node, even if there are others.
    pub local_only: bool,
    /// For how long a client sticks to its backend, if at all.
    pub affinity: Option<Duration>,
    /// Whether it is for pods, and not for the node's own programs.
    pub pods_only: bool,
    /// Whether those whom its source ranges do not let in have a separate frontend at the address, or none ([`Scope::Unredirected`]).
    pub spares_backends: bool,
    /// Who may use it, if it is restricted.
    pub source_ranges: Option<Arc<SourceRanges>>,
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// How a backend on another node is reached.
    pub forwarding: Forwarding,
    /// Port on which this node reports whether it has backends for external traffic.
    pub health_check_node_port: Option<u16>,
    /// Its backends, ordered by address; frontends of one Service share them.
    pub backends: Arc<[Backend]>,
}

impl Frontend {
    /// A frontend for clients inside the cluster, with all backends and an address of its own.
    #[must_use]
    pub fn new(key: FrontendKey, id: u32, service: ServiceName, backends: Arc<[Backend]>) -> Self {
        Self {
            key,
            id,
            service,
            port_name: None,
            kind: ServiceKind::ClusterIp,
            exposed: false,
            owns_address: true,
            external_policy: TrafficPolicy::Cluster,
            internal_policy: TrafficPolicy::Cluster,
            two_scopes: false,
            local_only: false,
            affinity: None,
            pods_only: false,
            spares_backends: false,
            source_ranges: None,
            algorithm: Algorithm::Random,
            forwarding: Forwarding::Snat,
            health_check_node_port: None,
            backends,
        }
    }

    /// The backends for new connections: the active ones, or else those terminating but still serving.
    pub fn takers(&self) -> impl Iterator<Item = &Backend> {
        let any_active = self.backends.iter().any(|backend| backend.state == BackendState::Active);
        let wanted = if any_active { BackendState::Active } else { BackendState::Terminating };
        self.backends.iter().filter(move |backend| backend.state == wanted)
    }
}

impl statedb::Row for Frontend {
    type Key = FrontendKey;
    fn key(&self) -> FrontendKey {
        self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_read_by_the_name_that_it_is_shown_with() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        assert_eq!("tcp".parse::<Protocol>(), Err(UnknownProtocol));
    }

    #[test]
    fn services_of_one_name_in_two_clusters_are_two_and_the_other_is_shown_with_its_cluster() {
        let ours = ServiceName::new("shop", "cart");
        let theirs = ServiceName { cluster: Some("blue".into()), ..ours.clone() };
        assert_ne!(ours, theirs);
        assert_eq!([ours, theirs].map(|name| name.to_string()), ["shop/cart", "blue/shop/cart"]);
    }

    #[test]
    fn names_are_those_that_cilium_shows() {
        let shown = |all: &[&dyn fmt::Display]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        use ServiceKind::{ClusterIp, ExternalIps, HostPort, LoadBalancer, LocalRedirect, NodePort};
        assert_eq!(
            shown(&[&ClusterIp, &NodePort, &ExternalIps, &LoadBalancer, &HostPort, &LocalRedirect]),
            "ClusterIP NodePort ExternalIPs LoadBalancer HostPort LocalRedirect"
        );
        assert_eq!(shown(&[&TrafficPolicy::Cluster, &TrafficPolicy::Local]), "Cluster Local");
        assert_eq!(shown(&[&Algorithm::Random, &Algorithm::Maglev]), "random maglev");
        assert_eq!(shown(&[&Forwarding::Snat, &Forwarding::Dsr]), "snat dsr");
        use BackendState::{Active, Quarantined, Terminating, TerminatingNotServing};
        assert_eq!(
            shown(&[&Active, &Terminating, &TerminatingNotServing, &Quarantined]),
            "active terminating terminating-not-serving quarantined"
        );
        assert_eq!([Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(Protocol::number), [6, 17, 132]);
    }

    fn address(ip: &str) -> L4Addr {
        L4Addr { ip: ip.parse().unwrap(), port: 80, protocol: Protocol::Tcp }
    }

    #[test]
    fn a_frontend_is_shown_with_its_protocol_and_with_the_scope_of_clients_inside() {
        let key = FrontendKey::external(address("10.96.0.1"));
        assert_eq!(key.to_string(), "10.96.0.1:80/TCP");
        assert_eq!(FrontendKey::internal(address("fd96::1")).to_string(), "[fd96::1]:80/TCP/i");
        assert_eq!(FrontendKey { scope: Scope::Unredirected, ..key }.to_string(), "10.96.0.1:80/TCP/u");
        let frontend = Frontend::new(key, 1, ServiceName::new("shop", "cart"), [].into());
        assert_eq!(statedb::Row::key(&frontend), key);
    }

    #[test]
    fn new_connections_go_to_active_backends_or_else_to_those_still_serving() {
        use BackendState::{Active, Quarantined, Terminating, TerminatingNotServing};
        let takers = |states: &[BackendState]| {
            let backends =
                states.iter().zip(0..).map(|(state, id)| Backend::new(BackendId(id), address("10.0.0.1"), *state));
            let key = FrontendKey::external(address("10.96.0.1"));
            let frontend = Frontend::new(key, 1, ServiceName::default(), backends.collect());
            frontend.takers().map(|backend| backend.id.0).collect::<Vec<_>>()
        };
        assert_eq!(takers(&[Terminating, Active, Quarantined, Active]), [1, 3]);
        assert_eq!(takers(&[TerminatingNotServing, Terminating, Quarantined]), [1]);
        assert_eq!(takers(&[TerminatingNotServing, Quarantined]), [0_u32; 0]);
    }
}
