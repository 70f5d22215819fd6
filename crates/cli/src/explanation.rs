// SPDX-License-Identifier: Apache-2.0
//! Explains a Service to people: as one node has it, or all of them.

use crate::table::Table;
use anyhow::{Result, ensure};
use rest::{ExplainedEndpoint, ExplainedFrontend, ServiceExplanation};
use std::collections::BTreeSet;

/// Rejects anything but NAMESPACE/NAME.
pub(crate) fn check_name(service: &str) -> Result<(&str, &str)> {
    let is_name = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':'));
    let parts = service.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    let parts = parts.filter(|(namespace, name)| is_name(namespace) && is_name(name));
    ensure!(parts.is_some(), "{service:?} is no NAMESPACE/NAME");
    Ok(parts.unwrap_or_default())
}

/// The addresses of the Service, without ports.
pub(crate) fn addresses(explanation: &ServiceExplanation) -> BTreeSet<String> {
    let address = |frontend: &ExplainedFrontend| {
        let (address, _) = frontend.address.rsplit_once(':')?;
        Some(address.trim_matches(['[', ']']).to_owned())
    };
    explanation.frontends.iter().filter_map(address).collect()
}

/// What one node reports.
pub(crate) fn of_node(explanation: &ServiceExplanation) -> String {
    of_nodes(&[explanation.node.as_str()], explanation)
}

/// What several nodes report alike.
pub(crate) fn of_nodes(nodes: &[&str], explanation: &ServiceExplanation) -> String {
    let ServiceExplanation { not_served_because, settings, problems, frontends, endpoints, announced, .. } =
        explanation;
    let mut text = format!("On {}:\n", nodes.join(", "));
    if let Some(why) = not_served_because {
        text += &format!("  Not served: {why}\n");
    }
    settings.iter().for_each(|setting| text += &format!("  {setting}\n"));
    problems.iter().for_each(|problem| text += &format!("  Not honoured: {problem}\n"));
    for row in announced {
        text += &format!("  Answers for {} on {}\n", row.address, row.device);
    }
    if !frontends.is_empty() {
        let mut table = Table::new(["  Frontend", "Type", "Policy", "Backends"]);
        frontends.iter().for_each(|frontend| table.row(frontend_cells(frontend)));
        text += &table.to_string();
    }
    if endpoints.is_empty() {
        text += "  There is no endpoint\n";
    } else {
        let mut table = Table::new(["  Endpoint", "Node", "Zone", "State", "Left out"]);
        endpoints.iter().for_each(|endpoint| table.row(endpoint_cells(endpoint)));
        text += &table.to_string();
    }
    text
}

fn frontend_cells(frontend: &ExplainedFrontend) -> [String; 4] {
    let ExplainedFrontend { address, kind, taken_by, policy, backends } = frontend;
    let backends = if taken_by.is_empty() { backends.to_string() } else { format!("none: {taken_by} has it") };
    [format!("  {address}"), kind.clone(), policy.clone(), backends]
}

fn endpoint_cells(endpoint: &ExplainedEndpoint) -> [String; 5] {
    let ExplainedEndpoint { address, node, zone, state, left_out, left_out_locally, .. } = endpoint;
    // An endpoint left out everywhere has the same reason everywhere.
    let why = match (left_out.is_empty(), left_out_locally.is_empty()) {
        (true, true) => String::new(),
        (true, false) => format!("where the policy is Local: {left_out_locally}"),
        (false, true) => format!("where the policy is Cluster: {left_out}"),
        (false, false) => left_out.clone(),
    };
    [format!("  {address}"), node.clone(), zone.clone(), state.clone(), why]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_has_its_state_or_why_it_is_left_out() {
        let explanation: ServiceExplanation = serde_json::from_str(
            r#"{"service": "shop/web", "node": "n1", "settings": ["algorithm: random"],
            "problems": ["spec.externalIPs: 10.0.0.9 is a pod's"],
            "frontends": [{"address": "10.96.0.1:80/TCP", "type": "ClusterIP", "policy": "Cluster", "backends": 2},
                {"address": "[2001:db8::1]:80/TCP/i", "type": "LoadBalancer", "policy": "Cluster", "taken-by": "a/b"}],
            "endpoints": [{"address": "10.0.1.1:80/TCP", "node": "n1", "state": "active"},
                {"address": "10.0.2.1:80/TCP", "node": "n2", "zone": "b", "state": "active",
                 "left-out-locally": "it is on another node"},
                {"address": "10.0.2.2:80/TCP", "node": "n2", "left-out": "it is not ready", "left-out-locally": "it is not ready"}],
            "announced": [{"address": "2001:db8::1", "device": "eth0", "service": "a/b"}]}"#,
        )
        .unwrap();
        let want = "\
On n1, n2:
  algorithm: random
  Not honoured: spec.externalIPs: 10.0.0.9 is a pod's
  Answers for 2001:db8::1 on eth0
  Frontend                 Type           Policy    Backends
  10.96.0.1:80/TCP         ClusterIP      Cluster   2
  [2001:db8::1]:80/TCP/i   LoadBalancer   Cluster   none: a/b has it
  Endpoint          Node   Zone   State    Left out
  10.0.1.1:80/TCP   n1            active
  10.0.2.1:80/TCP   n2     b      active   where the policy is Local: it is on another node
  10.0.2.2:80/TCP   n2                     it is not ready
";
        assert_eq!(of_nodes(&["n1", "n2"], &explanation), want);
        assert_eq!(addresses(&explanation).into_iter().collect::<Vec<_>>(), ["10.96.0.1", "2001:db8::1"]);
    }

    #[test]
    fn what_is_no_name_of_a_service_is_refused() {
        assert_eq!(check_name("shop/web").unwrap(), ("shop", "web"));
        for text in ["web", "shop/", "/web", "a/b/c", "a/b?x", "a/b c"] {
            assert!(check_name(text).is_err(), "{text}");
        }
    }
}
