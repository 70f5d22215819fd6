// SPDX-License-Identifier: Apache-2.0
//! API objects other than policies to source rows.

use crate::rules::{Problem, parse_cidr};
use ipnet::IpNet;
use k8s::cilium::{CiliumCIDRGroup, CiliumEndpoint, CiliumIdentity};
use k8s::field;
use k8s::k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use model::{
    Identity, IdentityId, Label, LabelSource, Labels, NamedPort, Namespace, PodName, Protocol, RemoteEndpoint,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// How much is shown of an entry of a group that is no prefix.
const SHOWN: usize = 64;

/// A named list of prefixes. One row per CiliumCIDRGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CidrGroup {
    pub name: Arc<str>,
    /// Labels, with source `cidrgroup`.
    pub labels: Labels,
    /// The prefixes.
    pub cidrs: Vec<IpNet>,
    /// Entries that are none.
    pub problems: Vec<Problem>,
}

impl statedb::Row for CidrGroup {
    type Key = Arc<str>;
    fn key(&self) -> Arc<str> {
        self.name.clone()
    }
}

/// Addresses of API servers, from an EndpointSlice of the Service `kubernetes`. One row per slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiServers {
    /// Name of the slice.
    pub slice: Arc<str>,
    pub addresses: Vec<IpAddr>,
}

impl statedb::Row for ApiServers {
    type Key = Arc<str>;
    fn key(&self) -> Arc<str> {
        self.slice.clone()
    }
}

/// A row from an EndpointSlice, if it is one of the API servers'.
#[must_use]
pub fn ingest_api_servers(object: &discovery::EndpointSlice) -> Option<ApiServers> {
    let meta = &object.metadata;
    let service = meta.labels.as_ref()?.get("kubernetes.io/service-name")?;
    if meta.namespace.as_deref() != Some("default") || service != "kubernetes" {
        return None;
    }
    let addresses = object.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
    let mut addresses: Vec<_> = addresses.filter_map(|text| field::canonical_address(text)).collect();
    addresses.sort();
    addresses.dedup();
    Some(ApiServers { slice: meta.name.as_deref()?.into(), addresses })
}

/// A row from a Namespace.
#[must_use]
pub fn ingest_namespace(object: &core::Namespace) -> Option<Namespace> {
    let name = object.metadata.name.as_deref()?;
    Some(Namespace { name: name.into(), labels: object.metadata.labels.clone().unwrap_or_default() })
}

/// A row from a CiliumIdentity.
///
/// # Errors
///
/// The name is not a valid identity number of the cluster, or a label is malformed.
pub fn ingest_identity(object: &CiliumIdentity) -> Result<Option<Identity>, String> {
    let Some(name) = object.metadata.name.as_deref() else { return Ok(None) };
    let id = name.parse().map(IdentityId).ok().filter(|id| id.to_string() == name);
    // Another way to write a number would be another object for it.
    let id = id.ok_or_else(|| format!("CiliumIdentity {name}: the name is not a number as it is written"))?;
    if id.is_reserved() || id.is_node_local() {
        return Err(format!("CiliumIdentity {name}: the number is not one of the cluster's"));
    }
    let label = |(key, value): (&String, &String)| {
        let bad = || format!("CiliumIdentity {name}: security-labels: {key:?} is not source:key");
        let parsed: Label = key.parse().map_err(|_| bad())?;
        match parsed.source {
            // Only Cilium itself creates reserved labels: a user who may write identities cannot become the host.
            LabelSource::Reserved | LabelSource::Any => Err(bad()),
            source => Ok(Label::new(source, parsed.key, value.as_str())),
        }
    };
    let labels = object.security_labels.iter().map(label).collect::<Result<Labels, _>>()?;
    Ok(Some(Identity { id, labels }))
}

