// SPDX-License-Identifier: Apache-2.0
//! Certificates that are made in the cluster: `docs/guide/hubble-tls.md` with the method `cronJob`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::probe::{Cluster, eventually};
use lab::{clock, product};

use crate::hubble;

const NAMES: [&str; 3] = ["cilium-ca", "hubble-server-certs", "hubble-relay-client-certs"];
/// Days, other than those of the chart's own, so that one tells by its end who made a certificate.
const VALID: u64 = 200;
/// The kubelet looks for changed Secrets every minute or so, and agents at its files.
const TO_ARRIVE: Duration = Duration::from_secs(240);

fn part(cluster: &Cluster, name: &str, of: &str) -> Result<String> {
    cluster.kubectl(&["get", "secret", "--namespace=kube-system", name, &format!("-o=jsonpath={{{of}}}")])
}

/// Whether an agent shows a certificate that was made by the Job.
fn shows_it(cluster: &Cluster, node: &str) -> Result<()> {
    let text = product::in_agent(cluster, node, &["curl", "-s", "localhost:9962/metrics"])?;
    let line = text.lines().find(|line| line.starts_with("cilium_hubble_certificate_end_timestamp_seconds"));
    let ends: f64 = line.context("no metric")?.rsplit(' ').next().unwrap_or_default().parse()?;
    let days = (ends - clock::seconds_since_1970() as f64) / 86_400.0;
    ensure!((VALID as f64 - 1.0..=VALID as f64).contains(&days), "it ends in {days} days");
    Ok(())
}

pub(crate) fn by_a_job(cluster: &Cluster) -> Result<()> {
    let authority = part(cluster, "cilium-ca", ".data.ca\\.crt")?;
    let agents = hubble::restarts(cluster)?;
    let valid = format!("hubble.tls.auto.certValidityDuration={VALID}");
    product::upgrade(cluster, &["hubble.tls.auto.method=cronJob", &valid])?;
    eventually(TO_ARRIVE, "Secrets of the Job", || {
        for name in &NAMES[1..] {
            let maker = part(cluster, name, ".metadata.labels.app\\.kubernetes\\.io/managed-by")?;
            ensure!(maker == "cilium-certgen", "{name} is of {maker:?}");
            ensure!(part(cluster, name, ".data.ca\\.crt")? == authority, "{name}: another authority");
        }
        Ok(())
    })?;
    for node in cluster.nodes() {
        eventually(TO_ARRIVE, &format!("the new certificate at {node}"), || shows_it(cluster, &node))?;
    }
    ensure!(hubble::restarts(cluster)? == agents, "agents were restarted");
    // A relay that has the Job's certificate only, and agents that have.
    cluster.kubectl(&["rollout", "restart", "--namespace=kube-system", "deployment/hubble-relay"])?;
    hubble::whole_cluster(cluster)?;
    renewed(cluster)
}

/// What the schedule would do.
fn renewed(cluster: &Cluster) -> Result<()> {
    let before = part(cluster, "hubble-server-certs", ".data.tls\\.crt")?;
    let from = ["--from=cronjob/hubble-generate-certs", "--namespace=kube-system"];
    cluster.kubectl(&[&["create", "job", "by-hand"], &from[..]].concat())?;
    let complete = ["job/by-hand", "--namespace=kube-system", "--for=condition=Complete", "--timeout=90s"];
    cluster.kubectl(&[&["wait"], &complete[..]].concat())?;
    ensure!(part(cluster, "hubble-server-certs", ".data.tls\\.crt")? != before, "it is the same");
    cluster.kubectl(&["delete", "job", "--namespace=kube-system", "--all"]).map(drop)
}
