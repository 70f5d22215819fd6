// SPDX-License-Identifier: Apache-2.0
//! The page in a headless Chromium, before a cluster with real flows; `ui/browser/lab.mjs` looks at it.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use lab::probe::{Cluster, eventually};
use lab::product;

use crate::PATIENCE;
use crate::drops::CLOSED;
use crate::hubble::forward_service;

/// The port of the machine that the guide forwards to the UI.
const FORWARDED: &str = "12000";

/// `client` may not, whatever else allows it.
const KEEP_OUT: &str = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: { name: keep-out, namespace: net }\n\
    spec:\n  endpointSelector: { matchLabels: { app: echo } }\n  \
    ingressDeny: [{ fromEndpoints: [{ matchLabels: { app: client } }] }]\n";

/// What the browser finds in a stage.
fn look(stage: &str) -> Result<String> {
    let mut script = Command::new("node");
    script.arg(product::repository("ui/browser/lab.mjs")).env("STAGE", stage);
    let output =
        script.env("UI", format!("http://localhost:{FORWARDED}")).output().context("node; see scripts/bootstrap")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

fn ask(cluster: &Cluster) -> Result<()> {
    let ip = cluster.pod_addresses("net", "near")?[0];
    cluster.exec("net", "client", &["curl", "-fsS", "-m", "1", &format!("http://{ip}:8080/hostname")]).map(drop)
}

pub(crate) fn denied(cluster: &Cluster) -> Result<()> {
    let _forward = forward_service(cluster, "hubble-ui", FORWARDED)?;
    let end = AtomicBool::new(false);
    let told = thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                // Whether it may is what the page shows.
                let _ = ask(cluster);
            }
        });
        let told = stages(cluster);
        end.store(true, Ordering::Relaxed);
        told
    });
    let words = ["delete", "--namespace=net", "--ignore-not-found", "--all", "ciliumnetworkpolicies"];
    cluster.kubectl(&words)?;
    told
}

fn stages(cluster: &Cluster) -> Result<()> {
    look("allowed")?;
    cluster.apply(CLOSED)?;
    let said = look("denied")?;
    let proposed = said.lines().find_map(|line| serde_json::from_str::<String>(line).ok()).context(said.clone())?;
    cluster.apply(&proposed)?;
    eventually(PATIENCE, &format!("this policy lets the client in: {proposed}"), || ask(cluster))?;
    cluster.apply(KEEP_OUT)?;
    look("ruled").map(drop)
}
