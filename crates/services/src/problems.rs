// SPDX-License-Identifier: Apache-2.0
//! What of Services is not honoured, for their authors: fields that cannot be, and addresses that others have.

use crate::Config;
use crate::ingest::{EndpointSlice, Problem, Said, Service, ServicePort, said};
use crate::owned::{self, Owned};
use k8s::Warning;
use k8s::k8s_openapi::api::core::v1::{self as core, ObjectReference};
use k8s::k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::Resource;
use model::{L4Addr, Node, ServiceName};
use statedb::{Derived, Index, Inputs, Reader, Tasks};
use std::collections::BTreeMap;
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
    /// The fields; empty if the status says of some that it no longer holds for.
    pub problems: Vec<Problem>,
    said: Said,
}

impl statedb::Row for ServiceProblems {
    type Key = ServiceName;
    fn key(&self) -> ServiceName {
        self.service.clone()
    }
}

impl ServiceProblems {
    /// What its author is told.
    #[must_use]
    pub fn warning(&self) -> Warning {
        Warning {
            about: reference(&self.service, &self.uid),
            reason: "ServiceNotHonoured",
            action: "Validate",
            note: format!("Not all of the Service is honoured: {}", said::summary(&self.problems)),
        }
    }

    /// The condition that the Service is to have, unless it has it.
    #[must_use]
    pub fn corrected_condition(&self, now: Timestamp) -> Option<Condition> {
        self.said.correction(&self.problems, now)
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
    /// EndpointSlices; of which only those of the API server matter.
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
    .and(&tables.slices, move |slice| if owned::is_api_server(slice) { of_slice() } else { Vec::new() });
    let judge = Judge {
        owned: Owned::new(&tables.nodes, &tables.slices, &config.external_ips_node_ports),
        by_claim,
        by_cluster_ip: tables.services.index(cluster_ips),
    };
    let services = tables.services.clone();
    statedb::derive(tasks, "service-problems", inputs, move |name, before: Option<&ServiceProblems>| {
        let service = services.snapshot().get(name)?;
        let problems = [service.problems.clone(), judge.lost(&service)].concat();
        let is_new = |problem: &&Problem| before.is_none_or(|before| !before.problems.contains(problem));
        for Problem { field, reason } in problems.iter().filter(is_new) {
            warn!(service = %name, field, reason, "not honoured");
        }
        let (uid, said) = (service.uid.clone(), service.said.clone());
        let matters = !problems.is_empty() || said.complains();
        matters.then(|| ServiceProblems { service: name.clone(), uid, problems, said })
    })
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
}

impl Judge {
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
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::ingest::ingest_service;
    use serde_json::json;

