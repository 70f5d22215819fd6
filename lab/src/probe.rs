// SPDX-License-Identifier: Apache-2.0
//! For tests: uses a lab as a user would, with kubectl and with commands on nodes and in pods, and retries until it answers.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::state::Lab;
use crate::{capture, clock, images, run};

/// Retries until there is an answer; fails with the last error once `limit` has passed.
pub fn eventually<T>(limit: Duration, what: &str, ask: impl FnMut() -> Result<T>) -> Result<T> {
    clock::poll(limit, what, ask)
}

/// Checks repeatedly for as long as `span` that something holds; fails the first time it does not.
pub fn stays(span: Duration, what: &str, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let end = clock::now() + span;
    while clock::now() < end {
        check().with_context(|| format!("{what}: did not stay so"))?;
        clock::breathe(Duration::from_millis(100));
    }
    Ok(())
}

/// A running lab, as tests use it.
#[derive(Debug, Clone)]
pub struct Cluster {
    lab: Lab,
    command: PathBuf,
}

impl Cluster {
    /// A lab by name. `command` is a program that takes the lab's commands, or the words `lab` and then a command.
    pub fn open(name: &str, command: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self { lab: Lab::open(name)?, command: command.into() })
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The path of the administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.lab.kubeconfig()
    }

    /// The names of the nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        self.lab.spec.topology.places().into_iter().map(|place| place.name).collect()
    }

    /// What kubectl answers.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run::output(self.kubectl_command().args(arguments))
    }

    /// kubectl, for calls that go on.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        self.lab.kubectl()
    }

    /// An object, or a list of them, as JSON.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = run::output(self.lab.kubectl().arg("get").args(arguments).args(["-o", "json"]))?;
        serde_json::from_str(&text).context("kubectl did not answer in JSON")
    }

    /// Applies a manifest given as text.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        run::with_input(self.lab.kubectl().args(["apply", "-f", "-"]), manifest).map(drop)
    }

    /// Applies a manifest from a file or folder.
    pub fn apply_file(&self, path: &Path) -> Result<()> {
        run::output(self.lab.kubectl().args(["apply", "-f"]).arg(path)).map(drop)
    }

    /// Runs a command in a pod (`name`, or `deployment/name`), with kubectl exec.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
        run::output(self.lab.kubectl().args(["exec", "--namespace", namespace, pod, "--"]).args(command))
    }

    /// Waits until there are pods that match a selector, and all are Ready.
    pub fn pods_ready(&self, namespace: &str, selector: &str, limit: Duration) -> Result<()> {
        eventually(limit, &format!("pods '{selector}' in {namespace}"), || {
            let list = self.get(&["pods", "--namespace", namespace, "--selector", selector])?;
            let pods = list.pointer("/items").and_then(Value::as_array).cloned().unwrap_or_default();
            match pods.iter().find(|pod| !condition(pod, "Ready")) {
                None if pods.is_empty() => bail!("there is none"),
                None => Ok(()),
                Some(pod) => bail!("{} is not Ready", pod.pointer("/metadata/name").unwrap_or(&Value::Null)),
            }
        })
    }

    /// Waits until every node is Ready.
    pub fn nodes_ready(&self, limit: Duration) -> Result<()> {
        eventually(limit, "nodes", || {
            let list = self.get(&["nodes"])?;
            let nodes = list.pointer("/items").and_then(Value::as_array).cloned().unwrap_or_default();
            match nodes.iter().find(|node| !condition(node, "Ready")) {
                None if nodes.is_empty() => bail!("there is none"),
                None => Ok(()),
                Some(node) => bail!("{} is not Ready", node.pointer("/metadata/name").unwrap_or(&Value::Null)),
            }
        })
    }

    /// Runs a command on a node, in its namespaces and cgroup, and returns its output whatever its exit status.
    pub fn node(&self, node: &str, command: &[&str]) -> Result<Output> {
        let mut call = self.lab_command();
        call.args(["node", node, "--"]).args(command);
        call.output().with_context(|| format!("cannot run {command:?} on {node}"))
    }

    /// The output of a shell script on a node; fails if the script does.
    pub fn shell(&self, node: &str, script: &str) -> Result<String> {
        let output = self.node(node, &["sh", "-c", script])?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "'{script}' on {node} ends with {}: {errors}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The addresses of a pod, of every family.
    pub fn pod_addresses(&self, namespace: &str, pod: &str) -> Result<Vec<IpAddr>> {
        let object = self.get(&["pod", "--namespace", namespace, pod])?;
        let list = object.pointer("/status/podIPs").and_then(Value::as_array);
        let list = list.with_context(|| format!("{namespace}/{pod} has no addresses"))?;
        Ok(list.iter().filter_map(|one| one.get("ip")?.as_str()?.parse().ok()).collect())
    }

    /// The addresses of a Service inside of the cluster, of every family.
    pub fn service_addresses(&self, namespace: &str, service: &str) -> Result<Vec<IpAddr>> {
        let object = self.get(&["service", "--namespace", namespace, service])?;
        let list = object.pointer("/spec/clusterIPs").and_then(Value::as_array);
        let list = list.with_context(|| format!("{namespace}/{service} has no addresses"))?;
        Ok(list.iter().filter_map(|one| one.as_str()?.parse().ok()).collect())
    }

    /// `lab fault VERB TARGET`.
    pub fn fault(&self, verb: &str, target: &str) -> Result<String> {
        run::output(self.lab_command().args(["fault", verb, target]))
    }

    /// Loads an image archive onto every node, restarts a workload (`daemonset/cilium`) that uses it, and waits until it runs:
    /// from a fresh build to a running agent.
    pub fn reload(&self, archive: &Path, namespace: &str, workload: &str) -> Result<()> {
        images::load(&self.lab, &[archive.to_owned()])?;
        self.kubectl(&["rollout", "restart", "--namespace", namespace, workload])?;
        self.kubectl(&["rollout", "status", "--namespace", namespace, workload, "--timeout=120s"]).map(drop)
    }

    /// Collects state and logs into a folder.
    pub fn capture(&self, to: &Path) -> Result<PathBuf> {
        capture::capture(&self.lab, to)
    }

    /// Runs a test body; if it fails, collects everything into target/lab-failures/NAME and adds the path to the error.
    pub fn test(&self, name: &str, body: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        body(self).map_err(|error| {
            let to = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/lab-failures").join(name);
            let kept = match self.capture(&to) {
                Ok(folder) => format!("state and logs are in {}", folder.display()),
                Err(why) => format!("and nothing could be collected: {why:#}"),
            };
            error.context(kept)
        })
    }

    fn lab_command(&self) -> Command {
        let mut command = Command::new(&self.command);
        command.args(["--name", &self.lab.spec.name]);
        command
    }
}

/// Whether an object has a condition of a type with the status True.
fn condition(object: &Value, kind: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition.get("type").and_then(Value::as_str) == Some(kind)
            && condition.get("status").and_then(Value::as_str) == Some("True")
    })
}
