// SPDX-License-Identifier: Apache-2.0
//! `cilium policy suggest` as the guide has it: what pods were seen to do is allowed by what is suggested, and nothing else is.

use anyhow::{Result, ensure};
use lab::probe::{Cluster, eventually};
use lab::product;

use crate::PATIENCE;
use crate::hubble::forward;

const NAMESPACE: &str = "--namespace=habit";

/// A server and two clients, of which one asks; each serves, so that whoever may ask is answered.
fn manifest() -> String {
    let pod = |name: &str, node: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}, namespace: habit, labels: {{ app: {name} }} }}\nspec:\n  \
             nodeSelector: {{ kubernetes.io/hostname: {node} }}\n  terminationGracePeriodSeconds: 1\n  containers:\n    - name: server\n      \
             image: registry.k8s.io/e2e-test-images/agnhost:2.63.0\n      args: [netexec, --http-port=8080, --udp-port=8081]\n      \
             readinessProbe: {{ httpGet: {{ path: /healthz, port: 8080 }}, periodSeconds: 1 }}\n"
        )
    };
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: { name: asked, namespace: habit }\nspec:\n  \
        selector: { app: asked }\n  ports: [{ port: 80, targetPort: 8080 }]\n";
    let pods = [pod("asker", "node1"), pod("asked", "node2"), pod("stranger", "node1")].concat();
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{ name: habit }}\n{pods}{service}")
}

fn asks(cluster: &Cluster, from: &str, url: &str) -> Result<()> {
    cluster.exec("habit", from, &["curl", "-fsS", "-m", "2", url]).map(drop)
}

/// By the Service's name, so that a question to the cluster's DNS is part of the habit.
fn habit(cluster: &Cluster) -> Result<()> {
    asks(cluster, "asker", "http://asked/hostname")
}

fn suggested(since: &str) -> Result<String> {
    product::typed("cilium", &["policy", "suggest", "habit", since])
}

pub(crate) fn applied(cluster: &Cluster) -> Result<()> {
    cluster.apply(&manifest())?;
    cluster.kubectl(&["wait", NAMESPACE, "pod", "--all", "--for=condition=Ready", "--timeout=90s"])?;
    let _forward = forward(cluster)?;
    let policies = eventually(PATIENCE, "policies of what both nodes saw", || {
        habit(cluster)?;
        let policies = suggested("--since=1h")?;
        let both = ["\"k8s:app\": asker", "\"k8s:app\": asked", "\"k8s:k8s-app\": kube-dns", "\"8080\""];
        for part in both {
            ensure!(policies.contains(part), "{part} is missing in:\n{policies}");
        }
        Ok(policies)
    })?;
    // Before, everybody may ask everybody.
    let address = |pod: &str| -> Result<String> {
        Ok(format!("http://{}:8080/hostname", cluster.pod_addresses("habit", pod)?[0]))
    };
    let unseen = [("stranger", address("asked")?), ("asker", address("stranger")?), ("asked", address("asker")?)];
    cluster.apply(&policies)?;
    for (from, url) in &unseen {
        eventually(PATIENCE, &format!("{from} may not ask {url}"), || {
            ensure!(asks(cluster, from, url).is_err(), "it is answered; the policies are\n{policies}");
            Ok(())
        })?;
    }
    for _ in 0..20 {
        habit(cluster)?;
    }
    // The probes of the kubelet, too: pods are ready still.
    cluster.kubectl(&["wait", NAMESPACE, "pod", "--all", "--for=condition=Ready", "--timeout=10s"])?;
    cluster.kubectl(&["delete", NAMESPACE, "--all", "ciliumnetworkpolicies"])?;
    for (from, url) in &unseen {
        eventually(PATIENCE, &format!("{from} may ask {url} without policies"), || asks(cluster, from, url))?;
    }
    cluster.kubectl(&["delete", "namespace", "habit", "--wait=false"]).map(drop)
}
