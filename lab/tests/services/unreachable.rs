// SPDX-License-Identifier: Apache-2.0
//! A backend's node is cut off from the network, and comes back.

use super::{LONG, answer, apply, delete, node, outside, port};
use anyhow::{Result, ensure};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually};
use lab::traffic::{Kept, get};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

/// The control plane gives a node up after some twenty seconds.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// The addresses of endpoints that take connections, by family.
fn ready(cluster: &Cluster, name: &str) -> Result<usize> {
    let selector = format!("kubernetes.io/service-name={name}");
    let slices = cluster.get(&["endpointslices", "--namespace=net", "--selector", &selector])?;
    let endpoints = slices["items"].as_array().into_iter().flatten().flat_map(|slice| slice["endpoints"].as_array());
    Ok(endpoints.flatten().filter(|endpoint| endpoint["conditions"]["ready"] == Value::Bool(true)).count())
}

pub(super) fn backend(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["label", "--namespace=net", "pod", "far", "app-"])?;
    apply(cluster, "reached", &json!({}), &json!({"type": "NodePort"}))?;
    let (outside, client) = (outside(cluster)?, Netns::of_pod(cluster, "net", "client")?);
    let http = port(cluster, "reached", 0)?;
    let mut targets: Vec<(&Netns, SocketAddr)> = node(1).map(|ip| (&outside, SocketAddr::new(ip, http))).to_vec();
    targets
        .extend(cluster.service_addresses("net", "reached")?.into_iter().map(|ip| (&client, SocketAddr::new(ip, 80))));
    let mut kept = Vec::new();
    for (from, to) in &targets {
        answer(from, *to, &["near"])?;
        for _ in 0..4 {
            kept.push(Kept::start(from.try_clone()?, *to, |_| false));
        }
    }
    cluster.kubectl(&["label", "--namespace=net", "pod", "far", "app=echo"])?;
    targets.iter().try_for_each(|(from, to)| answer(from, *to, &["near", "far"]))?;
    cluster.fault("cut", "node2")?;
    eventually(GIVEN_UP, "the control plane gives the node's endpoints up", || {
        let count = ready(cluster, "reached")?;
        ensure!(count == 2, "{count} endpoints are ready");
        Ok(())
    })?;
    for (from, to) in &targets {
        eventually(LONG, &format!("only the other node is asked at {to}"), || {
            for _ in 0..20 {
                let said = from.run(|| get(*to, "/hostname"))?;
                ensure!(said == "near", "{said} answers");
            }
            Ok(())
        })?;
    }
    kept.iter().try_for_each(|one| one.goes_on(5))?;
    cluster.fault("restore", "node2")?;
    cluster.nodes_ready(Duration::from_secs(120))?;
    targets.iter().try_for_each(|(from, to)| answer(from, *to, &["near", "far"]))?;
    kept.iter().try_for_each(|one| one.goes_on(5))?;
    for one in kept {
        one.finish()?;
    }
    delete(cluster, "reached")
}
