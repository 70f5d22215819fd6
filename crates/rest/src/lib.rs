// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

/// Objects of upstream's API, whose fields have upstream's names: a comment only where it says more than the name.
macro_rules! object {
    ($($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident $(= $rename:literal)? : $ty:ty),* $(,)? })+) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
            #[serde(rename_all = "kebab-case", default)]
            pub struct $name {
                $(
                    $(#[$fmeta])*
                    $(#[serde(rename = $rename)])?
                    #[serde(skip_serializing_if = "crate::omit")]
                    pub $field: $ty
                ),*
            }
        )+
    };
}

/// Enumerations of upstream's API, with upstream's names.
macro_rules! names {
    ($($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? })+) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
            pub enum $name {
                $($(#[$vmeta])* #[serde(rename = $text)] $variant),+
            }

            impl $name {
                /// The name in the API.
                #[must_use]
                pub const fn as_str(self) -> &'static str {
                    match self { $(Self::$variant => $text),+ }
                }
            }

            impl crate::Omit for $name {
                fn omit(&self) -> bool {
                    false
                }
            }

            impl std::fmt::Display for $name {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.pad(self.as_str())
                }
            }
        )+
    };
}

mod address;
mod endpoint;
mod features;
mod health;
mod service;
mod socket;
mod status;

pub use address::{ClusterNodes, IpListEntry, IpListEntryMetadata, NodeAddressing, NodeAddressingElement, NodeElement};
pub use endpoint::{
    AddressPair, Endpoint, EndpointConfigurationSpec, EndpointHealth, EndpointHealthStatus, EndpointIdentifiers,
    EndpointNetworking, EndpointPolicy, EndpointPolicyEnabled, EndpointPolicyStatus, EndpointState, EndpointStatus,
    EndpointStatusChange, Identity, L4Policy, LabelConfigurationSpec, LabelConfigurationStatus, PolicyRule, Port,
};
pub use features::{
    AnnotatedFeature, Device, KubeProxyReplacement, KubeProxyReplacementFeatures, Nat46X64, Nat46X64Gateway, NodePort,
    Switch,
};
pub use health::{
    Connectivity, ConnectivityStatus, HealthEndpointStatus, HealthResponse, HealthStatusResponse, HostStatus,
    LoadResponse, NodeStatus, PathStatus, SelfStatus,
};
pub use service::{
    AnnouncedAddress, BackendAddress, ExplainedEndpoint, ExplainedFrontend, FrontendAddress, FrontendMapping,
    LrpBackend, LrpSpec, Service, ServiceExplanation, ServiceFlags, ServiceSpec, ServiceStatus,
};
pub use socket::listen;
pub use status::{
    BandwidthManager, BigTcp, BpfMap, BpfMapStatus, ClockSource, ClusterMeshStatus, ClusterStatus, CniChainingStatus,
    ControllerConfiguration, ControllerRun, ControllerStatus, EncryptionStatus, HostFirewall, HubbleObserver,
    HubbleStatus, IdentityRange, IpamStatus, K8sStatus, Masquerading, MonitorStatus, Protocols, ProxyStatus,
    RemoteCluster, Routing, Srv6, State, Status, StatusResponse,
};

/// Tells which values the API leaves out.
trait Omit {
    /// Whether this value is left out: it is the zero value of its type.
    fn omit(&self) -> bool;
}

fn omit<T: Omit>(value: &T) -> bool {
    value.omit()
}

macro_rules! omit_default {
    ($($ty:ty),+) => { $(impl Omit for $ty { fn omit(&self) -> bool { *self == Self::default() } })+ };
}

omit_default!(bool, u16, u32, u64, i64, f64, String);

impl<T> Omit for Option<T> {
    fn omit(&self) -> bool {
        self.is_none()
    }
}

impl<T> Omit for Vec<T> {
    fn omit(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Omit for std::collections::BTreeMap<K, V> {
    fn omit(&self) -> bool {
        self.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_values_are_left_out_and_keys_are_the_published_ones() {
        let status = StatusResponse {
            cilium: Some(Status { state: State::Ok, msg: "1.0".to_owned() }),
            node_monitor: Some(MonitorStatus { cpus: 2, ..MonitorStatus::default() }),
            identity_range: Some(IdentityRange { min_identity: 256, max_identity: 65535 }),
            ipv4_big_tcp: Some(BigTcp::default()),
            hubble: Some(HubbleStatus::default()),
            ..StatusResponse::default()
        };
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(
            json,
            r#"{"cilium":{"state":"Ok","msg":"1.0"},"hubble":{"state":"Disabled"},"nodeMonitor":{"cpus":2},"identity-range":{"min-identity":256,"max-identity":65535},"ipv4-big-tcp":{}}"#
        );
        assert_eq!(serde_json::from_str::<StatusResponse>(&json).unwrap(), status);
    }

    #[test]
    fn an_endpoint_keeps_the_mixed_key_style_of_the_schema() {
        let endpoint = Endpoint {
            id: 7,
            status: Some(EndpointStatus {
                state: EndpointState::Ready,
                identity: Some(Identity { id: 300, labels: vec!["k8s:a=b".to_owned()], labels_sha256: "x".to_owned() }),
                named_ports: vec![Port { protocol: "TCP".to_owned(), port: 80, name: "http".to_owned() }],
                ..EndpointStatus::default()
            }),
            ..Endpoint::default()
        };
        let json = serde_json::to_value(&endpoint).unwrap();
        assert_eq!(json["status"]["identity"]["labelsSHA256"], "x");
        assert_eq!(json["status"]["namedPorts"][0]["port"], 80);
        assert_eq!(json["status"]["state"], "ready");
    }
}
