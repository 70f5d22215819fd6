// SPDX-License-Identifier: Apache-2.0
//! What Ingresses say in annotations, each by two names.

use super::IngressConfig;
use std::collections::BTreeMap;

const NAMES: [&str; 2] = ["ingress.cilium.io/", "io.cilium.ingress/"];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Annotations {
    pub(super) shared: bool,
    pub(super) load_balancer_class: Option<String>,
    pub(super) service_type: Option<String>,
    pub(super) external_traffic_policy: Option<String>,
    pub(super) passthrough: bool,
    pub(super) force_https: bool,
    /// As GEP-2257 has it.
    pub(super) request_timeout: Option<String>,
    /// At the nodes' own addresses.
    pub(super) host_port: Option<u16>,
    /// For the Service.
    pub(super) copied: BTreeMap<String, String>,
}

impl Annotations {
    pub(super) fn read<'a>(
        config: &IngressConfig,
        given: impl Iterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, String> {
        let mut read = Self { shared: config.shared, force_https: config.enforce_https, ..Self::default() };
        for (name, value) in given {
            if config.copied.iter().any(|prefix| name.starts_with(prefix.as_str())) {
                read.copied.insert(name.clone(), value.clone());
            }
            let short = NAMES.iter().find_map(|prefix| name.strip_prefix(prefix));
            let bad = |wanted: &str| format!("annotation {name}: {value:?} is not {wanted}");
            match short {
                Some("loadbalancer-mode") => {
                    read.shared = match value.as_str() {
                        "shared" => true,
                        "dedicated" => false,
                        _ => return Err(bad("shared or dedicated")),
                    };
                }
                Some("loadbalancer-class") => read.load_balancer_class = Some(value.clone()),
                Some("service-type") => {
                    read.service_type = Some(one_of(value, ["LoadBalancer", "NodePort"]).map_err(bad)?)
                }
                Some("service-external-traffic-policy") => {
                    read.external_traffic_policy = Some(one_of(value, ["Cluster", "Local"]).map_err(bad)?);
                }
                Some("tls-passthrough") => {
                    read.passthrough = switch(value).ok_or_else(|| bad("enabled or disabled"))?
                }
                Some("host-listener-port") => {
                    let port = value.parse().ok().filter(|port| *port > 0);
                    read.host_port = Some(port.ok_or_else(|| bad("the number of a port"))?);
                }
                Some("force-https") => read.force_https = switch(value).ok_or_else(|| bad("enabled or disabled"))?,
                Some("request-timeout") => read.request_timeout = Some(value.clone()).filter(|value| value != "0"),
                _ => {}
            }
        }
        Ok(read)
    }
}

fn one_of(value: &str, known: [&'static str; 2]) -> Result<String, &'static str> {
    let words = if known.contains(&"Local") { "Cluster or Local" } else { "LoadBalancer or NodePort" };
    known.contains(&value).then(|| value.to_owned()).ok_or(words)
}

fn switch(value: &str) -> Option<bool> {
    match value {
        "enabled" | "true" => Some(true),
        "disabled" | "false" => Some(false),
        _ => None,
    }
}
