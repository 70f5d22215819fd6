// SPDX-License-Identifier: Apache-2.0
//! What of Services is not honoured, for their authors: fields that cannot be, and addresses that others have.

use crate::Config;
use crate::ingest::{EndpointSlice, HonouredCondition, Problem, Service, ServicePort, said};
use crate::owned::{self, Owned};
use k8s::Warning;
use k8s::k8s_openapi::api::core::v1::{self as core, ObjectReference};
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::Resource;
use model::{L4Addr, Node, ServiceName};
use statedb::{Derived, Index, Inputs, Reader, Tasks};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tracing::warn;

const EXTERNAL_IPS: &str = "spec.externalIPs";
const INGRESS: &str = "status.loadBalancer.ingress.ip";

/// What of a Service is not honoured. One row per Service of which something is not.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceProblems {
    /// Namespace and name.
    pub service: ServiceName,
    /// UID of the object.
    pub uid: Arc<str>,
    /// The fields; empty, as are the endpoints, if the status says of some that it no longer holds for.
    pub problems: Vec<Problem>,
    /// What of its EndpointSlices is not used, the first of it.
    pub endpoints: Vec<Problem>,
    said: HonouredCondition,
}

impl statedb::Row for ServiceProblems {
    type Key = ServiceName;
    fn key(&self) -> ServiceName {
        self.service.clone()
    }
}

impl ServiceProblems {
    /// What its author is told.
    pub fn warnings(&self) -> impl Iterator<Item = Warning> {
        let warning = |(reason, says, problems): (&'static str, &str, &[Problem])| {
            let note = || format!("{says}: {}", said::summary(problems));
            let about = || reference(&self.service, &self.uid);
            (!problems.is_empty()).then(|| Warning { about: about(), reason, action: "Validate", note: note() })
        };
        [
            ("ServiceNotHonoured", "Not all of the Service is honoured", &*self.problems),
            ("EndpointsNotUsed", "Not all endpoints of the Service are used", &*self.endpoints),
        ]
        .into_iter()
        .filter_map(warning)
    }

    /// All of it.
    pub(crate) fn all(&self) -> Vec<Problem> {
        [&*self.problems, &*self.endpoints].concat()
    }

    /// The condition that the Service is to have, unless it has it.
    #[must_use]
    pub fn corrected_condition(&self, now: Timestamp) -> Option<Condition> {
        self.said.correction(&self.all(), now)
    }

    /// Says what is new, the first of it: one author can be at fault in a thousand ways.
    fn log(&self, before: Option<&Self>) {
        let before: BTreeSet<Problem> = before.map(Self::all).unwrap_or_default().into_iter().collect();
        let new = self.all().into_iter().filter(|problem| !before.contains(problem)).take(said::NAMED);
        new.for_each(|Problem { field, reason }| warn!(service = %self.service, field, reason, "not honoured"));
    }
}

