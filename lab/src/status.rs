// SPDX-License-Identifier: Apache-2.0
//! Whether the machines of a lab are on, and their status in Kubernetes.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use crate::cgroup::{self, Hierarchy};
use crate::state::Lab;
use crate::topology::{API_PORT, CONTROL};
use crate::{namespace, run};

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    on: bool,
    /// The status in Kubernetes: Ready, NotReady, Unknown; for the control plane, whether the API server answers.
    condition: String,
    addresses: Vec<String>,
    processes: usize,
    /// The first process of the machine, as seen from this machine.
    pid: Option<i32>,
}

/// Prints the state of a lab. Fails if a machine is off or the API server does not answer.
pub(crate) fn show(lab: &Lab, json: bool) -> Result<ExitCode> {
    let rows = rows(lab)?;
    if json {
        let api = lab.spec.topology.control().first().map(ToString::to_string);
        let all = serde_json::json!({
            "name": lab.spec.name, "kubeconfig": lab.kubeconfig(), "machines": rows,
            "k8sServiceHost": api, "k8sServicePort": API_PORT,
        });
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        println!("{:<10} {:<5} {:<12} {:<10} ADDRESSES", "MACHINE", "POWER", "CONDITION", "PROCESSES");
        for row in &rows {
            let power = if row.on { "on" } else { "off" };
            println!(
                "{:<10} {power:<5} {:<12} {:<10} {}",
                row.name,
                row.condition,
                row.processes,
                row.addresses.join(", ")
            );
        }
    }
    let well = rows.iter().all(|row| row.on && row.condition != "Unreachable");
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn rows(lab: &Lab) -> Result<Vec<Row>> {
    let hierarchy = Hierarchy::find()?;
    let nodes = run::output(lab.kubectl().args(["get", "nodes", "-o", "json", "--request-timeout=3s"]));
    let nodes: Option<Value> = match nodes {
        Ok(text) => Some(serde_json::from_str(&text).context("kubectl did not answer in JSON")?),
        Err(_) => None,
    };
    let row = |name: &str, addresses: Vec<String>, condition: String| {
        let pid = namespace::first_process(lab, name).ok();
        let processes = cgroup::processes(&hierarchy.group(&lab.spec.name, Some(name))).len();
        Row { name: name.to_owned(), on: pid.is_some(), condition, addresses, processes, pid }
    };
    let api = if nodes.is_some() { "Answering" } else { "Unreachable" };
    let control = lab.spec.topology.control().iter().map(ToString::to_string).collect();
    let mut rows = vec![row(CONTROL, control, api.to_owned())];
    for place in lab.spec.topology.places() {
        let addresses = place.addresses.iter().map(ToString::to_string).collect();
        rows.push(row(&place.name, addresses, ready(nodes.as_ref(), &place.name)));
    }
    Ok(rows)
}

fn ready(nodes: Option<&Value>, name: &str) -> String {
    let items = nodes.and_then(|list| list.pointer("/items")).and_then(Value::as_array);
    let node =
        items.into_iter().flatten().find(|node| node.pointer("/metadata/name").and_then(Value::as_str) == Some(name));
    let conditions = node.and_then(|node| node.pointer("/status/conditions")).and_then(Value::as_array);
    let condition = conditions.into_iter().flatten().find(|c| c.get("type").and_then(Value::as_str) == Some("Ready"));
    match condition.and_then(|c| c.get("status")).and_then(Value::as_str) {
        Some("True") => "Ready".to_owned(),
        Some("False") => "NotReady".to_owned(),
        _ => "Unknown".to_owned(),
    }
}
