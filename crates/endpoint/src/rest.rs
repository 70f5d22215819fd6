// SPDX-License-Identifier: Apache-2.0
//! Objects of the agent's REST API exchanged only between the CNI plugin and the agent. Those that tools read as well
//! are in [`rest`].

use model::Mac;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct AddressPair {
    /// IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// Names the lease on the IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_expiration_uuid: Option<String>,
    /// Pool of the IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_pool_name: Option<String>,
    /// IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// Names the lease on the IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_expiration_uuid: Option<String>,
    /// Pool of the IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_pool_name: Option<String>,
}

impl AddressPair {
    /// The addresses that it holds, IPv6 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv6.map(IpAddr::V6).into_iter().chain(self.ipv4.map(IpAddr::V4))
    }
}

/// The node's address of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct NodeAddressingElement {
    /// Whether the family is in use.
    pub enabled: bool,
    /// Address of the pods' gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Prefix from which pods get addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alloc_range: Option<String>,
}

/// The node's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeAddressing {
    pub ipv4: NodeAddressingElement,
    pub ipv6: NodeAddressingElement,
}

/// One allocated address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IpamAddressResponse {
    /// The address.
    pub ip: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Names the lease: without an endpoint that uses it, the address is released when the lease ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_uuid: Option<String>,
}

/// Answer to `POST /ipam`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct IpamResponse {
    /// The addresses.
    pub address: AddressPair,
    /// Details of the IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<IpamAddressResponse>,
    /// Details of the IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<IpamAddressResponse>,
    /// The node's addresses.
    pub host_addressing: NodeAddressing,
}

/// A flag per family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Protocols {
    pub ipv4: bool,
    pub ipv6: bool,
}

/// Answer to `GET /config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonConfigurationStatus {
    /// The node's addresses.
    pub addressing: NodeAddressing,
    /// MTU of pods' interfaces.
    #[serde(rename = "deviceMTU")]
    pub device_mtu: u32,
    /// MTU of pods' routes.
    #[serde(rename = "routeMTU")]
    pub route_mtu: u32,
    /// Kind of pod interface.
    #[serde(rename = "datapathMode")]
    pub datapath_mode: String,
    /// Address management mode.
    #[serde(rename = "ipam-mode")]
    pub ipam_mode: String,
    /// Whether traffic that leaves the cluster is masqueraded.
    pub masquerade: bool,
    /// For which families.
    #[serde(rename = "masqueradeProtocols")]
    pub masquerade_protocols: Protocols,
    /// Ports that pods must not use as local ports.
    #[serde(rename = "ipLocalReservedPorts", skip_serializing_if = "String::is_empty")]
    pub ip_local_reserved_ports: String,
    /// The agent's configuration, key by key.
    #[serde(rename = "daemonConfigurationMap")]
    pub daemon_configuration_map: BTreeMap<String, String>,
}

/// Body of `PUT /endpoint/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EndpointChangeRequest {
    /// Container id of the sandbox.
    pub container_id: String,
    /// Path of the network namespace.
    pub container_netns_path: String,
    /// Cookie of the network namespace, in decimal; empty if it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub netns_cookie: String,
    /// Interface name inside the pod.
    pub container_interface_name: String,
    /// Name of the host side.
    pub interface_name: String,
    /// Interface index of the host side.
    pub interface_index: u32,
    /// Hardware address inside the pod.
    pub mac: Option<Mac>,
    /// Hardware address of the host side.
    pub host_mac: Option<Mac>,
    /// Addresses.
    pub addressing: AddressPair,
    pub k8s_pod_name: String,
    /// Namespace of the pod.
    pub k8s_namespace: String,
    /// UID of the pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub k8s_uid: String,
    /// State requested by the caller.
    pub state: String,
    /// Whether to respond only once the endpoint can be used.
    pub sync_build_endpoint: bool,
}

/// Body of `DELETE /endpoint`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct EndpointBatchDeleteRequest {
    /// Container id of the sandbox.
    pub container_id: String,
}
