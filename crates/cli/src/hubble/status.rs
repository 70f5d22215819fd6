// SPDX-License-Identifier: Apache-2.0
//! `hubble status` and `hubble list`: the server, its nodes, the namespaces it has seen.

use super::connect::Connection;
use super::print::clean;
use crate::output::Format;
use crate::table::Table;
use anyhow::{Result, bail};
use hubble::client::HEALTH_SERVICE;
use hubble::proto::observer::observer_client::ObserverClient;
use hubble::proto::observer::{GetNamespacesRequest, GetNodesRequest, Node, ServerStatusRequest, ServerStatusResponse};
use hubble::proto::relay::NodeState;
use hubble::proto::to_json;
use std::fmt::Write;
use std::time::Duration;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// How a status is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum StatusOutput {
    Compact,
    Dict,
    #[value(alias = "JSON", alias = "jsonpb")]
    Json,
    #[value(alias = "tab")]
    Table,
}

/// Runs `hubble status`.
pub(super) async fn status(connection: &Connection, output: StatusOutput) -> Result<()> {
    let channel = connection.connect().await?;
    let request = HealthCheckRequest { service: HEALTH_SERVICE.to_owned() };
    let health = HealthClient::new(channel.clone()).check(request).await;
    let healthy = health.as_ref().is_ok_and(|h| h.get_ref().status() == ServingStatus::Serving);
    let health = match health {
        Ok(_) if healthy => "Ok".to_owned(),
        Ok(answer) => format!("Unavailable: {}", answer.get_ref().status().as_str_name()),
        Err(status) => format!("Unavailable: {}", clean(status.message())),
    };
    let status = ObserverClient::new(channel).server_status(ServerStatusRequest {}).await;
    let status = status.map_err(|status| connection.refusal(&status))?.into_inner();
    if output != StatusOutput::Json {
        println!("Healthcheck (via {}): {health}", connection.address());
    }
    print!("{}", render(&status, output)?);
    if healthy { Ok(()) } else { bail!("{} is not healthy", connection.address()) }
}

fn render(status: &ServerStatusResponse, output: StatusOutput) -> Result<String> {
    if output == StatusOutput::Json {
        return Ok(to_json(status)? + "\n");
    }
    let or_none = |n: Option<u32>| n.map_or_else(|| "N/A".to_owned(), |n| n.to_string());
    let rate = if status.flows_rate > 0.0 { format!("{:.2}", status.flows_rate) } else { "N/A".to_owned() };
    let values = [
        ("NUM FLOWS", grouped(status.num_flows)),
        ("MAX FLOWS", grouped(status.max_flows)),
        ("SEEN FLOWS", grouped(status.seen_flows)),
        ("FLOWS PER SECOND", rate.clone()),
        ("UPTIME", uptime(status.uptime_ns)),
        ("NUM CONNECTED NODES", or_none(status.num_connected_nodes)),
        ("NUM UNAVAILABLE NODES", or_none(status.num_unavailable_nodes)),
        ("VERSION", clean(&status.version)),
    ];
    match output {
        StatusOutput::Table => {
            let mut table = Table::new(values.iter().map(|(name, _)| *name));
            table.row(values.iter().map(|(_, value)| value.clone()));
            Ok(table.to_string())
        }
        StatusOutput::Dict => {
            let short = |name: &str| name.replace("UNAVAILABLE", "UNAVAIL.");
            Ok(values.iter().map(|(name, value)| format!("{:>19}: {value}\n", short(name))).collect())
        }
        _ => compact(status, rate),
    }
}

fn compact(status: &ServerStatusResponse, rate: String) -> Result<String> {
    let mut text = String::new();
    #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
    let share = status.num_flows as f64 / status.max_flows.max(1) as f64 * 100.0;
    let share = if status.max_flows > 0 { format!(" ({share:.2}%)") } else { String::new() };
    writeln!(text, "Current/Max Flows: {}/{}{share}", grouped(status.num_flows), grouped(status.max_flows))?;
    let uptime = Duration::from_nanos(status.uptime_ns).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = if rate == "N/A" && uptime > 0.0 { format!("{:.2}", status.seen_flows as f64 / uptime) } else { rate };
    writeln!(text, "Flows/s: {rate}")?;
    if let Some(connected) = status.num_connected_nodes {
        let total =
            status.num_unavailable_nodes.map_or_else(String::new, |n| format!("/{}", n.saturating_add(connected)));
        writeln!(text, "Connected Nodes: {connected}{total}")?;
    }
    if let Some(count) = status.num_unavailable_nodes.filter(|n| *n > 0) {
        writeln!(text, "Unavailable Nodes: {count}")?;
        let mut names: Vec<_> = status.unavailable_nodes.iter().map(|n| clean(n)).collect();
        names.sort();
        let more = u64::from(count).saturating_sub(names.len() as u64);
        if more > 0 && !names.is_empty() {
            names.push(format!("and {more} more..."));
        }
        for name in names {
            writeln!(text, "  - {name}")?;
        }
    }
    Ok(text)
}