/// Names a Service in an event.
pub(crate) fn reference(service: &ServiceName, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(core::Service::api_version(&()).into()),
        kind: Some(core::Service::kind(&()).into()),
        namespace: Some(service.namespace.to_string()),
        name: Some(service.name.to_string()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

/// What problems follow from.
#[derive(Debug)]
pub struct Tables {
    /// Services of the cluster.
    pub services: Reader<Service>,
    /// EndpointSlices; of which only those of the API server matter, and those that are not used as a whole.
    pub slices: Reader<EndpointSlice>,
    /// All nodes.
    pub nodes: Reader<Node>,
}

/// Keeps a table of them, and logs each once.
pub fn problems(tasks: &Tasks, config: &Config, tables: &Tables) -> Derived<ServiceProblems> {
    let claims = |service: &Service| claims(service).into_keys().collect::<Vec<_>>();
    let cluster_ips = |service: &Service| service.cluster_ips.clone();
    let external_ips = |service: &Service| service.external_ips.clone();
    let (rivals, by_external_ip) = (tables.services.index(claims), tables.services.index(external_ips));
    let by_nodes = tables.services.index(|service: &Service| may_take_of_nodes(service).then_some(()));
    let of_node = move || by_nodes.get(&()).iter().map(|service| service.name.clone()).collect::<Vec<_>>();
    let of_slice = of_node.clone();
    let by_claim = rivals.clone();
    let inputs = Inputs::of(&tables.services, move |service: &Service| {
        let rivals = claims(service).into_iter().flat_map(|claim| rivals.get(&claim));
        let takers = service.cluster_ips.iter().flat_map(|ip| by_external_ip.get(ip));
        let others: Vec<_> = rivals.chain(takers).map(|other| other.name.clone()).collect();
        others.into_iter().chain([service.name.clone()]).collect::<Vec<_>>()
    })
    .and(&tables.nodes, move |_| of_node())
    .and(&tables.slices, move |slice| {
        let others = if owned::is_api_server(slice) { of_slice() } else { Vec::new() };
        others.into_iter().chain(faulty(slice)).collect::<Vec<_>>()
    });
    let judge = Judge {
        owned: Owned::new(&tables.nodes, &tables.slices, config),
        by_claim,
        by_cluster_ip: tables.services.index(cluster_ips),
        faulty: tables.slices.index(faulty),
    };
    let services = tables.services.clone();
    statedb::derive(tasks, "service-problems", inputs, move |name, before: Option<&ServiceProblems>| {
        let service = services.snapshot().get(name)?;
        let problems = [service.problems.clone(), judge.lost(&service)].concat();
        let (uid, said, endpoints) = (service.uid.clone(), service.said.clone(), judge.unused(name));
        let row = ServiceProblems { service: name.clone(), uid, problems, endpoints, said };
        row.log(before);
        (!row.problems.is_empty() || !row.endpoints.is_empty() || row.said.complains()).then_some(row)
    })
}

/// The Service of a slice that is not used as a whole.
fn faulty(slice: &EndpointSlice) -> Option<ServiceName> {
    (!slice.problems.is_empty()).then(|| slice.service.clone())
}

/// The addresses that a Service asks for and that the API server does not allot, with the field that does. Ports of nodes are at the
/// unspecified address.
fn claims(service: &Service) -> BTreeMap<L4Addr, &'static str> {
    let mut claims = BTreeMap::new();
    for port in &service.ports {
        let at = |ip, port: u16, protocol| L4Addr { ip, port, protocol };
        for (field, ips) in [
            (EXTERNAL_IPS, &service.external_ips),
            (INGRESS, &service.load_balancer_ips),
            ("spec.clusterIPs", &service.cluster_ips),
        ] {
            claims.extend(ips.iter().map(|ip| (at(*ip, port.port, port.protocol), field)));
        }
        if let Some(node_port) = port.node_port {
            let every_node = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            claims.insert(at(every_node, node_port, port.protocol), "spec.ports.nodePort");
        }
    }
    claims
}

/// Whether it asks for what may be a node's, a pod's or the API server's.
fn may_take_of_nodes(service: &Service) -> bool {
    let mut claims = claims(service).into_iter();
    claims.any(|(claim, field)| field == EXTERNAL_IPS || (field == INGRESS && owned::is_nodes_own(&claim)))
}

/// With which field a Service asks for an address; of several, with the one that counts most.
fn field_of(service: &Service, claim: &L4Addr) -> Option<&'static str> {
    let is_at = |port: &&ServicePort, number| port.protocol == claim.protocol && number == Some(claim.port);
    if claim.ip.is_unspecified() {
        return service.ports.iter().any(|port| is_at(&port, port.node_port)).then_some("spec.ports.nodePort");
    }
    let fields = [
        ("spec.clusterIPs", &service.cluster_ips),
        (INGRESS, &service.load_balancer_ips),
        (EXTERNAL_IPS, &service.external_ips),
    ];
    let has_port = service.ports.iter().any(|port| is_at(&port, Some(port.port)));
    fields.into_iter().find(|(_, ips)| has_port && ips.contains(&claim.ip)).map(|(field, _)| field)
}

/// Knows who else has an address.
struct Judge {
    owned: Owned,
    by_claim: Index<Service, L4Addr>,
    by_cluster_ip: Index<Service, IpAddr>,
    faulty: Index<EndpointSlice, ServiceName>,
}

/// Of how many slices of a Service it is told what is not used.
const SLICES: usize = 4;

impl Judge {
    /// What of its slices is not used.
    fn unused(&self, service: &ServiceName) -> Vec<Problem> {
        let slices = self.faulty.get(service);
        let named = slices.iter().take(SLICES).flat_map(|slice| slice.problems.clone());
        let more = slices.len().saturating_sub(SLICES);
        let more = (more > 0).then(|| Problem::new("EndpointSlices", format!("{more} more are not used as a whole")));
        named.chain(more).collect()
    }

    /// What a Service asks for and others have.
    fn lost(&self, service: &Service) -> Vec<Problem> {
        let lost = |(claim, field): (L4Addr, &'static str)| {
            let owner = self.owner(service, &claim, field)?;
            let what = if claim.ip.is_unspecified() { format!("port {}", claim.port) } else { claim.to_string() };
            Some(Problem::new(field, format!("{what} is that of {owner}")))
        };
        claims(service).into_iter().filter_map(lost).collect()
    }

    fn owner(&self, service: &Service, claim: &L4Addr, field: &str) -> Option<String> {
        if field == EXTERNAL_IPS {
            let of_cluster = self.owned.owner(claim).map(str::to_owned);
            let others = self.by_cluster_ip.get(&claim.ip).into_iter().find(|other| other.name != service.name);
            let of_service = others.map(|other| format!("the Service {}", other.name));
            if let Some(owner) = of_cluster.or(of_service) {
                return Some(owner);
            }
        }
        if field == INGRESS && self.owned.is_nodes_own(claim) {
            return Some("a node".to_owned());
        }
        let rank = |service: &Service| (rank(field_of(service, claim)), service.created, service.name.clone());
        let winner = self.by_claim.get(claim).into_iter().min_by_key(|other| rank(other))?;
        (winner.name != service.name).then(|| format!("the Service {}", winner.name))
    }
}

/// As frontends are given to those who claim them.
fn rank(field: Option<&str>) -> u8 {
    match field {
        Some("spec.clusterIPs") => 0,
        Some(INGRESS) => 1,
        // Among ports of nodes there is no other field.
        _ => 2,
    }
}

#[cfg(test)]
mod tests;
