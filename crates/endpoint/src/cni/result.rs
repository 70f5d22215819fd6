// SPDX-License-Identifier: Apache-2.0
//! The answer to ADD, in the form of each version of the specification.

use super::version::Version;
use model::Mac;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// What ADD made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Added {
    /// Name of the host side.
    pub(super) host_interface: String,
    /// Hardware address of the host side.
    pub(super) host_mac: Mac,
    /// Interface name inside of the pod.
    pub(super) interface: String,
    /// Hardware address inside of the pod.
    pub(super) mac: Mac,
    /// Path of the pod's network namespace.
    pub(super) netns: String,
    /// MTU of both sides.
    pub(super) mtu: u32,
    /// Address and gateway; IPv6 first.
    pub(super) addresses: Vec<(IpAddr, IpAddr)>,
}

impl Added {
    /// As the version writes it.
    pub(super) fn to_json(&self, version: Version) -> Value {
        if version < Version::V0_3_0 { self.first_form(version) } else { self.list_form(version) }
    }

    /// 0.1.0 and 0.2.0: one address of each family, and no interfaces.
    fn first_form(&self, version: Version) -> Value {
        let mut answer = Map::from_iter([("cniVersion".to_owned(), json!(version)), ("dns".to_owned(), json!({}))]);
        for (ip, gateway) in &self.addresses {
            let key = if ip.is_ipv4() { "ip4" } else { "ip6" };
            let routes: Vec<_> = routes(*gateway).map(|(dst, gw)| route(dst, gw)).collect();
            answer.insert(key.to_owned(), json!({"ip": host_prefix(*ip), "gateway": gateway, "routes": routes}));
        }
        Value::Object(answer)
    }

    /// From 0.3.0 on: lists of interfaces, addresses and routes.
    fn list_form(&self, version: Version) -> Value {
        let mut host = json!({"name": self.host_interface, "mac": self.host_mac});
        let mut pod = json!({"name": self.interface, "mac": self.mac, "sandbox": self.netns});
        if version >= Version::V1_1_0 {
            for side in [&mut host, &mut pod] {
                set(side, "mtu", json!(self.mtu));
            }
        }
        let ips: Vec<_> = self
            .addresses
            .iter()
            .map(|(ip, gateway)| {
                let mut entry = json!({"interface": 1, "address": host_prefix(*ip), "gateway": gateway});
                if version < Version::V1_0_0 {
                    set(&mut entry, "version", json!(if ip.is_ipv4() { "4" } else { "6" }));
                }
                entry
            })
            .collect();
        let routes: Vec<_> =
            self.addresses.iter().flat_map(|(_, gateway)| routes(*gateway)).map(|(dst, gw)| route(dst, gw)).collect();
        json!({"cniVersion": version, "interfaces": [host, pod], "ips": ips, "routes": routes, "dns": {}})
    }
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(key.to_owned(), value);
    }
}

/// The gateway on the link, and everything else through it.
fn routes(gateway: IpAddr) -> impl Iterator<Item = (String, Option<IpAddr>)> {
    let all = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    [(host_prefix(gateway), None), (all.to_owned(), Some(gateway))].into_iter()
}

fn route(dst: String, gateway: Option<IpAddr>) -> Value {
    match gateway {
        Some(gateway) => json!({"dst": dst, "gw": gateway}),
        None => json!({"dst": dst}),
    }
}

fn host_prefix(ip: IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn added() -> Added {
        Added {
            host_interface: "lxc0123456789ab".into(),
            host_mac: "02:00:00:00:00:01".parse().unwrap(),
            interface: "eth0".into(),
            mac: "02:00:00:00:00:02".parse().unwrap(),
            netns: "/run/netns/pod".into(),
            mtu: 1500,
            addresses: vec![
                ("fd00::2".parse().unwrap(), "fd00::1".parse().unwrap()),
                ("10.0.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap()),
            ],
        }
    }

    #[test]
    fn the_answer_has_the_form_of_each_version() {
        let mut text = String::new();
        for version in Version::ALL {
            writeln!(text, "{version}\n{:#}\n", added().to_json(version)).unwrap();
        }
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/cni_results.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(golden, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(golden).unwrap());
    }
}