/// Runs `hubble list namespaces`.
pub(super) async fn namespaces(connection: &Connection, wide: bool, format: &Format) -> Result<()> {
    let mut client = ObserverClient::new(connection.connect().await?);
    let answer = client.get_namespaces(GetNamespacesRequest {}).await;
    let answer = answer.map_err(|status| connection.refusal(&status))?.into_inner();
    if let Some(text) = format.structured(&serde_json::from_str::<serde_json::Value>(&to_json(&answer)?)?)? {
        print!("{text}");
        return Ok(());
    }
    let mut table = if wide { Table::new(["NAMESPACE", "CLUSTER"]) } else { Table::new(["NAMESPACE"]) };
    let mut rows: Vec<_> = answer.namespaces.iter().map(|n| (clean(&n.namespace), clean(&n.cluster))).collect();
    rows.sort();
    if !wide {
        rows.dedup_by(|a, b| a.0 == b.0);
    }
    for (namespace, cluster) in rows {
        if wide { table.row([namespace, cluster]) } else { table.row([namespace]) }
    }
    print!("{table}");
    Ok(())
}

/// Runs `hubble list nodes`.
pub(super) async fn nodes(connection: &Connection, wide: bool, format: &Format) -> Result<()> {
    let mut client = ObserverClient::new(connection.connect().await?);
    let answer = client.get_nodes(GetNodesRequest {}).await;
    let answer = answer.map_err(|status| connection.refusal(&status))?.into_inner();
    if let Some(text) = format.structured(&serde_json::from_str::<serde_json::Value>(&to_json(&answer)?)?)? {
        print!("{text}");
        return Ok(());
    }
    print!("{}", node_table(&answer.nodes, wide));
    Ok(())
}

fn node_table(nodes: &[Node], wide: bool) -> Table {
    let header = ["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS"];
    let more: &[&str] = if wide { &["VERSION", "ADDRESS", "TLS"] } else { &[] };
    let mut table = Table::new(header.iter().chain(more).copied());
    for node in nodes {
        let state = match node.state() {
            NodeState::NodeConnected => "Connected",
            NodeState::NodeUnavailable => "Unavailable",
            NodeState::NodeGone => "Gone",
            NodeState::NodeError => "Error",
            NodeState::UnknownNodeState => "Unknown",
        };
        let seconds = Duration::from_nanos(node.uptime_ns).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (rate, share) = (
            if seconds > 0.0 { format!("{:.2}", node.seen_flows as f64 / seconds) } else { "N/A".to_owned() },
            node.num_flows as f64 / node.max_flows.max(1) as f64 * 100.0,
        );
        let share = format!("{}/{} ({share:6.2}%)", grouped(node.num_flows), grouped(node.max_flows));
        let mut row = vec![clean(&node.name), state.to_owned(), uptime(node.uptime_ns), rate, share];
        if wide {
            let tls = if node.tls.as_ref().is_some_and(|tls| tls.enabled) { "Enabled" } else { "Disabled" };
            row.extend([clean(&node.version), clean(&node.address), tls.to_owned()]);
        }
        table.row(row);
    }
    table
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn uptime(nanos: u64) -> String {
    crate::ages::short(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> ServerStatusResponse {
        ServerStatusResponse {
            num_flows: 4095,
            max_flows: 4095,
            seen_flows: 1_234_567,
            uptime_ns: 3_661_000_000_000,
            version: "cilium v0.1.0".to_owned(),
            flows_rate: 12.345,
            ..ServerStatusResponse::default()
        }
    }

    #[test]
    fn the_status_of_an_agent_is_two_lines() {
        let text = render(&status(), StatusOutput::Compact).unwrap();
        assert_eq!(text, "Current/Max Flows: 4,095/4,095 (100.00%)\nFlows/s: 12.35\n");
    }

    #[test]
    fn the_status_of_a_relay_lists_nodes_that_are_away() {
        let status = ServerStatusResponse {
            num_connected_nodes: Some(2),
            num_unavailable_nodes: Some(3),
            unavailable_nodes: vec!["b".to_owned(), "a".to_owned()],
            ..status()
        };
        let text = render(&status, StatusOutput::Compact).unwrap();
        let want = "Connected Nodes: 2/5\nUnavailable Nodes: 3\n  - a\n  - b\n  - and 1 more...\n";
        assert!(text.ends_with(want), "{text}");
    }

    #[test]
    fn other_outputs_hold_the_same() {
        let dict = render(&status(), StatusOutput::Dict).unwrap();
        assert!(
            dict.contains("          NUM FLOWS: 4,095\n") && dict.contains("             UPTIME: 1h1m1s\n"),
            "{dict}"
        );
        let table = render(&status(), StatusOutput::Table).unwrap();
        assert!(table.starts_with("NUM FLOWS   MAX FLOWS   SEEN FLOWS   FLOWS PER SECOND   UPTIME"), "{table}");
        assert!(render(&status(), StatusOutput::Json).unwrap().contains("\"seen_flows\":\"1234567\""));
    }
}
