// SPDX-License-Identifier: Apache-2.0
//! Services as objects: many with an address of their own and one endpoint each, and single ones with a node port.

use std::net::IpAddr;
use std::ops::Range;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cluster::{Cluster, NAMESPACE};
use crate::etcd::Stored;
use crate::load::PORT;
use crate::run;

/// Second octets of the cluster's range of Service addresses, 10.96.0.0/12.
const BLOCKS: Range<u8> = 96..112;

/// A part of the range of Service addresses that no other Service has an address of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block(u8);

impl Block {
    pub(crate) fn of(cluster: &Cluster) -> Result<Self> {
        let taken =
            cluster.kubectl(&["get", "services", "--all-namespaces", "-o=jsonpath={.items[*].spec.clusterIP}"])?;
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
    pub(crate) fn services(self, numbers: Range<usize>, backend: IpAddr) -> Result<Vec<Stored>> {
        // The API server takes a claim away that has been there for longer than a minute when its Service comes.
        let now = run::output(Command::new("date").args(["--utc", "+%Y-%m-%dT%H:%M:%SZ"]))?;
        Ok(numbers.flat_map(|number| self.service(number, backend, now.trim())).collect())
    }

    fn service(self, number: usize, backend: IpAddr, now: &str) -> [Stored; 3] {
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
            (format!("ipaddresses/{address}"), made(claim, &format!("a{number:07}"), now)),
            (format!("services/specs/{NAMESPACE}/{name}"), made(service(&name, &spec), &format!("b{number:07}"), now)),
            (format!("endpointslices/{NAMESPACE}/{name}"), made(slice(&name, backend), &format!("c{number:07}"), now)),
        ]
    }
}

/// What the API server adds to an object that it takes in. `id` are eight hexadecimal digits of its own.
fn made(mut object: Value, id: &str, now: &str) -> Value {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.insert("uid".to_owned(), format!("{id}-0000-4000-8000-000000000000").into());
        metadata.insert("creationTimestamp".to_owned(), now.into());
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
        let stored = block.services(7..8, IpAddr::from([10, 244, 1, 2])).unwrap();
        assert_eq!(stored[0].0, "ipaddresses/10.110.0.8");
        assert_eq!(stored[1].1["spec"]["clusterIP"], "10.110.0.8");
        assert_eq!(stored[2].1["metadata"]["labels"]["kubernetes.io/service-name"], stored[1].1["metadata"]["name"]);
    }
}
