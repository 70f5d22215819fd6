// SPDX-License-Identifier: Apache-2.0
//! The health of the cluster as the published tools print it.

use crate::table::Table;
use model::config::duration_text;
use rest::{Connectivity, ConnectivityStatus, HealthStatusResponse, NodeStatus, PathStatus};
use std::time::Duration;

/// One line per node.
pub(crate) fn table(table: &mut Table, status: &HealthStatusResponse) {
    header(table, status);
    ordered(status).for_each(|node| table.row(line(node, status)));
}

/// One line per node that is not well, at most so many.
pub(crate) fn unwell(table: &mut Table, status: &HealthStatusResponse, most: usize) {
    header(table, status);
    let mut unwell = ordered(status).filter(|node| !node.is_healthy());
    unwell.by_ref().take(most).for_each(|node| table.row(line(node, status)));
    if unwell.next().is_some() {
        table.row(["  ..."]);
    }
}

/// Every address of every node, with what was found.
pub(crate) fn blocks(status: &HealthStatusResponse) -> String {
    let mut head = Table::default();
    header(&mut head, status);
    let mut text = head.to_string();
    for node in ordered(status) {
        text.push_str(&format!("  {}:\n", name(node, status)));
        text.push_str(&paths("Host", node.host_paths()));
        text.push_str(&paths("Endpoint", node.endpoint_paths()));
    }
    text
}

fn header(table: &mut Table, status: &HealthStatusResponse) {
    table.row([
        "Cluster health:".to_owned(),
        format!("{}/{} reachable", status.healthy(), status.nodes.len()),
        format!("({})", status.timestamp),
        format!("(Probe interval: {})", status.probe_interval),
    ]);
    table.row(["Name", "IP", "Node", "Endpoints"]);
}

/// This node, then the others by name.
fn ordered(status: &HealthStatusResponse) -> impl Iterator<Item = &NodeStatus> {
    let mut nodes: Vec<&NodeStatus> = status.nodes.iter().collect();
    nodes.sort_by_key(|node| (!is_local(node, status), &node.name));
    nodes.into_iter()
}

fn is_local(node: &NodeStatus, status: &HealthStatusResponse) -> bool {
    status.local.as_ref().is_some_and(|local| local.name == node.name)
}

fn name(node: &NodeStatus, status: &HealthStatusResponse) -> String {
    format!("{}{}", node.name, if is_local(node, status) { " (localhost)" } else { "" })
}

fn line(node: &NodeStatus, status: &HealthStatusResponse) -> [String; 4] {
    let ips: Vec<&str> = node.host_paths().map(|path| path.ip.as_str()).collect();
    let ips = if ips.is_empty() { "Unavailable".to_owned() } else { ips.join(",") };
    [format!("  {}", name(node, status)), ips, count(node.host_paths()), count(node.endpoint_paths())]
}

/// How many of them can be reached.
fn count<'a>(paths: impl Iterator<Item = &'a PathStatus>) -> String {
    let (mut all, mut reachable, mut unknown) = (0, 0, 0);
    for path in paths {
        all += 1;
        match path.connectivity() {
            Connectivity::Reachable => reachable += 1,
            Connectivity::Unreachable => {}
            Connectivity::Unknown => unknown += 1,
        }
    }
    let unknown = if unknown > 0 { format!(" ({unknown} unknown)") } else { String::new() };
    format!("{reachable}/{all}{unknown}")
}

/// A block of lines for each address; the first is the primary one.
fn paths<'a>(kind: &str, paths: impl Iterator<Item = &'a PathStatus>) -> String {
    let mut text = String::new();
    for (index, path) in paths.enumerate() {
        let kind = if index == 0 { kind.to_owned() } else { format!("Secondary {kind}") };
        text.push_str(&format!("    {kind} connectivity to {}:\n", path.ip));
        let mut table = Table::default();
        for (protocol, found) in [("ICMP to stack", &path.icmp), ("HTTP to agent", &path.http)] {
            if let Some(found) = found {
                let when = format!("(Last probed: {})", found.last_probed);
                table.row([format!("      {protocol}:"), outcome(found), when]);
            }
        }
        text.push_str(&table.to_string());
    }
    if text.is_empty() { format!("    {kind} connectivity:   nil\n") } else { text }
}

fn outcome(found: &ConnectivityStatus) -> String {
    if found.status.is_empty() {
        let latency = Duration::from_nanos(u64::try_from(found.latency).unwrap_or_default());
        format!("OK, RTT={}", duration_text(latency))
    } else {
        found.status.clone()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two nodes: this one, of both families, with an endpoint that was not probed yet; and one whose endpoint is away.
    pub(crate) fn status() -> HealthStatusResponse {
        serde_json::from_str(include_str!("../../tests/golden/health.json")).unwrap()
    }

    #[test]
    fn every_node_has_a_line_this_one_first() {
        let mut all = Table::default();
        table(&mut all, &status());
        assert_eq!(all.to_string(), include_str!("../../tests/golden/health-status.txt"));
    }

    #[test]
    fn every_address_has_a_block() {
        assert_eq!(blocks(&status()), include_str!("../../tests/golden/health-status-verbose.txt"));
    }

    #[test]
    fn of_many_nodes_that_are_not_well_some_are_listed() {
        let mut status = status();
        let lost = status.nodes.iter().find(|node| !node.is_healthy()).unwrap().clone();
        status.nodes = (0..12).map(|i| NodeStatus { name: format!("n{i:02}"), ..lost.clone() }).collect();
        let mut shown = Table::default();
        unwell(&mut shown, &status, 10);
        let text = shown.to_string();
        assert!(text.starts_with("Cluster health:   0/12 reachable"), "{text}");
        assert!(text.contains("  n09") && !text.contains("n10") && text.ends_with("  ...\n"), "{text}");
    }

    #[test]
    fn a_node_without_addresses_is_shown_all_the_same() {
        let nodes = vec![NodeStatus { name: "n1".to_owned(), ..NodeStatus::default() }];
        let status = HealthStatusResponse { nodes, ..HealthStatusResponse::default() };
        let mut all = Table::default();
        table(&mut all, &status);
        assert!(all.to_string().ends_with("  n1              Unavailable     0/0    0/0\n"), "{all}");
        assert!(blocks(&status).ends_with("    Host connectivity:   nil\n    Endpoint connectivity:   nil\n"));
    }
}