/// A row from a CiliumEndpoint of that cluster, once it has an identity and an address.
///
/// # Errors
///
/// An address or number in its status is malformed.
pub fn ingest_endpoint(cluster: &Arc<str>, object: &CiliumEndpoint) -> Result<Option<RemoteEndpoint>, String> {
    let meta = &object.metadata;
    let (Some(namespace), Some(name), Some(status)) = (&meta.namespace, &meta.name, &object.status) else {
        return Ok(None);
    };
    let bad = |field: &str, value: &str| format!("CiliumEndpoint {namespace}/{name}: status.{field}: {value:?}");
    let (Some(identity), Some(networking)) = (status.identity.as_ref().and_then(|i| i.id), &status.networking) else {
        return Ok(None);
    };
    let identity = u32::try_from(identity).map_err(|_| bad("identity.id", &identity.to_string()))?;
    // 0 is "unknown": the endpoint is not ready.
    if identity == 0 {
        return Ok(None);
    }
    let (mut ipv4, mut ipv6) = (None, None);
    for pair in &networking.addressing {
        if let Some(text) = pair.ipv4.as_deref().filter(|text| !text.is_empty()) {
            ipv4 = Some(text.parse::<Ipv4Addr>().map_err(|_| bad("networking.addressing.ipv4", text))?);
        }
        if let Some(text) = pair.ipv6.as_deref().filter(|text| !text.is_empty()) {
            ipv6 = Some(text.parse::<Ipv6Addr>().map_err(|_| bad("networking.addressing.ipv6", text))?);
        }
    }
    if ipv4.is_none() && ipv6.is_none() {
        return Ok(None);
    }
    let host = networking.node.as_deref().filter(|text| !text.is_empty());
    let host = host.map(|text| text.parse::<IpAddr>().map_err(|_| bad("networking.node", text))).transpose()?;
    let named_ports = status.named_ports.iter().flatten().filter_map(|port| {
        let protocol = match port.protocol.as_deref() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) => return None,
        };
        Some(NamedPort { name: port.name.clone()?, port: u16::try_from(port.port?).ok()?, protocol })
    });
    let pod = PodName::new(namespace.as_str(), name.as_str());
    let named_ports = named_ports.collect();
    let cluster = Arc::clone(cluster);
    Ok(Some(RemoteEndpoint { cluster, pod, ipv4, ipv6, identity: IdentityId(identity), host, named_ports }))
}

