// SPDX-License-Identifier: Apache-2.0
//! CiliumLocalRedirectPolicies: `near` is on the client's node, `far` is not.

use super::{answer, apply, delete};
use anyhow::{Result, ensure};
use lab::netns::Netns;
use lab::probe::Cluster;
use serde_json::{Value, json};
use std::net::SocketAddr;

fn policy(cluster: &Cluster, frontend: &Value, spare: bool) -> Result<()> {
    let object = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumLocalRedirectPolicy",
        "metadata": {"name": "keep", "namespace": "net"},
        "spec": {"redirectFrontend": frontend, "skipRedirectFromBackend": spare,
                 "redirectBackend": {"localEndpointSelector": {"matchLabels": {"app": "echo"}},
                                     "toPorts": [{"name": "http", "port": "8080", "protocol": "TCP"}]}},
    });
    cluster.apply(&object.to_string())
}

fn end(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["delete", "clrp", "--namespace=net", "keep"]).map(drop)
}

/// A Service whose only backend is `far` is served by `near` to who is on its node.
pub(super) fn service(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["label", "--namespace=net", "pod/far", "only=far", "--overwrite"])?;
    apply(cluster, "distant", &json!({}), &json!({"selector": {"only": "far"}}))?;
    let client = Netns::of_pod(cluster, "net", "client")?;
    let near = Netns::of_pod(cluster, "net", "near")?;
    let frontend = json!({"serviceMatcher": {"namespace": "net", "serviceName": "distant"}});
    for ip in cluster.service_addresses("net", "distant")? {
        let to = SocketAddr::new(ip, 80);
        answer(&client, to, &["far"])?;
        policy(cluster, &frontend, false)?;
        redirected(&client, to)?;
        redirected(&near, to)?;
        let list = ["exec", "--namespace=kube-system", "ds/cilium", "--", "cilium-dbg", "lrp", "list"];
        let said = cluster.kubectl(&list)?;
        ensure!(said.contains("clusterIP + all svc ports") && said.contains("net/distant"), "{said}");
        end(cluster)?;
        // The pod that it leads to may ask past itself.
        policy(cluster, &frontend, true)?;
        redirected(&client, to)?;
        answer(&near, to, &["far"])?;
        end(cluster)?;
        // It was in force at both.
        for ip in cluster.service_addresses("net", "distant")? {
            settled(&client, SocketAddr::new(ip, 80), "far")?;
        }
    }
    delete(cluster, "distant")
}

/// An address that is nobody's is redirected, and the cluster address of a Service is not.
pub(super) fn address(cluster: &Cluster) -> Result<()> {
    apply(cluster, "distant", &json!({}), &json!({"selector": {"only": "far"}}))?;
    let client = Netns::of_pod(cluster, "net", "client")?;
    let frontend = |ip: &str| json!({"addressMatcher": {"ip": ip, "toPorts": [{"port": "80", "protocol": "TCP"}]}});
    policy(cluster, &frontend("169.254.169.254"), false)?;
    redirected(&client, "169.254.169.254:80".parse()?)?;
    end(cluster)?;
    for ip in cluster.service_addresses("net", "distant")? {
        // The second policy is in force as soon as this address is redirected; by then the first one is refused.
        policy(cluster, &frontend(&ip.to_string()), false)?;
        let other = json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumLocalRedirectPolicy",
            "metadata": {"name": "after", "namespace": "net"},
            "spec": {"redirectFrontend": frontend("169.254.169.253"),
                     "redirectBackend": {"localEndpointSelector": {"matchLabels": {"app": "echo"}},
                                         "toPorts": [{"port": "8080", "protocol": "TCP"}]}},
        });
        cluster.apply(&other.to_string())?;
        redirected(&client, "169.254.169.253:80".parse()?)?;
        answer(&client, SocketAddr::new(ip, 80), &["far"])?;
        cluster.kubectl(&["delete", "clrp", "--namespace=net", "keep", "after"])?;
    }
    delete(cluster, "distant")?;
    foreign(cluster)
}

/// Who wants to redirect a Service of another namespace is told that nothing comes of it.
fn foreign(cluster: &Cluster) -> Result<()> {
    policy(cluster, &json!({"serviceMatcher": {"namespace": "kube-system", "serviceName": "kube-dns"}}), false)?;
    let events = ["get", "events", "--namespace=net", "--field-selector=reason=LocalRedirectPolicyInvalid"];
    lab::probe::eventually(super::LONG, "an event", || {
        let said = cluster.kubectl(&[&events[..], &["--output=jsonpath={.items[*].message}"]].concat())?;
        ensure!(said.contains("serviceMatcher.namespace"), "'{said}'");
        Ok(())
    })?;
    end(cluster)
}

fn redirected(from: &Netns, to: SocketAddr) -> Result<()> {
    settled(from, to, "near")
}

/// From some moment on, only that pod answers.
fn settled(from: &Netns, to: SocketAddr, pod: &str) -> Result<()> {
    lab::probe::eventually(super::LONG, &format!("{pod} answers at {to}"), || {
        for _ in 0..5 {
            let said = from.run(|| lab::traffic::get(to, "/hostname"))?;
            ensure!(said == pod, "{said} does");
        }
        Ok(())
    })?;
    answer(from, to, &[pod])
}
