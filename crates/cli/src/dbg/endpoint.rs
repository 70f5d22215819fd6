// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg endpoint`: the pods of this node.

use super::Output;
use crate::output::Format;
use crate::rest::Agent;
use crate::table::Table;
use anyhow::Result;
use clap::Subcommand;
use rest::{Endpoint, EndpointPolicyEnabled};
use serde_json::Value;

#[derive(Subcommand, Debug)]
pub(super) enum Commands {
    /// List all endpoints.
    #[command(alias = "ls")]
    List {
        /// Without a header.
        #[arg(long)]
        no_headers: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Show one endpoint: by number, or as pod-name:NAMESPACE:POD.
    Get {
        /// Which.
        id: String,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(agent: &Agent, command: Commands) -> Result<()> {
    match command {
        Commands::List { no_headers, output } => {
            let all: Value = agent.get("/endpoint").await?;
            if let Some(text) = output.format().structured(&all)? {
                print!("{text}");
                return Ok(());
            }
            let endpoints: Vec<Endpoint> = serde_json::from_value(all)?;
            print!("{}", table(endpoints, !no_headers));
            Ok(())
        }
        Commands::Get { id, output } => {
            let one: Value = agent.get(&format!("/endpoint/{id}")).await?;
            let format = match output.format() {
                Format::Text => Format::Json,
                other => other,
            };
            format.print(&vec![one], String::new)
        }
    }
}

fn table(mut endpoints: Vec<Endpoint>, header: bool) -> Table {
    endpoints.sort_by_key(|e| e.id);
    let mut table = Table::default();
    if header {
        table.row([
            "ENDPOINT",
            "POLICY (ingress)",
            "POLICY (egress)",
            "IDENTITY",
            "LABELS (source:key[=value])",
            "IPv6",
            "IPv4",
            "STATUS",
        ]);
        table.row(["", "ENFORCEMENT", "ENFORCEMENT"]);
    }
    for endpoint in endpoints {
        rows(&mut table, &endpoint);
    }
    table
}

fn rows(table: &mut Table, endpoint: &Endpoint) {
    let status = endpoint.status.clone().unwrap_or_default();
    let policy = status.policy.and_then(|p| p.realized.or(p.spec)).unwrap_or_default();
    let (ingress, egress) = enforcement(policy.policy_enabled);
    let identity = status.identity.unwrap_or_default();
    let id = if identity.id == 0 { "<no label id>".to_owned() } else { identity.id.to_string() };
    let addresses = status.networking.map(|n| n.addressing).unwrap_or_default().into_iter().next().unwrap_or_default();
    let mut labels = identity.labels;
    labels.sort();
    let mut labels = labels.into_iter();
    let first = labels.next().unwrap_or_else(|| "no labels".to_owned());
    table.row([
        endpoint.id.to_string(),
        ingress.to_owned(),
        egress.to_owned(),
        id,
        first,
        addresses.ipv6,
        addresses.ipv4,
        status.state.to_string(),
    ]);
    for label in labels {
        table.row(["", "", "", "", label.as_str()]);
    }
}

fn enforcement(enabled: EndpointPolicyEnabled) -> (&'static str, &'static str) {
    const OFF: &str = "Disabled";
    const ON: &str = "Enabled";
    const AUDIT: &str = "Disabled (Audit)";
    match enabled {
        EndpointPolicyEnabled::None => (OFF, OFF),
        EndpointPolicyEnabled::Ingress => (ON, OFF),
        EndpointPolicyEnabled::Egress => (OFF, ON),
        EndpointPolicyEnabled::Both => (ON, ON),
        EndpointPolicyEnabled::AuditIngress => (AUDIT, OFF),
        EndpointPolicyEnabled::AuditEgress => (OFF, AUDIT),
        EndpointPolicyEnabled::AuditBoth => (AUDIT, AUDIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_listed_in_order_with_a_row_for_each_further_label() {
        let endpoints = serde_json::from_str(
            r#"[
            {"id":20,"status":{"state":"waiting-for-identity"}},
            {"id":10,"status":{"state":"ready",
              "identity":{"id":300,"labels":["k8s:b=c","k8s:app=web"]},
              "networking":{"addressing":[{"ipv4":"10.0.0.10","ipv6":"fd00::10"}]},
              "policy":{"realized":{"policy-enabled":"ingress"}}}}]"#,
        );
        let text = table(endpoints.unwrap(), true).to_string();
        assert_eq!(text, include_str!("../../tests/golden/endpoint-list.txt"));
    }
}
