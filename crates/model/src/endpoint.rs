// SPDX-License-Identifier: Apache-2.0
//! Pods of this node as the datapath knows them. One row per pod of the node.

use crate::{IdentityId, PodName, PolicyId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Number of an endpoint, unique on its node; also its slot in the table of policy epochs. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointId(pub u16);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A hardware address (IEEE 802, EUI-48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not a hardware address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a hardware address: want six hexadecimal bytes with colons between")]
pub struct ParseMacError(String);

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseMacError(text.to_owned());
        let bytes: Vec<u8> =
            text.split(':').map(|b| u8::from_str_radix(b, 16)).collect::<Result<_, _>>().map_err(|_| error())?;
        bytes.try_into().map(Self).map_err(|_| error())
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What has an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OnDisk", into = "OnDisk")]
pub enum EndpointKind {
    /// A pod, by namespace and name, and the UID it was created for.
    Pod {
        /// Namespace and name.
        name: PodName,
        uid: String,
    },
    /// The node's health endpoint, probed by other nodes like a pod. No container runtime knows about it.
    Health,
}

/// [`EndpointKind`] as stored on disk.
#[derive(Serialize, Deserialize)]
struct OnDisk {
    pod: Option<PodName>,
    pod_uid: String,
}

impl From<OnDisk> for EndpointKind {
    fn from(OnDisk { pod, pod_uid }: OnDisk) -> Self {
        pod.map_or(Self::Health, |name| Self::Pod { name, uid: pod_uid })
    }
}

impl From<EndpointKind> for OnDisk {
    fn from(kind: EndpointKind) -> Self {
        match kind {
            EndpointKind::Pod { name, uid } => Self { pod: Some(name), pod_uid: uid },
            EndpointKind::Health => Self { pod: None, pod_uid: String::new() },
        }
    }
}

/// An interface of this node at which policy is enforced. This is also what is stored on disk for a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its id on this node.
    pub id: EndpointId,
    /// What it belongs to.
    #[serde(flatten)]
    pub kind: EndpointKind,
    /// Container id of the sandbox.
    pub container_id: String,
    /// Interface name inside the pod.
    pub interface: String,
    /// Path of the pod's network namespace.
    pub netns: String,
    /// Cookie of that namespace, by which programs know it; 0 if it is not known, as of an endpoint of an older plugin.
    #[serde(default)]
    pub netns_cookie: u64,
    /// Name of the host side of the veth pair.
    pub host_interface: String,
    /// Interface index of the host side.
    pub host_ifindex: u32,
    /// Hardware address inside the pod.
    pub mac: Mac,
    /// Hardware address of the host side.
    pub host_mac: Mac,
    /// IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

impl Endpoint {
    /// Owner of the health endpoint's addresses.
    pub const HEALTH: &str = "health";

    /// Its owner, for people and for IPAM: `namespace/name` of the pod, or [`HEALTH`](Self::HEALTH).
    #[must_use]
    pub fn owner(&self) -> String {
        self.pod().map_or_else(|| Self::HEALTH.to_owned(), ToString::to_string)
    }

    /// The pod, if it belongs to one.
    #[must_use]
    pub const fn pod(&self) -> Option<&PodName> {
        match &self.kind {
            EndpointKind::Pod { name, .. } => Some(name),
            EndpointKind::Health => None,
        }
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

impl statedb::Row for Endpoint {
    type Key = EndpointId;
    fn key(&self) -> EndpointId {
        self.id
    }
}

/// The policy of an endpoint of this node. A row exists only once its entries are in the kernel: it is the permission
/// to attach the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPolicy {
    pub endpoint: EndpointId,
    pub identity: IdentityId,
    /// The compiled policy that applies.
    pub policy: PolicyId,
    /// Whether ingress is denied unless allowed.
    pub ingress_enforced: bool,
    /// Whether egress is denied unless allowed.
    pub egress_enforced: bool,
    /// Revision of the policy repository that is in force.
    pub revision: u64,
}

impl statedb::Row for EndpointPolicy {
    type Key = EndpointId;
    fn key(&self) -> EndpointId {
        self.endpoint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_releases_wrote_to_disk_reads_back() {
        let text = r#"{"id": 7, "pod": {"namespace": "shop", "name": "web"}, "pod_uid": "u", "container_id": "c", "interface": "eth0",
            "netns": "/n", "host_interface": "lxc1", "host_ifindex": 3, "mac": "0a:1b:2c:00:ff:10", "host_mac": "0a:1b:2c:00:ff:11",
            "ipv4": "10.0.0.1", "ipv6": null}"#;
        let endpoint: Endpoint = serde_json::from_str(text).unwrap();
        let name = PodName::new("shop", "web");
        assert_eq!(endpoint.kind, EndpointKind::Pod { name: name.clone(), uid: "u".into() });
        assert_eq!((endpoint.pod(), endpoint.owner().as_str()), (Some(&name), "shop/web"));
        let mut written: serde_json::Value = serde_json::from_str(text).unwrap();
        written["netns_cookie"] = 0.into();
        assert_eq!(serde_json::to_value(&endpoint).unwrap(), written);
        let health = Endpoint { kind: EndpointKind::Health, ..endpoint };
        assert_eq!(serde_json::from_value::<Endpoint>(serde_json::to_value(&health).unwrap()).unwrap(), health);
    }

    #[test]
    fn a_hardware_address_reads_back_and_nonsense_does_not() {
        assert_eq!("0a:1b:2c:00:ff:10".parse::<Mac>().unwrap().to_string(), "0a:1b:2c:00:ff:10");
        for bad in ["", "0a:1b", "0a:1b:2c:00:ff:10:11", "zz:1b:2c:00:ff:10"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
