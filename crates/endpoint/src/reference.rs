// SPDX-License-Identifier: Apache-2.0
//! The names by which API requests refer to an endpoint.

use model::{Endpoint, EndpointId, PodName};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Container id and interface name: what a container runtime calls an attachment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentId {
    /// Container id of the sandbox.
    pub container_id: String,
    /// Interface name inside the pod.
    pub interface: String,
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.container_id, self.interface)
    }
}

/// An endpoint by one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointRef {
    /// `cilium-local:N`, `cilium-global:CLUSTER:NODE:N` or a bare number.
    Local(EndpointId),
    /// `cni-attachment-id:CONTAINER:INTERFACE`.
    Attachment(AttachmentId),
    /// `container-id:ID`.
    Container(String),
    /// `pod-name:NAMESPACE:NAME` (also with a slash) or `cep-name:...`.
    Pod(PodName),
    /// `ipv4:ADDRESS`.
    Ipv4(Ipv4Addr),
    /// `ipv6:ADDRESS`.
    Ipv6(Ipv6Addr),
}

impl EndpointRef {
    /// Whether the endpoint has this name.
    #[must_use]
    pub fn matches(&self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Local(id) => endpoint.id == *id,
            Self::Attachment(id) => endpoint.interface == id.interface && is_of(endpoint, &id.container_id),
            Self::Container(id) => is_of(endpoint, id),
            Self::Pod(name) => endpoint.pod() == Some(name),
            Self::Ipv4(ip) => endpoint.ipv4 == Some(*ip),
            Self::Ipv6(ip) => endpoint.ipv6 == Some(*ip),
        }
    }
}

/// Whether the endpoint belongs to that container. The container of one recovered from the kernel is unknown, but its
/// interface name was derived from it.
fn is_of(endpoint: &Endpoint, container_id: &str) -> bool {
    if !endpoint.container_id.is_empty() {
        return endpoint.container_id == container_id;
    }
    let interface = endpoint.interface.clone();
    let attachment = AttachmentId { container_id: container_id.to_owned(), interface };
    endpoint.host_interface == crate::cni::host_interface(&attachment)
}

/// The text is not the name of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no endpoint: want a number, cilium-local:N, cni-attachment-id:CONTAINER:INTERFACE, container-id:ID, \
     pod-name:NAMESPACE:NAME, cep-name:NAMESPACE:NAME, ipv4:ADDRESS or ipv6:ADDRESS"
)]
pub struct ParseRefError(String);

impl FromStr for EndpointRef {
    type Err = ParseRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseRefError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<EndpointRef> {
    let Some((prefix, rest)) = text.split_once(':') else { return local(text) };
    match prefix {
        "cilium-local" => local(rest),
        "cilium-global" => local(rest.rsplit_once(':')?.1),
        "cni-attachment-id" => {
            let (container, interface) = rest.split_once(':')?;
            let id = AttachmentId { container_id: container.to_owned(), interface: interface.to_owned() };
            (!container.is_empty() && !interface.is_empty()).then_some(EndpointRef::Attachment(id))
        }
        "container-id" => (!rest.is_empty()).then(|| EndpointRef::Container(rest.to_owned())),
        "pod-name" | "cep-name" => {
            let (namespace, name) = rest.split_once([':', '/'])?;
            (!namespace.is_empty() && !name.is_empty()).then(|| EndpointRef::Pod(PodName::new(namespace, name)))
        }
        "ipv4" => rest.parse().ok().map(EndpointRef::Ipv4),
        "ipv6" => rest.parse().ok().map(EndpointRef::Ipv6),
        _ => None,
    }
}

fn local(text: &str) -> Option<EndpointRef> {
    text.parse().ok().filter(|id| *id != 0).map(|id| EndpointRef::Local(EndpointId(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_of_the_contract_is_understood() {
        let parse = |text: &str| text.parse::<EndpointRef>().unwrap();
        assert_eq!(parse("17"), EndpointRef::Local(EndpointId(17)));
        assert_eq!(parse("cilium-local:17"), EndpointRef::Local(EndpointId(17)));
        assert_eq!(parse("cilium-global:default:n1:17"), EndpointRef::Local(EndpointId(17)));
        let id = AttachmentId { container_id: "abc".into(), interface: "eth0".into() };
        assert_eq!(parse("cni-attachment-id:abc:eth0"), EndpointRef::Attachment(id));
        assert_eq!(parse("container-id:abc"), EndpointRef::Container("abc".into()));
        assert_eq!(parse("pod-name:a:b"), EndpointRef::Pod(PodName::new("a", "b")));
        assert_eq!(parse("pod-name:a/b"), EndpointRef::Pod(PodName::new("a", "b")));
        assert_eq!(parse("cep-name:a:b"), EndpointRef::Pod(PodName::new("a", "b")));
        assert_eq!(parse("ipv4:10.0.0.1"), EndpointRef::Ipv4(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(parse("ipv6:fd00::1"), EndpointRef::Ipv6("fd00::1".parse().unwrap()));
    }

    #[test]
    fn nonsense_names_no_endpoint() {
        for bad in [
            "",
            "0",
            "65536",
            "x",
            "cni-attachment-id:abc",
            "cni-attachment-id::eth0",
            "pod-name:a",
            "ipv4:fd00::1",
            "ipv7:1",
        ] {
            assert!(bad.parse::<EndpointRef>().is_err(), "{bad}");
        }
    }
}
