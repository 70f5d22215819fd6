// SPDX-License-Identifier: Apache-2.0
//! Kubernetes' own end-to-end tests, run in the lab against whatever network is installed, and a page about what they found.

mod page;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::state::{self, Lab};
use crate::topology::CONTROL;
use crate::{namespace, run};
use report::{Outcome, Spec};

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
    #[arg(long, default_value_t = 2)]
    procs: u8,
    /// Write a page of results to this file, in Markdown.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// The test runner's report, in the folder of the run.
const REPORT: &str = "report.json";

/// A spec that cannot pass here, whatever the network does.
type Inapplicable = (Spec, String);

/// Runs the chosen specs. An error says how many failed.
pub(crate) fn conform(lab: &Lab, options: &Options) -> Result<String> {
    let folder = lab.folder.join("conformance");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let reasons = reasons(&fs::read_to_string("/proc/net/protocols").unwrap_or_default());

    let chosen = chosen(lab, options, &folder)?;
    let mut inapplicable: Vec<Inapplicable> = chosen.iter().filter_map(|spec| known(spec, &reasons)).collect();
    let mut specs = Vec::new();
    if inapplicable.len() < chosen.len() {
        let skips = std::iter::once(options.skip.clone()).chain(reasons.iter().map(|(part, _)| literally(part)));
        let skips = skips.filter(|skip| !skip.is_empty()).collect::<Vec<_>>().join("|");
        let flags = [format!("--procs={}", options.procs), format!("--skip={skips}")];
        // From the bridge, as a machine beside the nodes: some specs reach for them.
        namespace::run_in(lab, CONTROL, &ginkgo(lab, options, &folder, &flags.each_ref().map(String::as_str))?)?;
        specs = report::read(&folder.join(REPORT))?;
    }
    // Some find out only when they run that they ask for another kind of cluster.
    let (declined, specs): (Vec<Spec>, Vec<Spec>) =
        specs.into_iter().partition(|spec| spec.outcome() == Outcome::Declined);
    inapplicable.extend(declined.into_iter().map(|spec| (spec.clone(), spec.message().to_owned())));
    inapplicable.sort_by_key(|(spec, _)| spec.name());

    if let Some(path) = &options.report {
        state::write(path, page::page(&specs, &inapplicable, options))?;
    }
    let failed = specs.iter().filter(|spec| spec.outcome() == Outcome::Failed).count();
    let rest = format!("{} not applicable", inapplicable.len());
    if failed > 0 {
        bail!("{failed} of {} specs failed, {rest} (focus '{}')", specs.len(), options.focus);
    }
    if specs.is_empty() {
        bail!("no spec was run, {rest} (focus '{}')", options.focus);
    }
    Ok(format!("{} specs passed, {rest}", specs.len()))
}

/// The specs that are chosen, without running them.
fn chosen(lab: &Lab, options: &Options, folder: &Path) -> Result<Vec<Spec>> {
    let words = ginkgo(lab, options, folder, &["--dry-run", &format!("--skip={}", options.skip)])?;
    let (program, arguments) = words.split_first().context("no command")?;
    run::output(Command::new(program).args(arguments))?;
    report::read(&folder.join(REPORT))
}

/// The command that calls the test runner. A report of an earlier run is removed.
fn ginkgo(lab: &Lab, options: &Options, folder: &Path, how: &[&str]) -> Result<Vec<String>> {
    let (runner, suite) = (lab.program("ginkgo"), lab.program("e2e.test"));
    for program in [&runner, &suite] {
        if !program.exists() {
            bail!("{} is missing: run lab/kube/build.sh e2e", program.display());
        }
    }
    let _ = fs::remove_file(folder.join(REPORT));
    let shown = |path: &Path| path.to_string_lossy().into_owned();
    let mut command = vec![shown(&runner), format!("--focus={}", options.focus)];
    command.extend(how.iter().map(|flag| (*flag).to_owned()));
    command.extend([
        format!("--json-report={REPORT}"),
        format!("--output-dir={}", shown(folder)),
        "--timeout=4h".to_owned(),
        "--succinct".to_owned(),
        "--silence-skips".to_owned(),
        shown(&suite),
        "--".to_owned(),
        "--provider=local".to_owned(),
        // Counted by itself, it is known to the first of the parallel processes only, and the others decline specs for two nodes.
        format!("--num-nodes={}", lab.spec.topology.nodes),
        format!("--kubeconfig={}", shown(&lab.pki("admin.kubeconfig"))),
        format!("--kubectl-path={}", shown(&lab.program("kubectl"))),
        format!("--report-dir={}", shown(folder)),
    ]);
    Ok(command)
}

/// Parts of the names of specs that cannot pass here, and why: the list, and what the kernel lacks.
fn reasons(protocols: &str) -> Vec<(&'static str, &'static str)> {
    let lines = include_str!("conformance/inapplicable.txt").lines().filter(|line| !line.starts_with('#'));
    let mut reasons: Vec<_> =
        lines.filter_map(|line| line.split_once("    ")).map(|(part, why)| (part, why.trim())).collect();
    if !protocols.lines().any(|line| line.starts_with("SCTP")) {
        reasons.push(("SCTPConnectivity", "the kernel of the machine has no SCTP"));
    }
    reasons
}

fn known(spec: &Spec, reasons: &[(&str, &str)]) -> Option<Inapplicable> {
    let name = spec.name();
    let (_, why) = reasons.iter().find(|(part, _)| name.contains(part))?;
    Some((spec.clone(), (*why).to_owned()))
}

/// A regular expression that matches a text and nothing else.
fn literally(text: &str) -> String {
    text.chars().flat_map(|c| (!c.is_alphanumeric() && c != ' ').then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_has_a_part_of_a_name_and_a_reason() {
        let lines = include_str!("conformance/inapplicable.txt").lines();
        let lines = lines.filter(|line| !line.starts_with('#') && !line.is_empty()).count();
        let reasons = reasons("SCTP 1\n");
        assert_eq!(reasons.len(), lines);
        assert!(reasons.iter().all(|(part, why)| !part.is_empty() && !why.is_empty()), "{reasons:?}");
    }

    #[test]
    fn a_kernel_without_sctp_is_a_reason() {
        assert!(reasons("TCP 1\nUDP 1\n").contains(&("SCTPConnectivity", "the kernel of the machine has no SCTP")));
        assert!(!reasons("SCTP 1\n").iter().any(|(part, _)| *part == "SCTPConnectivity"));
    }

    #[test]
    fn parts_of_names_are_matched_literally() {
        assert_eq!(literally("a [b]: c=d"), "a \\[b\\]\\: c\\=d");
    }
}
