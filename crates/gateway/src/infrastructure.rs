// SPDX-License-Identifier: Apache-2.0
//! What the operator does for Gateways: the Service by which each is reached, the copies of credentials that agents may read, and what
//! objects' authors are told.

mod copies;
mod ingresses;
mod late;
mod programmed;
mod reports;
mod service;

pub use copies::Copy;
pub use ingresses::{IngressAddresses, IngressClosed};
pub(crate) use late::Late;
pub(crate) use programmed::{Closed, Programmed};
pub use reports::{PROXY_REPORT, ProxyReport, ingest_report, report_objects};
pub use service::{ObservedService, ServiceConfig, WantedService, ingest_observed};
pub(crate) use service::{port_name, service_name};

use crate::envoy::{self, EnvoyProblems};
use crate::ingress::{self, Ingress, IngressConfig, IngressProblem};
use crate::name::ObjectName;
use crate::objects::Objects;
use crate::resolve::{Resolved, resolve};
use crate::status::{self, Addresses, Correction, Reporter};
use k8s::gateway::StatusAddress;
use k8s::k8s_openapi::api::core::v1 as core;
use statedb::{Index, Inputs, Reader, Tasks};
use std::sync::Arc;

/// The most addresses that a status can have.
const MAX_ADDRESSES: usize = 16;

/// Addresses of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddresses {
    /// Name of the node.
    pub node: String,
    /// They.
    pub addresses: Vec<StatusAddress>,
}

impl statedb::Row for NodeAddresses {
    type Key = String;
    fn key(&self) -> String {
        self.node.clone()
    }
}

/// The row of a node.
#[must_use]
pub fn ingest_node(object: &core::Node) -> Option<NodeAddresses> {
    let addresses = object.status.as_ref().and_then(|status| status.addresses.as_ref());
    let internal = addresses.into_iter().flatten().filter(|address| address.type_ == "InternalIP");
    let address =
        |address: &core::NodeAddress| StatusAddress { kind: "IPAddress".to_owned(), value: address.address.clone() };
    Some(NodeAddresses { node: object.metadata.name.clone()?, addresses: internal.map(address).collect() })
}

/// What is to be in the cluster.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Services of Gateways.
    pub services: Reader<WantedService>,
    /// Credentials that are to be copied.
    pub copies: Reader<Copy>,
    /// What is said of objects, and is to be said otherwise.
    pub corrections: Reader<Correction>,
    /// Ingresses whose status has other addresses than theirs.
    pub ingresses: Reader<IngressAddresses>,
    /// Ingresses of which some node's proxy cannot have a port.
    pub closed: Reader<IngressClosed>,
    /// What of Ingresses is not served.
    pub ingress_problems: Reader<IngressProblem>,
    /// What of CiliumEnvoyConfigs is not honoured.
    pub problems: Reader<EnvoyProblems>,
}

/// What is there already.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Services of Gateways.
    pub services: Reader<ObservedService>,
    /// The nodes at whose own addresses Gateways are reached, if they are.
    pub nodes: Reader<NodeAddresses>,
    /// The same of Ingresses.
    pub ingress_nodes: Reader<NodeAddresses>,
    /// What nodes' proxies have in force.
    pub proxies: Reader<ProxyReport>,
    /// Ingresses, which are among the objects as Gateways and routes.
    pub ingresses: Reader<Ingress>,
    /// How these are served.
    pub ingress: IngressConfig,
}

/// Where what is wanted is in force.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    pub(crate) programmed: Reader<Programmed>,
    /// Nodes that nothing waits for.
    pub(crate) late: Reader<Late>,
}

impl Serving {
    /// What each node lacks.
    pub(crate) fn by_missing(&self) -> Index<Programmed, Arc<str>> {
        self.programmed.index(|row| row.missing.clone())
    }

    /// Whether an object is in force on a node at least, and nothing is to be waited for.
    pub(crate) fn everywhere(&self, row: &Programmed) -> bool {
        let late = self.late.snapshot();
        row.nodes > 0 && row.missing.iter().all(|node| late.get(node).is_some())
    }
}

/// Keeps what is to be in the cluster, as it follows from objects (whose rows have their status) and from what is there.
pub fn want(tasks: &Tasks, objects: &Objects, observed: &Observed, config: ServiceConfig) -> Wanted {
    let resolved = resolve(tasks, objects);
    let Observed { ingresses, ingress, .. } = observed;
    let addresses = addresses(tasks, &resolved, observed, &config);
    let reports = reports::by_node(tasks, &observed.proxies);
    let programmed = programmed::derive(tasks, &resolved.edges.rows, &reports, observed, &config);
    let late = late::derive(tasks, &programmed, &reports);
    let serving = Serving { programmed: programmed.clone(), late };
    let reporter = Reporter::new(&resolved, &addresses, &serving, &config);
    Wanted {
        ingress_problems: ingress::problems(tasks, ingress, ingresses, &resolved),
        problems: envoy::problems(tasks, &resolved.placed, None),
        closed: ingresses::closed(tasks, ingress, ingresses, &programmed),
        ingresses: ingresses::derive(tasks, ingress, ingresses, &addresses, &serving),
        copies: copies::derive(tasks, &resolved),
        services: service::derive(tasks, &resolved, &observed.services, config),
        corrections: status::correct(tasks, objects, &status::report(tasks, reporter)),
    }
}

/// Where each Gateway is reached.
fn addresses(tasks: &Tasks, resolved: &Resolved, observed: &Observed, config: &ServiceConfig) -> Reader<Addresses> {
    let Observed { services, nodes, ingress_nodes, .. } = observed.clone();
    let gateways = resolved.objects.gateways.clone();
    let all = move |_: &NodeAddresses| gateways.snapshot().iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    let inputs = Inputs::of(&resolved.objects.gateways, |gateway| [gateway.name.clone()])
        .and(&services, ObservedService::gateways)
        .and(&nodes, all.clone())
        .and(&ingress_nodes, all);
    let config = config.clone();
    let row = move |gateway: &ObjectName, _: Option<&Addresses>| {
        let addresses = if config.at_nodes(gateway) {
            let all = if ingress::behind(gateway).is_some() { &ingress_nodes } else { &nodes }.snapshot();
            all.iter().flat_map(|node| node.addresses.clone()).take(MAX_ADDRESSES).collect()
        } else {
            services.snapshot().get(&service::service_name(gateway))?.addresses.clone()
        };
        Some(Addresses { gateway: gateway.clone(), addresses })
    };
    statedb::derive(tasks, "gateway-addresses", inputs, row).rows
}