/// A row from a CiliumCIDRGroup. It depends on the object alone: entries that are no prefixes are left out, whatever was there before.
#[must_use]
pub fn ingest_cidr_group(object: &CiliumCIDRGroup) -> Option<CidrGroup> {
    let name = object.metadata.name.as_deref()?;
    let labels = object.metadata.labels.iter().flatten();
    let labels = labels.map(|(k, v)| Label::new(LabelSource::CidrGroup, k.as_str(), v.as_str())).collect();
    let (mut cidrs, mut problems) = (Vec::new(), Vec::new());
    for (index, text) in object.spec.external_cidrs.iter().enumerate() {
        match parse_cidr(text) {
            Ok(cidr) => cidrs.push(cidr),
            Err(_) => {
                let shown: String = text.chars().take(SHOWN).collect();
                let reason = format!("{shown:?} is not a prefix");
                problems.push(Problem { field: format!("spec.externalCIDRs[{index}]"), reason });
            }
        }
    }
    cidrs.sort();
    cidrs.dedup();
    Some(CidrGroup { name: name.into(), labels, cidrs, problems })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_identity_object_has_a_number_of_the_cluster_and_no_reserved_label() {
        let ingest = |name: &str, key: &str| {
            let object = json!({"metadata": {"name": name}, "security-labels": {key: "web"}});
            ingest_identity(&serde_json::from_value(object).unwrap())
        };
        assert_eq!(ingest("4711", "k8s:app").unwrap().unwrap().labels.to_strings(), ["k8s:app=web"]);
        for (name, key) in [
            ("1", "k8s:app"),
            ("16777217", "k8s:app"),
            ("web", "k8s:app"),
            ("04711", "k8s:app"),
            ("4711", "reserved:host"),
        ] {
            assert!(ingest(name, key).is_err(), "{name} {key}");
        }
    }

    #[test]
    fn an_endpoint_object_is_a_row_once_identity_and_address_are_known() {
        let ingest = |status| {
            let object = json!({"metadata": {"namespace": "a", "name": "b"}, "status": status});
            ingest_endpoint(&"default".into(), &serde_json::from_value(object).unwrap())
        };
        let networking = json!({"node": "192.168.77.11", "addressing": [{"ipv4": "10.0.1.5", "ipv6": "fd00::5"}]});
        let row = ingest(json!({"identity": {"id": 300}, "networking": networking,
            "named-ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}))
        .unwrap()
        .unwrap();
        assert_eq!((row.identity, row.host), (IdentityId(300), Some("192.168.77.11".parse().unwrap())));
        assert_eq!(row.named_ports.len(), 1);
        assert_eq!(ingest(json!({"networking": networking})).unwrap(), None);
        assert_eq!(ingest(json!({"identity": {"id": 0}, "networking": networking})).unwrap(), None);
        let of = |networking| ingest(json!({"identity": {"id": 300}, "networking": networking})).unwrap();
        assert_eq!((row.ipv4, row.ipv6), ("10.0.1.5".parse().ok(), "fd00::5".parse().ok()));
        let one_family = of(json!({"node": "", "addressing": [{"ipv4": "", "ipv6": "fd00::5"}]})).unwrap();
        assert_eq!((one_family.ipv4, one_family.ipv6, one_family.host), (None, row.ipv6, None));
        assert_eq!(of(json!({"addressing": [{"ipv4": "10.0.1.5", "ipv6": ""}]})).unwrap().ipv4, row.ipv4);
        assert_eq!(of(json!({"node": "192.168.77.11", "addressing": [{"ipv4": "", "ipv6": ""}]})), None);
        let bad = json!({"addressing": [{"ipv4": "10.0.1"}]});
        assert!(ingest(json!({"identity": {"id": 300}, "networking": bad})).unwrap_err().contains("a/b"));
    }

    #[test]
    fn entries_of_a_group_that_are_no_prefixes_are_left_out_and_named() {
        let object = json!({"metadata": {"name": "g"}, "spec": {"externalCIDRs":
            ["10.0.0.0/33", "10.1.2.3/8", "10.0.0.0/8", "", "fd00::1"]}});
        let group = ingest_cidr_group(&serde_json::from_value(object).unwrap()).unwrap();
        let cidrs: Vec<_> = group.cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(cidrs, ["10.0.0.0/8", "fd00::1/128"]);
        let problems: Vec<_> = group.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            [r#"spec.externalCIDRs[0]: "10.0.0.0/33" is not a prefix"#, r#"spec.externalCIDRs[3]: "" is not a prefix"#,]
        );
    }

    #[test]
    fn api_servers_are_what_stands_behind_the_service_kubernetes_of_the_namespace_default() {
        let ingest = |namespace: &str, service: &str| {
            let meta = json!({"namespace": namespace, "name": "s", "labels": {"kubernetes.io/service-name": service}});
            let endpoints =
                json!([{"addresses": ["192.168.77.12", "192.168.77.11"]}, {"addresses": ["192.168.77.12"]}]);
            let object = json!({"metadata": meta, "addressType": "IPv4", "endpoints": endpoints});
            ingest_api_servers(&serde_json::from_value(object).unwrap()).map(|row| row.addresses)
        };
        let both = ["192.168.77.11", "192.168.77.12"].map(|text| text.parse().unwrap());
        assert_eq!(ingest("default", "kubernetes"), Some(both.to_vec()));
        // Anybody may make such objects elsewhere: they lend nobody the API server's identity.
        assert_eq!(ingest("default", "web"), None);
        assert_eq!(ingest("shop", "kubernetes"), None);
    }
}
