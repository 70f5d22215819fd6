// SPDX-License-Identifier: Apache-2.0
//! Translations of sockets: the part "Sockets" of `docs/guide/hubble.md`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use lab::probe::{Cluster, eventually};
use lab::product;
use serde_json::Value;

use crate::PATIENCE;
use crate::hubble::{flows, forward, typed};

fn service(cluster: &Cluster) -> Result<String> {
    cluster.kubectl(&["get", "service", "--namespace=net", "echo", "-o=jsonpath={.spec.clusterIP}"])
}

fn ask(cluster: &Cluster) -> Result<()> {
    let url = format!("http://{}/hostname", service(cluster)?);
    cluster.exec("net", "client", &["curl", "-fsS", "-m", "5", &url]).map(drop)
}

/// Of the client, the latest last.
fn observed(kind: &str) -> Result<Vec<Value>> {
    Ok(flows(&typed(&["observe", "--type", kind, "--from-pod=net/client", "--last=1000", "-o=json"])?))
}

pub(crate) fn translated(cluster: &Cluster) -> Result<()> {
    let _forward = forward(cluster)?;
    let frontend = service(cluster)?;
    let mut backends = BTreeSet::new();
    for pod in ["near", "far"] {
        backends.extend(cluster.pod_addresses("net", pod)?.iter().map(ToString::to_string));
    }
    eventually(PATIENCE, "a connection before and after its translation", || {
        ask(cluster)?;
        let told = observed("trace-sock")?;
        let at = |flow: &Value, point: &str, verdict: &str| {
            flow["sock_xlate_point"] == format!("SOCK_XLATE_POINT_{point}_DIRECTION_FWD") && flow["verdict"] == verdict
        };
        let asked = told.iter().rev().find(|flow| at(flow, "PRE", "TRACED") && flow["IP"]["destination"] == frontend);
        let asked = asked.with_context(|| format!("nothing for {frontend} in {told:?}"))?;
        let service = &asked["destination_service"];
        ensure!(service["name"] == "echo" && asked["l4"]["TCP"]["destination_port"] == 80, "{asked}");
        let cookie = asked["socket_cookie"].as_str().context("no cookie")?;
        let became = |flow: &&Value| at(flow, "POST", "TRANSLATED") && flow["socket_cookie"] == cookie;
        let became = told.iter().rev().find(became).with_context(|| format!("nothing became of {asked}"))?;
        let backend = became["IP"]["destination"].as_str().context("no backend")?;
        ensure!(backends.contains(backend) && became["l4"]["TCP"]["destination_port"] == 8080, "{became}");
        let pod = became["destination"]["pod_name"].as_str().context("no pod")?;
        ensure!(["near", "far"].contains(&pod) && became["source"]["pod_name"] == "client", "{became}");
        Ok(())
    })
}

pub(crate) fn untold(cluster: &Cluster) -> Result<()> {
    switch(cluster, false)?;
    let told = silent(cluster);
    switch(cluster, true)?;
    told?;
    translated(cluster)
}

/// What comes of connections after this is their packets.
fn silent(cluster: &Cluster) -> Result<()> {
    let _forward = forward(cluster)?;
    let newest = |flows: &[Value]| flows.iter().map(time).max().unwrap_or_default();
    // What the agents of before were told of may come late, of one that answers late; it is older than any packet of what is asked now.
    let more_packets = |than: &str| {
        eventually(PATIENCE, "packets of further connections", || {
            ask(cluster)?;
            let packets = observed("trace")?;
            let new = packets.iter().filter(|flow| time(flow).as_str() > than).count();
            ensure!(new >= 5, "{new}");
            Ok(newest(&packets))
        })
    };
    let before = eventually(PATIENCE, "the relay", || Ok(newest(&observed("trace")?)))?;
    let begun = more_packets(&before)?;
    more_packets(&begun)?;
    let told: Vec<_> = observed("trace-sock")?.into_iter().filter(|flow| time(flow) > begun).collect();
    ensure!(told.is_empty(), "told of are {told:?}");
    Ok(())
}

/// When a flow was seen; texts of times are in their order.
fn time(flow: &Value) -> String {
    flow["time"].as_str().unwrap_or_default().trim_end_matches('Z').to_owned()
}

/// Agents that are made anew take over the value.
fn switch(cluster: &Cluster, on: bool) -> Result<()> {
    product::upgrade(cluster, &[&format!("socketLB.tracing={on}")])?;
    cluster.kubectl(&["rollout", "restart", "--namespace=kube-system", "daemonset/cilium"])?;
    product::ready(cluster)
}
