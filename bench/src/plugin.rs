// SPDX-License-Identifier: Apache-2.0
//! Calls a CNI plugin as a container runtime does: with environment, configuration on standard input, and an existing network
//! namespace. Runs in the network and mount namespace of the node.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{clock, networks, run};

/// What to call.
#[derive(Args, Clone, Debug)]
pub(crate) struct Calls {
    /// The plugin.
    #[arg(long)]
    pub(crate) plugin: PathBuf,
    /// Its configuration, or a list that begins with it.
    #[arg(long)]
    pub(crate) config: PathBuf,
    /// Number of the first pod; pods are named `pod-NUMBER`.
    #[arg(long, default_value_t = 0)]
    pub(crate) first: usize,
    /// How many pods.
    #[arg(long)]
    pub(crate) count: usize,
    /// How many at a time.
    #[arg(long, default_value_t = 1)]
    pub(crate) parallel: usize,
    /// Add, and leave them.
    #[arg(long, conflicts_with = "delete_only")]
    pub(crate) keep: bool,
    /// Delete what an earlier call left.
    #[arg(long)]
    pub(crate) delete_only: bool,
}

/// How long calls took, in milliseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) add: Vec<f64>,
    pub(crate) del: Vec<f64>,
    /// The first error, and how many there were.
    pub(crate) errors: Vec<String>,
}

/// Name of a pod.
pub(crate) fn pod_name(number: usize) -> String {
    format!("pod-{number}")
}

/// Calls ADD for all pods, then DEL.
pub(crate) fn run(calls: &Calls) -> Result<Times> {
    let config = configuration(&calls.config)?;
    let numbers: Vec<usize> = (calls.first..calls.first + calls.count).collect();
    let namespaces = |verb: &str| -> Result<()> {
        networks::ip(None, &numbers.iter().map(|pod| format!("netns {verb} {}\n", pod_name(*pod))).collect::<String>())
    };
    let mut times = Times::default();
    if !calls.delete_only {
        namespaces("add")?;
        times.add = all(calls, &config, "ADD", &numbers, &mut times.errors);
    }
    if !calls.keep {
        times.del = all(calls, &config, "DEL", &numbers, &mut times.errors);
        namespaces("delete")?;
    }
    Ok(times)
}

/// The first plugin's configuration, with the name and version of the list, as libcni passes it.
fn configuration(path: &PathBuf) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let list: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    let Some(mut first) = list.pointer("/plugins/0").cloned() else { return Ok(text) };
    for key in ["name", "cniVersion"] {
        if let (Some(object), Some(value)) = (first.as_object_mut(), list.get(key)) {
            object.insert(key.to_owned(), value.clone());
        }
    }
    Ok(first.to_string())
}

/// Calls one verb for all pods, with this many concurrent callers.
fn all(calls: &Calls, config: &str, verb: &str, numbers: &[usize], errors: &mut Vec<String>) -> Vec<f64> {
    let callers = calls.parallel.max(1);
    let results: Vec<Result<Duration>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers)
            .map(|caller| {
                let own = numbers.iter().skip(caller).step_by(callers);
                scope.spawn(move || own.map(|number| call(calls, config, verb, *number)).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let (took, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    if let Some(Err(first)) = failed.first() {
        errors.push(format!("{verb}: {} of {} calls failed: {first:#}", failed.len(), numbers.len()));
    }
    took.into_iter().flatten().map(clock::milliseconds).collect()
}

fn call(calls: &Calls, config: &str, verb: &str, number: usize) -> Result<Duration> {
    let pod = pod_name(number);
    let container = format!("{number:064x}");
    let mut command = Command::new(&calls.plugin);
    command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", &container).env("CNI_IFNAME", "eth0");
    command.env("CNI_NETNS", format!("/run/netns/{pod}"));
    command.env("CNI_PATH", calls.plugin.parent().unwrap_or(&calls.plugin));
    let namespace = crate::cluster::NAMESPACE;
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={pod};K8S_POD_INFRA_CONTAINER_ID={container}"
    );
    let begin = clock::now();
    run::with_input(command.env("CNI_ARGS", args), config)?;
    Ok(begin.elapsed())
}
