// SPDX-License-Identifier: Apache-2.0
//! What of Services is not honoured, for their authors: fields that cannot be, and addresses that others have.

use crate::ingest::{Problem, Service};
use k8s::Warning;
use k8s::k8s_openapi::api::core::v1::{self as core, ObjectReference};
use k8s::kube::Resource;
use model::{L4Addr, ServiceName};
use statedb::{Derived, Index, Inputs, Reader, Tasks};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tracing::warn;

/// What of a Service is not honoured. One row per Service of which something is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceProblems {
    /// Namespace and name.
    pub service: ServiceName,
    /// UID of the object.
    pub uid: Arc<str>,
    /// The fields.
    pub problems: Vec<Problem>,
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
        let text: Vec<_> = self.problems.iter().map(ToString::to_string).collect();
        Warning {
            about: ObjectReference {
                api_version: Some(core::Service::api_version(&()).into()),
                kind: Some(core::Service::kind(&()).into()),
                namespace: Some(self.service.namespace.to_string()),
                name: Some(self.service.name.to_string()),
                uid: Some(self.uid.to_string()),
                ..ObjectReference::default()
            },
            reason: "ServiceNotHonoured",
            action: "Validate",
            note: format!("Not all of the Service is honoured: {}", text.join(". ")),
        }
    }
}

/// Keeps a table of them, and logs each once.
pub fn problems(tasks: &Tasks, services: &Reader<Service>) -> Derived<ServiceProblems> {
    let claims = |service: &Service| claims(service).into_keys().collect::<Vec<_>>();
    let rivals = services.index(claims);
    let inputs = Inputs::of(services, move |service: &Service| {
        let others = claims(service).into_iter().flat_map(|claim| rivals.get(&claim));
        let others: Vec<_> = others.map(|other| other.name.clone()).collect();
        others.into_iter().chain([service.name.clone()]).collect::<Vec<_>>()
    });
    let (services, by_claim) = (services.clone(), services.index(claims));
    statedb::derive(tasks, "service-problems", inputs, move |name, before: Option<&ServiceProblems>| {
        let service = services.snapshot().get(name)?;
        let problems = [service.problems.clone(), contested(&service, &by_claim)].concat();
        let is_new = |problem: &&Problem| before.is_none_or(|before| !before.problems.contains(problem));
        for Problem { field, reason } in problems.iter().filter(is_new) {
            warn!(service = %name, field, reason, "not honoured");
        }
        let (service, uid) = (name.clone(), service.uid.clone());
        (!problems.is_empty()).then_some(ServiceProblems { service, uid, problems })
    })
}

/// The addresses that a Service asks for and that the API server does not allot, with the field that does. Ports of nodes are at the
/// unspecified address.
fn claims(service: &Service) -> BTreeMap<L4Addr, &'static str> {
    let mut claims = BTreeMap::new();
    for port in &service.ports {
        let at = |ip, port: u16, protocol| L4Addr { ip, port, protocol };
        for (field, ips) in [
            ("spec.externalIPs", &service.external_ips),
            ("status.loadBalancer.ingress.ip", &service.load_balancer_ips),
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

/// The addresses of which another Service is given what this one asks for.
fn contested(service: &Service, by_claim: &Index<Service, L4Addr>) -> Vec<Problem> {
    let lost = |(claim, field): (L4Addr, &'static str)| {
        let rank = |service: &Service| (rank(claims(service).get(&claim).copied()), service.name.clone());
        let winner = by_claim.get(&claim).into_iter().min_by_key(|other| rank(other))?;
        let what = if claim.ip.is_unspecified() { format!("port {}", claim.port) } else { claim.to_string() };
        let reason = || format!("{what} is that of the Service {}", winner.name);
        (winner.name != service.name).then(|| Problem::new(field, reason()))
    };
    claims(service).into_iter().filter_map(lost).collect()
}

/// As frontends are given to those who claim them.
fn rank(field: Option<&str>) -> u8 {
    match field {
        Some("spec.clusterIPs") => 0,
        Some("spec.ports.nodePort") => 1,
        Some("status.loadBalancer.ingress.ip") => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::Config;
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
        let derived = problems(&tasks, &reader);
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
}
