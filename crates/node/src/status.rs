// SPDX-License-Identifier: Apache-2.0
//! This node and the others in the agent's status.

use crate::{Config, api};
use model::{LocalNode, Node, RoutingMode};
use rest::{ClusterStatus, Masquerading, Protocols, Routing, StatusResponse};
use statedb::Reader;

pub(crate) fn fill(
    config: &Config,
    name: String,
    local: Reader<LocalNode>,
    nodes: Reader<Node>,
) -> impl Fn(&mut StatusResponse) + use<> {
    let self_name = format!("{}/{name}", config.cluster);
    let masquerading = masquerading(config);
    move |status| {
        let node = local.snapshot().get(&());
        status.routing = Some(routing(node.as_deref()));
        status.masquerading = Some(masquerading.clone());
        let cluster = status.cluster.get_or_insert_with(ClusterStatus::default);
        cluster.self_name.clone_from(&self_name);
        cluster.nodes = nodes.snapshot().iter().map(|node| api::render(node)).collect();
        let devices = node.map(|node| node.devices.clone()).unwrap_or_default();
        let replacement = status.kube_proxy_replacement.get_or_insert_default();
        replacement.direct_routing_device = devices.first().cloned().unwrap_or_default();
        replacement.devices = devices;
    }
}

fn masquerading(config: &Config) -> Masquerading {
    Masquerading {
        enabled: config.masquerade_ipv4 || config.masquerade_ipv6,
        enabled_protocols: Some(Protocols {
            ipv4: config.masquerade_ipv4 && config.ipv4,
            ipv6: config.masquerade_ipv6 && config.ipv6,
        }),
        mode: "BPF".to_owned(),
        snat_exclusion_cidr_v4: config.native_ipv4.map(|net| net.to_string()).unwrap_or_default(),
        snat_exclusion_cidr_v6: config.native_ipv6.map(|net| net.to_string()).unwrap_or_default(),
        ..Masquerading::default()
    }
}

fn routing(node: Option<&LocalNode>) -> Routing {
    let tunnel = node.is_none_or(|n| n.routing == RoutingMode::Tunnel);
    Routing {
        inter_host_routing_mode: if tunnel { "Tunnel" } else { "Native" }.to_owned(),
        intra_host_routing_mode: "BPF".to_owned(),
        tunnel_protocol: if tunnel { "vxlan" } else { "" }.to_owned(),
    }
}
