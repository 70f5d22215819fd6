// SPDX-License-Identifier: Apache-2.0
//! Kubernetes' own end-to-end tests, run in the lab against whatever network is installed, and a page about what they found.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::namespace;
use crate::state::{self, Lab};
use crate::topology::CONTROL;

/// What to run, and where to write about it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Regular expression over the names of the specs to run.
    #[arg(long, default_value = r"\[sig-network\] (Networking|DNS)")]
    focus: String,
    /// Regular expression over the names of the specs to leave out.
    #[arg(long, default_value = r"\[Slow\]|\[Disruptive\]|\[Serial\]|\[Flaky\]")]
    skip: String,
    /// How many specs at the same time.
    #[arg(long, default_value_t = 4)]
    procs: u8,
    /// Write a page of results to this file, in Markdown.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// What the test runner says of one spec.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_text: String,
    leaf_node_type: String,
    state: String,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    message: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    spec_reports: Vec<Spec>,
}

/// Runs the chosen specs. An error says how many failed.
pub(crate) fn run(lab: &Lab, options: &Options) -> Result<String> {
    let (runner, suite) = (lab.program("ginkgo"), lab.program("e2e.test"));
    for program in [&runner, &suite] {
        if !program.exists() {
            bail!("{} is missing: run lab/kube/build.sh e2e", program.display());
        }
    }
    let folder = lab.folder.join("conformance");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = folder.join("report.json");
    let _ = fs::remove_file(&file);
    let unfit = unfit(&fs::read_to_string("/proc/net/protocols").unwrap_or_default());
    let skips = std::iter::once(options.skip.as_str()).chain(unfit.iter().map(|(pattern, _)| *pattern));
    let shown = |path: &Path| path.to_string_lossy().into_owned();
    let command = [
        shown(&runner),
        format!("--procs={}", options.procs),
        format!("--focus={}", options.focus),
        format!("--skip={}", skips.filter(|skip| !skip.is_empty()).collect::<Vec<_>>().join("|")),
        "--json-report=report.json".to_owned(),
        format!("--output-dir={}", shown(&folder)),
        "--timeout=4h".to_owned(),
        "--succinct".to_owned(),
        "--silence-skips".to_owned(),
        shown(&suite),
        "--".to_owned(),
        "--provider=local".to_owned(),
        format!("--kubeconfig={}", shown(&lab.pki("admin.kubeconfig"))),
        format!("--kubectl-path={}", shown(&lab.program("kubectl"))),
        format!("--report-dir={}", shown(&folder)),
    ];
    // From the bridge, as a machine beside the nodes: some specs reach for them.
    namespace::run_in(lab, CONTROL, &command)?;
    let specs = ran(&file)?;
    if let Some(page) = &options.report {
        state::write(page, self::page(&specs, options, &unfit))?;
    }
    let failed = specs.iter().filter(|spec| spec.state != "passed").count();
    if specs.is_empty() || failed > 0 {
        bail!("{failed} of {} specs failed (focus '{}')", specs.len(), options.focus);
    }
    Ok(format!("{} specs passed", specs.len()))
}

/// The specs that this kernel cannot serve, whatever the network: a pattern, and the reason.
fn unfit(protocols: &str) -> Vec<(&'static str, &'static str)> {
    let has_sctp = protocols.lines().any(|line| line.starts_with("SCTP"));
    if has_sctp { vec![] } else { vec![("SCTPConnectivity", "the kernel of the machine has no SCTP")] }
}

/// The specs that were run, in the order of their names.
fn ran(file: &Path) -> Result<Vec<Spec>> {
    let text = fs::read_to_string(file).context("the test runner wrote no report: see its output above")?;
    let suites: Vec<Suite> = serde_json::from_str(&text).with_context(|| format!("cannot read {}", file.display()))?;
    let all = suites.into_iter().flat_map(|suite| suite.spec_reports);
    let mut specs: Vec<Spec> = all.filter(|spec| spec.leaf_node_type == "It" && spec.state != "skipped").collect();
    specs.sort_by_key(Spec::name);
    Ok(specs)
}

impl Spec {
    fn name(&self) -> String {
        let mut words = self.container_hierarchy_texts.clone().unwrap_or_default();
        words.push(self.leaf_node_text.clone());
        words.join(" ")
    }
}

fn page(specs: &[Spec], options: &Options, unfit: &[(&str, &str)]) -> String {
    let (passed, failed): (Vec<_>, Vec<_>) = specs.iter().partition(|spec| spec.state == "passed");
    let mut text = format!(
        "# Conformance\n\nWhat Kubernetes' own end-to-end tests find, run in the lab by `make conformance`. This page is generated.\n\n\
         | chosen by | left out | run | passed | failed |\n| --- | --- | --- | --- | --- |\n| `{}` | `{}` | {} | {} | {} |\n",
        options.focus.replace('|', "\\|"),
        options.skip.replace('|', "\\|"),
        specs.len(),
        passed.len(),
        failed.len(),
    );
    for (pattern, reason) in unfit {
        let _ = writeln!(text, "\nNot applicable: `{pattern}`, since {reason}.");
    }
    if !failed.is_empty() {
        text.push_str("\n## Failed\n\n");
    }
    for spec in failed {
        let why = spec.failure.as_ref().map_or("", |failure| failure.message.lines().next().unwrap_or_default());
        let _ = writeln!(text, "- {}: {why}", spec.name());
    }
    text.push_str("\n## Passed\n\n");
    for spec in passed {
        let _ = writeln!(text, "- {}", spec.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_what_failed_and_why_and_leaves_out_what_did_not_run() {
        let folder = std::env::temp_dir().join(format!("lab-conformance-{}", std::process::id()));
        let file = folder.join("report.json");
        let report = r#"[{"SpecReports": [
            {"ContainerHierarchyTexts": ["[sig-network] DNS"], "LeafNodeText": "b", "LeafNodeType": "It", "State": "failed", "Failure": {"Message": "timed out\nstack"}},
            {"ContainerHierarchyTexts": ["[sig-network] DNS"], "LeafNodeText": "a", "LeafNodeType": "It", "State": "passed"},
            {"ContainerHierarchyTexts": null, "LeafNodeText": "c", "LeafNodeType": "It", "State": "skipped"},
            {"LeafNodeText": "", "LeafNodeType": "SynchronizedBeforeSuite", "State": "passed"}]}]"#;
        state::write(&file, report).unwrap();
        let specs = ran(&file).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let options = Options { focus: "x|y".into(), skip: "z".into(), procs: 1, report: None };
        let text = page(&specs, &options, &unfit("TCP 1\nUDP 1\n"));
        assert!(text.contains("| `x\\|y` | `z` | 2 | 1 | 1 |"), "{text}");
        assert!(text.contains("- [sig-network] DNS b: timed out\n"), "{text}");
        assert!(text.contains("Not applicable: `SCTPConnectivity`"), "{text}");
        assert!(text.contains("## Passed\n\n- [sig-network] DNS a\n"), "{text}");
    }
}
