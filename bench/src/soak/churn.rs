// SPDX-License-Identifier: Apache-2.0
//! Creates and deletes objects. Requests that fail because the API server is away or hangs are dropped, which is part of the soak.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::NODES;
use crate::clock;
use crate::cluster::{Cluster, pause};
use crate::run;

const APPS: [&str; 4] = ["a", "b", "c", "d"];
/// The most objects of each kind at a time.
const NAMESPACES: usize = 4;
const EACH: usize = 12;
const KINDS: [&str; 4] = ["pods", "networkpolicies", "ciliumnetworkpolicies", "services"];

/// The objects, as far as requests succeeded.
#[derive(Debug, Default)]
pub(super) struct Churn {
    namespaces: BTreeSet<String>,
    objects: BTreeSet<(&'static str, String, String)>,
    made: usize,
    deleted: usize,
    refused: usize,
}

impl Churn {
    /// Creates or deletes one object.
    pub(super) fn step(&mut self, cluster: &Cluster, random: &mut StdRng) {
        let number: u32 = random.random_range(0..10_000);
        let is_done = if self.namespaces.is_empty() || random.random_ratio(1, 20) {
            self.namespace(cluster, number, random)
        } else {
            self.object(cluster, number, random)
        };
        self.refused += usize::from(!is_done);
    }

    fn namespace(&mut self, cluster: &Cluster, number: u32, random: &mut StdRng) -> bool {
        let all: Vec<String> = self.namespaces.iter().cloned().collect();
        if let Some(name) = all.choose(random).filter(|_| all.len() >= NAMESPACES) {
            let gone = ask(cluster, &["delete", "namespace", name, "--wait=false"]);
            if gone {
                self.namespaces.remove(name);
                self.objects.retain(|(_, namespace, _)| namespace != name);
                self.deleted += 1;
            }
            return gone;
        }
        let name = format!("soak-{number}");
        let made = apply(cluster, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        if made {
            self.namespaces.insert(name);
            self.made += 1;
        }
        made
    }

    fn object(&mut self, cluster: &Cluster, number: u32, random: &mut StdRng) -> bool {
        let kind = *KINDS.choose(random).unwrap_or(&"pods");
        let present: Vec<_> = self.objects.iter().filter(|(of, ..)| *of == kind).cloned().collect();
        // As many are created as deleted once there are some.
        if let Some(gone) = present.choose(random).filter(|_| random.random_range(0..EACH) < present.len()) {
            let (_, namespace, name) = gone;
            let done = ask(cluster, &["-n", namespace, "delete", kind, name, "--wait=false", "--ignore-not-found"]);
            if done {
                self.objects.remove(gone);
                self.deleted += 1;
            }
            return done;
        }
        let namespaces: Vec<String> = self.namespaces.iter().cloned().collect();
        let Some(namespace) = namespaces.choose(random) else { return true };
        let name = format!("x{number}");
        let made = apply(cluster, &object(kind, namespace, &name, random));
        if made {
            self.objects.insert((kind, namespace.clone(), name));
            self.made += 1;
        }
        made
    }

    /// Waits until all pods are Ready and all deleted namespaces are gone.
    pub(super) fn settled(&self, cluster: &Cluster) -> Result<()> {
        clock::poll(super::REST, super::BREATH, || {
            let there = namespaces(cluster)?;
            ensure!(there == self.namespaces, "there are {there:?}, expected {:?}", self.namespaces);
            for namespace in self.objects.iter().filter(|(kind, ..)| *kind == "pods").map(|(_, namespace, _)| namespace)
            {
                let wait = ["-n", namespace, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=20s"];
                cluster.kubectl(&wait)?;
            }
            Ok(())
        })
    }

    /// Deletes everything.
    pub(super) fn clear(&mut self, cluster: &Cluster) -> Result<()> {
        clock::poll(super::REST, super::BREATH, || {
            let there = namespaces(cluster)?;
            for namespace in &there {
                cluster.kubectl(&["delete", "namespace", namespace, "--wait=false"])?;
            }
            ensure!(there.is_empty(), "there are {there:?}");
            Ok(())
        })
    }
}

impl fmt::Display for Churn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} objects made, {} deleted, {} requests refused", self.made, self.deleted, self.refused)
    }
}

/// Does not wait for a request that hangs.
const SOON: &str = "--request-timeout=5s";

/// Whether the request succeeded.
fn ask(cluster: &Cluster, arguments: &[&str]) -> bool {
    cluster.kubectl(&[&[SOON], arguments].concat()).is_ok()
}

fn apply(cluster: &Cluster, object: &Value) -> bool {
    let mut kubectl = cluster.kubectl_command(&[SOON, "apply", "--server-side", "-f", "-"]);
    run::with_input(&mut kubectl, &object.to_string()).is_ok()
}

fn namespaces(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let said = cluster.kubectl(&["get", "namespaces", "-o=name"])?;
    let names = said.lines().filter_map(|line| line.strip_prefix("namespace/"));
    Ok(names.filter(|name| name.starts_with("soak-")).map(str::to_owned).collect())
}

fn object(kind: &str, namespace: &str, name: &str, random: &mut StdRng) -> Value {
    let metadata = json!({"namespace": namespace, "name": name});
    let mut app = || json!({"app": APPS.choose(random).unwrap_or(&"a")});
    let (subject, peer) = (app(), app());
    let port = random.random_range(1..1024);
    match kind {
        "networkpolicies" => json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata,
            "spec": {
                "podSelector": {"matchLabels": subject},
                "ingress": [{"from": [{"podSelector": {"matchLabels": peer}}], "ports": [{"port": port}]}],
            },
        }),
        "ciliumnetworkpolicies" => json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata,
            "spec": {
                "endpointSelector": {"matchLabels": subject},
                "egress": [
                    {"toEndpoints": [{"matchLabels": peer}]},
                    {"toCIDR": [format!("198.51.{}.0/24", port % 256)],
                     "toPorts": [{"ports": [{"port": port.to_string(), "protocol": "TCP"}]}]},
                ],
            },
        }),
        "services" => json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"selector": subject, "ports": [{"port": port}]},
        }),
        _ => {
            let node = NODES.choose(random).unwrap_or(&NODES[0]);
            let mut pod = pause(name, node, &subject);
            if let Some(place) = pod.pointer_mut("/metadata/namespace") {
                *place = namespace.into();
            }
            pod
        }
    }
}
