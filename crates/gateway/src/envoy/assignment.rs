// SPDX-License-Identifier: Apache-2.0
//! Addresses that are written down. Only pods are sent to: policy has no say in who reaches anything else by way of the proxy.

use super::fields::{Fields, Node, Result};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// Addresses that a cluster may have.
const ADDRESSES: usize = 256;

/// The addresses of a `ClusterLoadAssignment`, without its type.
pub(super) fn resolve(mut fields: Fields<'_>) -> Result<BTreeSet<SocketAddr>> {
    fields.skip(&["cluster_name"]);
    let mut addresses = BTreeSet::new();
    for locality in fields.items("endpoints")? {
        let mut locality = locality.fields()?;
        locality.skip(&["locality", "proximity", "metadata"]);
        locality.ignore(&["load_balancing_weight"]);
        if let Some(priority) = locality.take("priority")
            && priority.number::<u32>()? > 0
        {
            return priority.fault("endpoints that wait until others fail are not supported");
        }
        for endpoint in locality.items("lb_endpoints")? {
            addresses.insert(lb_endpoint(&endpoint)?);
        }
        locality.end()?;
    }
    if addresses.len() > ADDRESSES {
        return fields.fault(format_args!("has more than {ADDRESSES} addresses"));
    }
    fields.end()?;
    Ok(addresses)
}

fn lb_endpoint(node: &Node<'_>) -> Result<SocketAddr> {
    let mut fields = node.fields()?;
    fields.skip(&["metadata"]);
    fields.ignore(&["load_balancing_weight"]);
    if let Some(health) = fields.take("health_status")
        && !matches!(health.text()?, "UNKNOWN" | "HEALTHY")
    {
        return health.fault("who is not healthy is not to be listed");
    }
    let mut endpoint = fields.required("endpoint")?.fields()?;
    fields.end()?;
    endpoint.skip(&["hostname"]);
    endpoint.ignore(&["health_check_config"]);
    let mut address = endpoint.required("address")?.fields()?;
    endpoint.end()?;
    let socket = address.required("socket_address")?.fields()?;
    address.end()?;
    socket_address(socket)
}

fn socket_address(mut fields: Fields<'_>) -> Result<SocketAddr> {
    if let Some(protocol) = fields.take("protocol")
        && protocol.text()? != "TCP"
    {
        return protocol.fault("is not TCP");
    }
    let address = fields.required("address")?;
    let port = fields.required("port_value")?;
    fields.end()?;
    let Some(ip) = address.text()?.parse::<IpAddr>().ok().filter(may_be_a_pods) else {
        return address.fault("is no address that a pod can have");
    };
    match port.number::<u16>()? {
        0 => port.fault("is no port"),
        number => Ok(SocketAddr::new(ip, number)),
    }
}

/// The node's own addresses and those that mean this machine, this link or many are nobody's to name. Of the others, those count that a pod
/// has when it is asked.
fn may_be_a_pods(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let here = ip.is_loopback() || ip.is_link_local() || ip.octets().starts_with(&[0]);
            !(here || ip.is_multicast() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => {
            let here = ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local();
            !(here || ip.is_multicast() || ip.to_ipv4_mapped().is_some())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::fields::Reading;
    use super::*;
    use serde_json::{Value, json};

    fn written(endpoints: &Value) -> Result<BTreeSet<SocketAddr>> {
        let reading = Reading::default();
        let value = json!({"cluster_name": "c", "endpoints": endpoints});
        resolve(Node { reading: &reading, path: "r".into(), value: &value }.fields().unwrap())
    }

    fn at(address: &str) -> Value {
        json!({"endpoint": {"address": {"socket_address": {"address": address, "port_value": 80}}}})
    }

    #[test]
    fn addresses_that_no_pod_has_are_refused_by_their_field() {
        let field = "r.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address";
        for address in [
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "example.org",
            "",
        ] {
            let fault = written(&json!([{"lb_endpoints": [at(address)]}])).unwrap_err();
            assert_eq!(fault.0, format!("{field}: is no address that a pod can have"), "{address}");
        }
        let all = json!([{"lb_endpoints": [at("10.0.0.1"), at("fd00::1")]}, {"lb_endpoints": [at("10.0.0.1")]}]);
        let wanted = ["10.0.0.1:80", "[fd00::1]:80"].map(|address| address.parse().unwrap());
        assert_eq!(written(&all), Ok(BTreeSet::from(wanted)));
    }

    #[test]
    fn what_would_send_to_others_than_are_listed_is_refused() {
        let changed = |change: fn(&mut Value)| {
            let mut endpoints = json!([{"lb_endpoints": [at("10.0.0.1")]}]);
            change(&mut endpoints);
            written(&endpoints)
        };
        assert!(changed(|_| ()).is_ok());
        let changes: [fn(&mut Value); 6] = [
            |all| all[0]["priority"] = json!(1),
            |all| all[0]["lb_endpoints"][0]["health_status"] = json!("DRAINING"),
            |all| all[0]["lb_endpoints"][0]["endpoint"]["additional_addresses"] = json!([]),
            |all| all[0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["protocol"] = json!("UDP"),
            |all| all[0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] = json!(0),
            |all| all[0]["lb_endpoints"] = (0..257).map(|n| at(&format!("10.0.{}.{}", n / 100, n % 100))).collect(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(changed(change).is_err(), "{number}");
        }
    }
}
