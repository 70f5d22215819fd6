// SPDX-License-Identifier: Apache-2.0
//! What matters of Services for announcements.

use k8s::field::{self, FieldError};
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::core::Selector;
use model::ServiceName;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Our own load balancer class.
const CLASS: &str = "io.cilium/l2-announcer";
/// Labels that selectors see on every Service.
const NAMESPACE: &str = "io.kubernetes.service.namespace";
const NAME: &str = "io.kubernetes.service.name";

/// A Service with addresses that may be announced. One row per such Service of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Namespace and name.
    pub name: ServiceName,
    /// Creation time.
    pub created: Option<Timestamp>,
    /// Its labels, and the synthetic ones.
    pub labels: BTreeMap<String, String>,
    /// Its `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Its load balancer addresses, unless they belong to another load balancer.
    pub load_balancer_ips: Vec<IpAddr>,
    /// External traffic is only for endpoints of the node it arrives at.
    pub local: bool,
    /// Whether Kubernetes manages its endpoints by a selector; otherwise somebody writes them.
    pub selects_pods: bool,
    /// The nodes at which it is served.
    pub nodes: Selector,
}

impl Service {
    /// The same as far as it is served: at these addresses, by these nodes. None if that is nowhere.
    #[must_use]
    pub fn as_served(mut self, addresses: &[IpAddr], nodes: Selector) -> Option<Self> {
        for own in [&mut self.external_ips, &mut self.load_balancer_ips] {
            own.retain(|ip| addresses.contains(ip));
        }
        let is_somewhere = !(self.external_ips.is_empty() && self.load_balancer_ips.is_empty());
        is_somewhere.then_some(Self { nodes, ..self })
    }
}

impl statedb::Row for Service {
    type Key = ServiceName;
    fn key(&self) -> ServiceName {
        self.name.clone()
    }
}

/// Where a Service has endpoints that take new connections. One row per Service that has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub service: ServiceName,
    /// Some are on this node.
    pub here: bool,
    /// Some are on a node, unlike a Gateway's listeners, which are everywhere.
    pub placed: bool,
}

impl statedb::Row for Endpoints {
    type Key = ServiceName;
    fn key(&self) -> ServiceName {
        self.service.clone()
    }
}

/// The row of a Service; none without an external address.
///
/// # Errors
///
/// The first field that cannot be used.
pub fn ingest_service(object: &core::Service) -> Result<Option<Service>, FieldError> {
    let meta = &object.metadata;
    let (Some(namespace), Some(name), Some(spec)) = (&meta.namespace, &meta.name, &object.spec) else {
        return Ok(None);
    };
    let external_ips = addresses("spec.externalIPs", spec.external_ips.iter().flatten())?;
    let load_balancer_ips = load_balancer_ips(spec, object.status.as_ref())?;
    if external_ips.is_empty() && load_balancer_ips.is_empty() {
        return Ok(None);
    }
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(NAMESPACE.to_owned(), namespace.clone());
    labels.insert(NAME.to_owned(), name.clone());
    Ok(Some(Service {
        name: ServiceName::new(namespace.as_str(), name.as_str()),
        created: meta.creation_timestamp.as_ref().map(|time| time.0),
        labels,
        external_ips,
        load_balancer_ips,
        local: spec.external_traffic_policy.as_deref() == Some("Local"),
        selects_pods: spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()),
        nodes: Selector::default(),
    }))
}

fn load_balancer_ips(
    spec: &core::ServiceSpec,
    status: Option<&core::ServiceStatus>,
) -> Result<Vec<IpAddr>, FieldError> {
    let is_ours = spec.load_balancer_class.as_deref().is_none_or(|class| class == CLASS);
    if spec.type_.as_deref() != Some("LoadBalancer") || !is_ours {
        return Ok(Vec::new());
    }
    let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref()).into_iter().flatten();
    addresses("status.loadBalancer.ingress.ip", ingress.filter_map(|ingress| ingress.ip.as_ref()))
}

/// Addresses that a machine can have and that neighbours resolve.
fn addresses<'a>(name: &'static str, texts: impl Iterator<Item = &'a String>) -> Result<Vec<IpAddr>, FieldError> {
    let all = texts.filter(|text| !text.is_empty()).map(|text| field::address(name, text));
    let all: Vec<IpAddr> = all.collect::<Result<_, _>>()?;
    Ok(all.into_iter().filter(|ip| is_announceable(*ip)).collect())
}

fn is_announceable(ip: IpAddr) -> bool {
    let odd = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    !(odd || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::{Value, json};

    fn ingest(spec: Value, ips: &[&str]) -> Result<Option<Service>, FieldError> {
        let ingress: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let object = json!({"metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
            "spec": spec, "status": {"loadBalancer": {"ingress": ingress}}});
        ingest_service(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_service_has_its_addresses_from_outside_and_its_names_as_labels() {
        let spec = json!({"type": "LoadBalancer", "externalIPs": ["192.0.2.7"], "externalTrafficPolicy": "Local",
            "selector": {"app": "web"}});
        let service = ingest(spec, &["192.0.2.240", "2001:db8::f0"]).unwrap().unwrap();
        assert_eq!(service.external_ips, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(service.load_balancer_ips, ["192.0.2.240", "2001:db8::f0"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert!(service.local && service.selects_pods);
        let labels = [("app", "web"), (NAME, "web"), (NAMESPACE, "shop")];
        assert_eq!(service.labels, labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn addresses_of_another_class_of_load_balancers_are_left_to_it() {
        let of_class = |class: &str| {
            let spec = json!({"type": "LoadBalancer", "loadBalancerClass": class});
            ingest(spec, &["192.0.2.240"]).unwrap().is_some()
        };
        assert_eq!([CLASS, "example.com/other"].map(of_class), [true, false]);
        assert_eq!(ingest(json!({"type": "ClusterIP"}), &["192.0.2.240"]).unwrap(), None);
    }

    #[test]
    fn an_address_that_no_machine_has_is_left_out_and_one_that_is_none_is_named() {
        let odd = ["127.0.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255", "169.254.1.1", "::1", "ff02::1", "fe80::1"];
        assert_eq!(ingest(json!({"externalIPs": odd}), &[]).unwrap(), None);
        let mapped = ingest(json!({"externalIPs": ["::ffff:192.0.2.7", "::ffff:127.0.0.1"]}), &[]).unwrap().unwrap();
        assert_eq!(mapped.external_ips, ["192.0.2.7".parse::<IpAddr>().unwrap()], "in whichever form");
        let error = ingest(json!({"externalIPs": ["192.0.2"]}), &[]).unwrap_err().to_string();
        assert_eq!(error, "spec.externalIPs: \"192.0.2\" is not an IP address");
    }
}
