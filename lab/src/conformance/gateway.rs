// SPDX-License-Identifier: Apache-2.0
//! Runs the conformance suite of Gateway API in the lab, against whatever has the GatewayClass, and writes a page with the results. The suite is
//! told nothing of what it is to find: it asks the class which features it has.

mod page;
mod report;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::state::{self, Lab};
use crate::topology::CONTROL;
use crate::{namespace, run};
use report::Report;

/// What to run, and where to write the results.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The GatewayClass to test.
    #[arg(long, default_value = "cilium")]
    class: String,
    /// The controller of the mesh to test.
    #[arg(long, default_value = "io.cilium/gateway-controller")]
    mesh: String,
    /// Profiles, separated by commas.
    #[arg(long, default_value = "GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP,GATEWAY-UDP,MESH-HTTP,MESH-GRPC")]
    profiles: String,
    /// The one test to run instead of all.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Write a page of results to this file, in Markdown.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The commit under test, for the page.
    #[arg(long, value_name = "COMMIT", default_value = "unknown")]
    commit: String,
}

/// Addresses of the nodes' network for Gateways, announced by the node that holds them. A Gateway may ask for the last of the first block.
const ADDRESSES: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
    {"apiVersion": "cilium.io/v2", "kind": "CiliumLoadBalancerIPPool", "metadata": {"name": "conformance"},
     "spec": {"blocks": [{"start": "192.168.77.130", "stop": "192.168.77.225"}, {"cidr": "fd77::200/120"}]}},
    {"apiVersion": "cilium.io/v2alpha1", "kind": "CiliumL2AnnouncementPolicy", "metadata": {"name": "conformance"},
     "spec": {"loadBalancerIPs": true, "interfaces": ["^eth[0-9]+"]}}]}"#;
/// The name of the mesh.
const MESH: &str = "conformance";
const USABLE: &str = "192.168.77.225";
/// Of no pool (RFC 5737).
const UNUSABLE: &str = "192.0.2.1";

/// Runs the suite. The error says how many tests failed.
pub(crate) fn conform(lab: &Lab, options: &Options) -> Result<String> {
    let suite = lab.program("gateway.test");
    if !suite.exists() {
        bail!("{} is missing: run lab/kube/build.sh gateway", suite.display());
    }
    let folder = lab.folder.join("gateway-conformance");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let (log, summary) = (folder.join("log"), folder.join("report.yaml"));
    for file in [&log, &summary] {
        let _ = fs::remove_file(file);
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot tell the kernel's version")?;
    run::with_input(lab.kubectl().args(["apply", "-f", "-"]), ADDRESSES)?;
    run::with_input(lab.kubectl().args(["apply", "-f", "-"]), &mesh(&options.mesh))?;
    let told = ["wait", "--for=condition=Accepted", "--timeout=60s", "xmesh", MESH];
    run::output(lab.kubectl().args(told)).context("nobody says what the mesh can do")?;

    // From the bridge, as a client beside the nodes.
    let mut command = ["sh", "-c", "exec \"$@\" >\"$0\" 2>&1"].map(str::to_owned).to_vec();
    command.push(log.to_string_lossy().into_owned());
    command.extend(words(lab, options, &summary.to_string_lossy()));
    namespace::run_in(lab, CONTROL, &command)?;

    let read = |file: &PathBuf| fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
    let said = read(&log)?;
    let summary = read(&summary).with_context(|| format!("the suite ended early:\n{}", run::tail(&log, 20)))?;
    let report = Report::read(&said, &summary)?;
    if let Some(path) = &options.report {
        state::write(path, page::page(&report, options, kernel.trim()))?;
    }
    let Report { passed, failed, unsupported, .. } = &report;
    let rest = format!("{} of features that the class has not; the log is {}", unsupported.len(), log.display());
    match (passed.len(), failed.len()) {
        (0, 0) => bail!("no test was run, {rest}"),
        (passed, 0) => Ok(format!("{passed} tests passed, {rest}")),
        (passed, failed) => bail!("{failed} of {} tests failed, {rest}", passed + failed),
    }
}

/// What the suite asks for the features of a mesh.
fn mesh(controller: &str) -> String {
    format!(
        r#"{{"apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XMesh", "metadata": {{"name": "{MESH}"}},
            "spec": {{"controllerName": "{controller}"}}}}"#
    )
}

/// The command line of the suite.
fn words(lab: &Lab, options: &Options, summary: &str) -> Vec<String> {
    let mut words = vec![
        "env".to_owned(),
        format!("KUBECONFIG={}", lab.pki("admin.kubeconfig").display()),
        lab.program("gateway.test").to_string_lossy().into_owned(),
    ];
    words.extend(
        ["-test.v", "-test.run=^TestConformance$", "-test.timeout=1h", "-organization=cilium-rs"].map(str::to_owned),
    );
    words.extend(
        ["-project=cilium-rs", "-url=https://github.com/cilium-rs/cilium-rs", "-contact=@cilium-rs"].map(str::to_owned),
    );
    words.extend([
        format!("-gateway-class={}", options.class),
        format!("-mesh-name={MESH}"),
        format!("-conformance-profiles={}", options.profiles),
        format!("-usable-address={USABLE}"),
        format!("-unusable-address={UNUSABLE}"),
        format!("-version={}", options.commit),
        format!("-report-output={summary}"),
    ]);
    words.extend(options.only.as_ref().map(|name| format!("-run-test={name}")));
    words
}
