// SPDX-License-Identifier: Apache-2.0
//! Services for people: the model of the agent's API (contracts L.5), and the maps as `cilium-dbg bpf lb list` shows
//! them (contracts H.7).

use crate::Maps;
use crate::encode;
use abi::lb;
use model::{Frontend, L4Addr};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// `Service` of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// What is wanted.
    pub spec: ServiceSpec,
    /// What is in the maps.
    pub status: ServiceStatus,
}

/// `ServiceStatus` of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceStatus {
    /// What is in the maps.
    pub realized: ServiceSpec,
}

/// `ServiceSpec` of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceSpec {
    /// Number in the maps.
    pub id: u32,
    /// Where clients connect to.
    pub frontend_address: FrontendAddress,
    /// Where they end.
    pub backend_addresses: Vec<BackendAddress>,
    /// What kind of frontend.
    pub flags: Flags,
}

/// `FrontendAddress` of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FrontendAddress {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol in lower case.
    pub protocol: String,
    /// For which clients.
    pub scope: &'static str,
}

/// `BackendAddress` of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendAddress {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol in upper case.
    pub protocol: String,
    /// Its node, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// `active` or `terminating`.
    pub state: &'static str,
}

/// Flags of a `ServiceSpec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flags {
    /// Kind of frontend.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the Service.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Traffic policy.
    pub traffic_policy: &'static str,
}

/// All frontends, by number.
#[must_use]
pub fn services(frontends: &statedb::Snapshot<Frontend>) -> Vec<Service> {
    let by_id: BTreeMap<u32, ServiceSpec> = frontends.iter().map(|row| (row.id, spec(row))).collect();
    by_id.into_values().map(|spec| Service { status: ServiceStatus { realized: spec.clone() }, spec }).collect()
}

fn spec(row: &Frontend) -> ServiceSpec {
    let backend = |b: &model::Backend| BackendAddress {
        ip: b.addr.ip,
        port: b.addr.port,
        protocol: b.addr.protocol.to_string(),
        node_name: b.node.as_deref().map(str::to_owned),
        state: if b.active { "active" } else { "terminating" },
    };
    ServiceSpec {
        id: row.id,
        frontend_address: FrontendAddress {
            ip: row.addr.ip,
            port: row.addr.port,
            protocol: row.addr.protocol.to_string().to_lowercase(),
            scope: "external",
        },
        backend_addresses: row.backends.iter().map(backend).collect(),
        flags: Flags {
            kind: row.kind.to_string(),
            name: row.service.name.to_string(),
            namespace: row.service.namespace.to_string(),
            traffic_policy: "Cluster",
        },
    }
}

/// A line of `cilium-dbg bpf lb list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LbEntry {
    /// Frontend and slot; slot 0 stands for the frontend itself.
    pub service: String,
    /// Backend, number of the service, slot; for the frontend itself its kind.
    pub backend: String,
}

/// What the maps hold, by address of the frontend.
///
/// # Errors
///
/// A map cannot be read.
pub fn lb_list(maps: &Maps) -> datapath::Result<Vec<LbEntry>> {
    let slots: BTreeMap<_, _> = maps.slots.entries()?.into_iter().collect();
    let backends: BTreeMap<_, _> = maps.backends.entries()?.into_iter().collect();
    let services: BTreeMap<_, _> =
        maps.services.entries()?.into_iter().filter_map(|(k, v)| Some((encode::frontend_addr(&k)?, v))).collect();
    let mut lines = Vec::new();
    for (addr, service) in services {
        lines.push(head(&addr, &service));
        for slot in 0..service.count {
            let backend = slots.get(&encode::slot_key(service.id, slot)).and_then(|id| backends.get(id));
            let text = backend.and_then(encode::backend_addr).map_or_else(|| "(missing)".to_owned(), |a| a.to_string());
            let number = slot.saturating_add(1);
            lines.push(LbEntry {
                service: format!("{addr} ({number})"),
                backend: format!("{text} ({}) ({number})", service.id),
            });
        }
    }
    Ok(lines)
}

fn head(addr: &L4Addr, service: &lb::Service) -> LbEntry {
    let none = if addr.ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let kind = if service.flags & lb::flags::CLUSTER_IP != 0 { "ClusterIP, non-routable" } else { "unknown" };
    LbEntry { service: format!("{addr} (0)"), backend: format!("{none} ({}) (0) [{kind}]", service.id) }
}
