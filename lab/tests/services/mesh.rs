// SPDX-License-Identifier: Apache-2.0
//! Routes of Services, which pods ask over both families, and what policy lets them do by way of their node's proxy.

use super::{LONG, apply, delete};
use anyhow::{Result, ensure};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

const NAME: &str = "routed";

/// Status of a pod's request to a Service, and whether a route has marked the answer.
fn ask(from: &Netns, at: IpAddr) -> Result<(String, bool)> {
    let url = format!("http://{}/hostname", SocketAddr::new(at, 80));
    let said = from.command(&["curl", "--silent", "--max-time", "5", "--include", &url])?;
    let status = said.split_whitespace().nth(1).unwrap_or_default();
    Ok((status.to_owned(), said.to_ascii_lowercase().contains("x-routed: yes\r\n")))
}

fn policy(cluster: &Cluster, from: &Value) -> Result<()> {
    let object = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": NAME, "namespace": "net"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "echo"}}, "ingress": from}});
    cluster.apply(&object.to_string())
}

/// A route marks the answers of a Service. Who may not reach its backends himself does not reach them by way of the proxy.
pub(super) fn routes_under_policy(cluster: &Cluster) -> Result<()> {
    apply(cluster, NAME, &json!({}), &json!({}))?;
    let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": NAME, "namespace": "net"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": NAME, "port": 80}],
                 "rules": [{"filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-routed", "value": "yes"}]}}],
                            "backendRefs": [{"name": NAME, "port": 80}]}]}});
    cluster.apply(&route.to_string())?;
    let client = Netns::of_pod(cluster, "net", "client")?;
    let at = cluster.service_addresses("net", NAME)?;
    ensure!(at.len() == 2, "not of both families: {at:?}");
    let says = |what: &str, wanted: (&str, bool)| {
        for at in &at {
            eventually(LONG, &format!("{what} at {at}"), || {
                let (status, routed) = ask(&client, *at)?;
                ensure!((status.as_str(), routed) == wanted, "{status}, marked by the route: {routed}");
                Ok(())
            })?;
        }
        Ok::<_, anyhow::Error>(())
    };
    says("the route is in force", ("200", true))?;
    // Nobody but the proxy is admitted: who asks it is not, and the route marks that answer too.
    policy(cluster, &json!([{"fromEntities": ["ingress"]}]))?;
    says("policy refuses the client", ("403", true))?;
    policy(cluster, &json!([{"fromEntities": ["ingress"]}, {"fromEndpoints": [{"matchLabels": {"app": "client"}}]}]))?;
    says("policy lets the client in", ("200", true))?;
    cluster.kubectl(&["delete", "cnp", "--namespace=net", NAME])?;
    cluster.kubectl(&["delete", "httproute", "--namespace=net", NAME])?;
    says("without the route the Service is as it was", ("200", false))?;
    delete(cluster, NAME)
}
