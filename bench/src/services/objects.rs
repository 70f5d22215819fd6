// SPDX-License-Identifier: Apache-2.0
//! Services as objects: many with an address of their own and one endpoint each, and single ones with a node port.

use std::net::IpAddr;
use std::ops::Range;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cluster::{Cluster, NAMESPACE};
use crate::etcd::Stored;
use crate::load::PORT;

/// Second octets of the cluster's range of Service addresses, 10.96.0.0/12.
const BLOCKS: Range<u8> = 96..112;
const MADE: &str = "2026-01-01T00:00:00Z";

/// A part of the range of Service addresses that no other Service has an address of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block(u8);

impl Block {
    pub(crate) fn of(cluster: &Cluster) -> Result<Self> {
        let taken = cluster.kubectl(&["get", "services", "--all-namespaces", "-o=jsonpath={.items[*].spec.clusterIP}"])?;
        Self::beside(&taken).context("Services have addresses everywhere")
    }

    fn beside(taken: &str) -> Option<Self> {
        let is_free = |block: &u8| !taken.split_whitespace().any(|ip| ip.starts_with(&format!("10.{block}.")));
        BLOCKS.rev().find(is_free).map(Self)
    }

    /// The address of a numbered Service.
    pub(crate) fn address(self, number: usize) -> IpAddr {
        let [.., high, low] = (number + 1).to_be_bytes();
        IpAddr::from([10, self.0, high, low])
    }

    /// Numbered Services without a selector, complete, each with its claim of an address and an endpoint.
    pub(crate) fn services(self, numbers: Range<usize>, backend: IpAddr) -> Vec<Stored> {
        numbers.flat_map(|number| self.service(number, backend)).collect()
    }

    fn service(self, number: usize, backend: IpAddr) -> [Stored; 3] {
        let (name, address) = (format!("s{number:06}"), self.address(number).to_string());
        let spec = json!({
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [{"port": PORT, "protocol": "TCP", "targetPort": PORT}],
        });
        let claim = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {
                "name": address,
                "labels": {
                    "ipaddress.kubernetes.io/ip-family": "IPv4",
                    "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
                },
            },
            "spec": {"parentRef": {"resource": "services", "namespace": NAMESPACE, "name": name}},
        });
        [
            (format!("ipaddresses/{address}"), made(claim, 'a', number)),
            (format!("services/specs/{NAMESPACE}/{name}"), made(service(&name, &spec), 'b', number)),
            (format!("endpointslices/{NAMESPACE}/{name}"), made(slice(&name, backend), 'c', number)),
        ]
    }
}

/// What the API server adds to an object that it takes in; `kind` tells those of one number apart.
fn made(mut object: Value, kind: char, number: usize) -> Value {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.insert("uid".to_owned(), format!("{kind}0000000-0000-4000-8000-{number:012}").into());
        metadata.insert("creationTimestamp".to_owned(), MADE.into());
    }
    object
}

/// A Service without a selector.
pub(crate) fn service(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
}

/// Its one endpoint.
pub(crate) fn slice(service: &str, backend: IpAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": service, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "", "port": PORT, "protocol": "TCP"}],
        "endpoints": [{"addresses": [backend.to_string()], "conditions": {"ready": true}}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_an_address_that_no_other_has() {
        let block = Block::beside("10.96.0.1 None 10.96.0.10 10.111.7.8").unwrap();
        assert_eq!(block.address(0), IpAddr::from([10, 110, 0, 1]));
        assert_eq!(block.address(29_999), IpAddr::from([10, 110, 117, 48]));
        let stored = block.services(7..8, IpAddr::from([10, 244, 1, 2]));
        assert_eq!(stored[0].0, "ipaddresses/10.110.0.8");
        assert_eq!(stored[1].1["spec"]["clusterIP"], "10.110.0.8");
        assert_eq!(stored[2].1["metadata"]["labels"]["kubernetes.io/service-name"], stored[1].1["metadata"]["name"]);
    }
}
