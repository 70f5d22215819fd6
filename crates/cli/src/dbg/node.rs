// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg node list`: nodes of the cluster.

use super::Output;
use crate::rest::Agent;
use crate::table::Table;
use anyhow::Result;
use clap::Subcommand;
use rest::{ClusterNodes, NodeElement};

#[derive(Subcommand, Debug)]
pub(super) enum Commands {
    /// List all nodes.
    #[command(alias = "ls")]
    List(Output),
}

pub(super) async fn run(agent: &Agent, command: Commands) -> Result<()> {
    let Commands::List(output) = command;
    let nodes: ClusterNodes = agent.get("/cluster/nodes").await?;
    let mut nodes = nodes.nodes_added;
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    output.format().print(&nodes, || table(&nodes).to_string())
}

fn table(nodes: &[NodeElement]) -> Table {
    let mut table = Table::new(["Name", "IPv4 Address", "Endpoint CIDR", "IPv6 Address", "Endpoint CIDR", "Source"]);
    for node in nodes {
        let addresses = node.primary_address.clone().unwrap_or_default();
        let (v4, v6) = (addresses.ipv4.unwrap_or_default(), addresses.ipv6.unwrap_or_default());
        table.row([&node.name, &v4.ip, &v4.alloc_range, &v6.ip, &v6.alloc_range, &node.source].map(String::as_str));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_show_both_families() {
        let nodes: Vec<NodeElement> = serde_json::from_str(
            r#"[{"name":"blue/n1","source":"local","primary-address":{
              "ipv4":{"enabled":true,"ip":"192.168.0.1","alloc-range":"10.0.0.0/24"},
              "ipv6":{"enabled":true,"ip":"fd01::1","alloc-range":"fd00::/64"}}},
              {"name":"blue/n2","source":"custom-resource"}]"#,
        )
        .unwrap();
        assert_eq!(
            table(&nodes).to_string(),
            "Name      IPv4 Address   Endpoint CIDR   IPv6 Address   Endpoint CIDR   Source\n\
             blue/n1   192.168.0.1    10.0.0.0/24     fd01::1        fd00::/64       local\n\
             blue/n2                                                                 custom-resource\n"
        );
    }
}
