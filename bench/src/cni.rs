// SPDX-License-Identifier: Apache-2.0
//! ADD and DEL of our plugin and of the reference plugin `ptp`, alternately: 200 in sequence, then 50 in parallel.
//!
//! Our agent knows pods from the API server, so there are Pod objects of these names, bound to the node; its kubelet is
//! held down meanwhile, so that it does not start them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::cluster::{Cluster, NAMESPACE, pause};
use crate::plugin::{Times, pod_name};
use crate::report::Figure;
use crate::traffic::ourselves;
use crate::{networks, run};

const NODE: &str = "node1";
const BATCHES: usize = 4;
const BATCH: usize = 50;

/// Pods that only the agent knows. Dropping this deletes them and starts the kubelet.
pub(crate) struct PaperPods<'a> {
    cluster: &'a Cluster,
    links: usize,
}

impl<'a> PaperPods<'a> {
    /// Creates this many pods, numbered from 0.
    pub(crate) fn create(cluster: &'a Cluster, count: usize) -> Result<Self> {
        cluster.namespace()?;
        let links = links(cluster)?;
        cluster.fault("stop", &format!("{NODE}/kubelet"))?;
        let pods = Self { cluster, links };
        let objects: Vec<_> =
            (0..count).map(|number| pause(&pod_name(number), NODE, &json!({"bench": "paper"}))).collect();
        for some in objects.chunks(100) {
            cluster.apply(some)?;
        }
        // Knowing the last one, the agent knows them all.
        pods.call(&["--first", &(count - 1).to_string(), "--count", "1"])?;
        Ok(pods)
    }

    /// Calls our plugin on the node.
    pub(crate) fn call(&self, arguments: &[&str]) -> Result<Times> {
        let mut command = self.cluster.on_node(NODE);
        command.arg(std::env::current_exe().context("where is this program?")?).arg("plugin");
        command.args(["--plugin", "/opt/cni/bin/cilium-cni", "--config", "/etc/cni/net.d/05-cilium.conflist"]);
        times(command.args(arguments))
    }

    /// Host interfaces of pods that are new since then.
    pub(crate) fn left_over(&self) -> Result<usize> {
        Ok(links(self.cluster)?.saturating_sub(self.links))
    }
}

impl Drop for PaperPods<'_> {
    fn drop(&mut self) {
        let gone = self.cluster.kubectl(&[
            "-n",
            NAMESPACE,
            "delete",
            "pod",
            "-l",
            "bench=paper",
            "--force",
            "--grace-period=0",
            "--wait=true",
            "--timeout=120s",
        ]);
        let runs = self.cluster.fault("restore", &format!("{NODE}/kubelet"));
        for error in [gone.map(drop), runs].into_iter().filter_map(Result::err) {
            eprintln!("cannot clean up: {error:#}");
        }
    }
}

fn links(cluster: &Cluster) -> Result<usize> {
    let said = run::output(cluster.on_node(NODE).args(["ip", "-oneline", "link", "show", "type", "veth"]))?;
    Ok(said.lines().filter(|line| line.contains(": lxc") && !line.contains("lxc_health")).count())
}

fn times(command: &mut Command) -> Result<Times> {
    let said = run::output(command)?;
    let times: Times = serde_json::from_str(&said).context("the caller of the plugin did not answer in JSON")?;
    match times.errors.first() {
        Some(error) => bail!("{error}"),
        None => Ok(times),
    }
}

/// Measures both plugins.
pub(crate) fn measure(cluster: &Cluster) -> Result<Vec<Figure>> {
    let reference = Reference::create()?;
    let pods = PaperPods::create(cluster, BATCH)?;
    let batch = BATCH.to_string();
    let mut sequence = [Times::default(), Times::default()];
    let [ours, ptp] = &mut sequence;
    for number in 0..BATCHES {
        eprint!("\r\x1b[K  batch {} of {BATCHES}", number + 1);
        append(ptp, reference.call(&["--count", &batch])?);
        append(ours, pods.call(&["--count", &batch])?);
    }
    eprint!("\r\x1b[K");
    let together = ["--count", &batch, "--parallel", &batch];
    let parallel = [pods.call(&together)?, reference.call(&together)?];
    let left = pods.left_over()?;
    let mut figures = Vec::new();
    for (times, how) in
        [(sequence, format!("{} in sequence", BATCH * BATCHES)), (parallel, format!("{BATCH} in parallel"))]
    {
        for (times, name) in times.into_iter().zip(["ours", "ptp, IPv4 only"]) {
            let add = Figure::times(format!("CNI ADD, {how}"), name, &times.add);
            let target = name == "ours" && times.add.len() > BATCH;
            figures.push(if target { add.target("p99 < 50 ms, aim 10") } else { add });
            figures.push(Figure::times(format!("CNI DEL, {how}"), name, &times.del));
        }
    }
    figures.push(Figure::new("interfaces left after DEL", "ours", left as f64, "").target("0"));
    Ok(figures)
}

fn append(to: &mut Times, more: Times) {
    to.add.extend(more.add);
    to.del.extend(more.del);
}

/// The reference plugin, in a namespace that serves as its node.
struct Reference {
    config: PathBuf,
}

const REFERENCE: &str = "cni-ptp";

impl Reference {
    fn create() -> Result<Self> {
        networks::node(REFERENCE)?;
        let config = PathBuf::from("/run/netns").join("cni-ptp.json");
        // IPv4 only: with IPv6 it waits one to two seconds for duplicate address detection.
        let text = networks::ptp_config(REFERENCE, &["10.98.0.0/22".to_owned()]);
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        Ok(Self { config })
    }

    fn call(&self, arguments: &[&str]) -> Result<Times> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", REFERENCE]).arg(ourselves("plugin")?.get_program());
        command.arg("plugin").arg("--plugin").arg(Path::new(networks::PLUGINS).join("ptp"));
        times(command.arg("--config").arg(&self.config).args(arguments))
    }
}
