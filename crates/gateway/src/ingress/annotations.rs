// SPDX-License-Identifier: Apache-2.0
//! What Ingresses say in annotations, each by two names.

use super::IngressConfig;
use crate::duration;
use crate::source::NodePorts;
use std::collections::BTreeMap;
use std::time::Duration;

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
    pub(super) request_timeout: Option<Duration>,
    /// Ports of nodes that lead to those without and with TLS.
    pub(super) node_ports: NodePorts,
    /// At the nodes' own addresses.
    pub(super) host_port: Option<u16>,
    /// For the Service.
    pub(super) copied: BTreeMap<String, String>,
    /// What of this is not honoured: the annotation, and why. What would be without it holds.
    pub(super) problems: Vec<String>,
}

impl Annotations {
    pub(super) fn read<'a>(config: &IngressConfig, given: impl Iterator<Item = (&'a String, &'a String)>) -> Self {
        let mut read = Self { shared: config.shared, force_https: config.enforce_https, ..Self::default() };
        for (name, value) in given {
            if config.copied.iter().any(|prefix| name.starts_with(prefix.as_str())) {
                read.copied.insert(name.clone(), value.clone());
            }
            let short = NAMES.iter().find_map(|prefix| name.strip_prefix(prefix));
            if let Some(Err(wanted)) = short.map(|short| read.one(short, value)) {
                read.problems.push(format!("annotation {name}: {value:?} is not {wanted}"));
            }
        }
        read.unused();
        read
    }

    /// Reads one. An error says what it should be.
    fn one(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "loadbalancer-mode" => {
                self.shared = match value {
                    "shared" => true,
                    "dedicated" => false,
                    _ => return Err("shared or dedicated"),
                };
            }
            "loadbalancer-class" => self.load_balancer_class = Some(value.to_owned()),
            "service-type" => match value {
                "LoadBalancer" | "NodePort" => self.service_type = Some(value.to_owned()),
                _ => return Err("LoadBalancer or NodePort"),
            },
            "service-external-traffic-policy" => match value {
                "Cluster" | "Local" => self.external_traffic_policy = Some(value.to_owned()),
                _ => return Err("Cluster or Local"),
            },
            "insecure-node-port" => self.node_ports.insecure = Some(port(value)?),
            "secure-node-port" => self.node_ports.secure = Some(port(value)?),
            "tls-passthrough" => self.passthrough = switch(value)?,
            "host-listener-port" => self.host_port = Some(port(value)?),
            "force-https" => self.force_https = switch(value)?,
            "request-timeout" => {
                let timeout = duration::parse_go(value).ok_or("a duration such as 1.5s, 500ms or 1m30s")?;
                self.request_timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells of what goes with others only.
    fn unused(&mut self) {
        let fitting = !self.shared && self.service_type.as_deref() == Some("NodePort");
        if self.node_ports != NodePorts::default() && !fitting {
            self.node_ports = NodePorts::default();
            let told = "annotations insecure-node-port and secure-node-port: only a load balancer of the Ingress's own \
                        with service-type NodePort has them";
            self.problems.push(told.to_owned());
        }
    }
}

fn port(value: &str) -> Result<u16, &'static str> {
    value.parse().ok().filter(|port| *port > 0).ok_or("the number of a port")
}

fn switch(value: &str) -> Result<bool, &'static str> {
    match value {
        "enabled" | "true" => Ok(true),
        "disabled" | "false" => Ok(false),
        _ => Err("enabled or disabled"),
    }
}