    fn service(name: &str, cluster_ip: &str, spec: &serde_json::Value) -> Service {
        let mut object = json!({"metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}")},
            "spec": {"clusterIP": cluster_ip, "type": "NodePort", "ports": [{"port": 80}]}});
        spec.as_object().unwrap().iter().for_each(|(key, value)| object["spec"][key] = value.clone());
        ingest_service(&Config::default(), &serde_json::from_value(object).unwrap()).unwrap().unwrap()
    }

    #[tokio::test]
    async fn who_asks_for_what_another_has_is_told_until_the_other_goes() {
        let (mut services, reader) = statedb::table("services");
        let tasks = Tasks::new(Default::default());
        let (mut nodes, nodes_reader) = statedb::table("nodes");
        let (mut slices, slices_reader) = statedb::table("slices");
        nodes.mark_initialized();
        slices.mark_initialized();
        let derived = problems(
            &tasks,
            &Config::default(),
            &Tables { services: reader, slices: slices_reader, nodes: nodes_reader },
        );
        let thief = json!({"externalIPs": ["10.96.0.10"], "ports": [{"port": 80, "nodePort": 30080}]});
        services.insert(service("a-thief", "10.96.0.1", &thief));
        services.mark_initialized();
        derived.caught_up().await;
        assert!(derived.rows.snapshot().is_empty());
        services.insert(service("dns", "10.96.0.10", &json!({})));
        services.insert(service("web", "10.96.0.2", &json!({"ports": [{"port": 80, "nodePort": 30080}]})));
        services.commit();
        derived.caught_up().await;
        let told: Vec<_> = derived.rows.snapshot().iter().map(|row| row.warning()).collect();
        let notes: Vec<_> = told.iter().map(|warning| warning.note.as_str()).collect();
        assert_eq!(
            notes,
            [
                "Not all of the Service is honoured: spec.externalIPs: 10.96.0.10:80/TCP is that of the Service shop/dns",
                "Not all of the Service is honoured: spec.ports.nodePort: port 30080 is that of the Service shop/a-thief",
            ]
        );
        assert_eq!(
            (told[0].about.name.as_deref(), told[0].about.uid.as_deref()),
            (Some("a-thief"), Some("uid-a-thief"))
        );
        services.remove(&ServiceName::new("shop", "dns"));
        services.remove(&ServiceName::new("shop", "a-thief"));
        services.commit();
        derived.caught_up().await;
        assert!(derived.rows.snapshot().is_empty());
    }

    #[tokio::test]
    async fn who_names_an_address_of_the_cluster_is_told_at_each_port_until_it_is_no_more() {
        let (mut services, services_reader) = statedb::table("services");
        let (mut nodes, nodes_reader) = statedb::table("nodes");
        let (mut slices, slices_reader) = statedb::table("slices");
        let tasks = Tasks::new(Default::default());
        let tables = Tables { services: services_reader, slices: slices_reader, nodes: nodes_reader };
        let config = Config { external_ips_node_ports: vec![], ..Config::default() };
        let derived = problems(&tasks, &config, &tables);
        let ips = ["10.0.1.7", "10.96.0.10", "192.168.0.11", "198.51.100.1", "203.0.113.5"];
        let ports = json!([{"name": "a", "port": 6443}, {"name": "b", "port": 10250}]);
        let with_ssh = json!([{"name": "a", "port": 6443}, {"name": "b", "port": 10250}, {"name": "c", "port": 22}]);
        services.insert(service("thief", "10.96.0.1", &json!({"externalIPs": ips, "ports": with_ssh})));
        services.insert(service("dns", "10.96.0.10", &json!({"ports": [{"port": 53, "protocol": "UDP"}]})));
        let balanced = service("balanced", "10.96.0.2", &json!({"ports": ports}));
        services.insert(Service { load_balancer_ips: vec!["192.168.0.12".parse().unwrap()], ..balanced });
        services.mark_initialized();
        nodes.insert(crate::owned::tests::node("n1", "192.168.0.11", "10.0.1.0/24"));
        nodes.insert(crate::owned::tests::node("n2", "192.168.0.12", "10.0.2.0/24"));
        nodes.mark_initialized();
        slices.insert(crate::owned::tests::api_server("198.51.100.1"));
        slices.mark_initialized();
        derived.caught_up().await;
        let row = |name: &str| ServiceName::new("shop", name);
        let told_of = |name| {
            let row = derived.rows.snapshot().get(&row(name));
            row.map(|row| row.problems.iter().map(|problem| problem.reason.clone()).collect::<Vec<_>>())
        };
        let told = || told_of("thief");
        let all = [
            "10.0.1.7:22/TCP is that of a pod",
            "10.0.1.7:6443/TCP is that of a pod",
            "10.0.1.7:10250/TCP is that of a pod",
            "10.96.0.10:22/TCP is that of the Service shop/dns",
            "10.96.0.10:6443/TCP is that of the Service shop/dns",
            "10.96.0.10:10250/TCP is that of the Service shop/dns",
            "192.168.0.11:22/TCP is that of a node, and not among external-ips-node-ports",
            "192.168.0.11:6443/TCP is that of a node",
            "192.168.0.11:10250/TCP is that of a node",
            "198.51.100.1:6443/TCP is that of the API server",
        ];
        assert_eq!(told().unwrap(), all);
        let of_node = ["192.168.0.12:6443/TCP is that of a node", "192.168.0.12:10250/TCP is that of a node"];
        assert_eq!(told_of("balanced").unwrap(), of_node);
        for name in ["n1", "n2"] {
            nodes.remove(&model::NodeName { cluster: "default".into(), name: name.into() });
        }
        nodes.commit();
        slices.remove(&crate::owned::tests::api_server("198.51.100.1").name);
        slices.commit();
        services.remove(&row("dns"));
        services.commit();
        derived.caught_up().await;
        assert_eq!((told(), told_of("balanced")), (None, None));
    }

    /// What authors are told of Services.
    async fn told(all: Vec<Service>) -> Vec<ServiceProblems> {
        let (mut services, reader) = statedb::table("services");
        let (mut nodes, nodes_reader) = statedb::table("nodes");
        let (mut slices, slices_reader) = statedb::table("slices");
        let tasks = Tasks::new(Default::default());
        let derived = problems(
            &tasks,
            &Config::default(),
            &Tables { services: reader, slices: slices_reader, nodes: nodes_reader },
        );
        all.into_iter().for_each(|row| services.insert(row));
        services.mark_initialized();
        nodes.mark_initialized();
        slices.mark_initialized();
        derived.caught_up().await;
        derived.rows.snapshot().iter().map(|row| ServiceProblems::clone(row)).collect()
    }

    #[tokio::test]
    async fn an_address_that_a_controller_gave_counts_more_than_one_that_an_author_wrote() {
        let ip: IpAddr = "192.0.2.9".parse().unwrap();
        let author = service("a-author", "10.96.0.1", &json!({"externalIPs": ["192.0.2.9"]}));
        let given = Service { load_balancer_ips: vec![ip], ..service("given", "10.96.0.2", &json!({})) };
        let rows = told(vec![author, given]).await;
        let [row] = &*rows else { unreachable!("{rows:?}") };
        assert_eq!(
            (&*row.service.name, row.problems[0].reason.as_str()),
            ("a-author", "192.0.2.9:80/TCP is that of the Service shop/given")
        );
        let about = row.warning().about;
        let text = |field: &Option<String>| field.clone().unwrap();
        assert_eq!(
            (text(&about.api_version), text(&about.kind), text(&about.namespace)),
            ("v1".to_owned(), "Service".to_owned(), "shop".to_owned())
        );
        let condition = row.corrected_condition("2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!((&*condition.status, &*condition.type_), ("False", "cilium.io/ServiceHonoured"));
        assert!(condition.message.contains("spec.externalIPs: 192.0.2.9:80/TCP"), "{}", condition.message);
    }

    #[test]
    fn a_field_asks_for_an_address_at_the_ports_and_protocols_of_the_service_only() {
        let ports = json!([{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]);
        let row = service("web", "10.96.0.1", &json!({"externalIPs": ["192.0.2.9"], "ports": ports}));
        for (claim, field) in [
            ("0.0.0.0:30080/TCP", Some("spec.ports.nodePort")),
            ("0.0.0.0:30080/UDP", None),
            ("0.0.0.0:80/TCP", None),
            ("10.96.0.1:80/TCP", Some("spec.clusterIPs")),
            ("10.96.0.1:53/UDP", Some("spec.clusterIPs")),
            ("10.96.0.1:53/TCP", None),
            ("10.96.0.1:81/TCP", None),
            ("192.0.2.9:80/TCP", Some(EXTERNAL_IPS)),
            ("192.0.2.8:80/TCP", None),
        ] {
            let claims = claims(&row);
            let (addr, protocol) = claim.split_once('/').unwrap();
            let addr: std::net::SocketAddr = addr.parse().unwrap();
            let protocol = if protocol == "UDP" { model::Protocol::Udp } else { model::Protocol::Tcp };
            let claim = L4Addr { ip: addr.ip(), port: addr.port(), protocol };
            assert_eq!(field_of(&row, &claim), field, "{claim}");
            assert_eq!(claims.get(&claim).copied(), field, "{claim}");
        }
    }
}
