// SPDX-License-Identifier: Apache-2.0
//! Runs Kubernetes' own end-to-end tests in the lab, against whatever network is installed, and writes a page with the results.

pub(crate) mod gateway;
mod page;
mod report;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::state::{self, Lab};
use crate::topology::{BRIDGE, CONTROL};
use crate::{namespace, run};
use report::{Outcome, Spec};

/// What to run, and where to write the results.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Regular expression over the names of the specs to run.
    #[arg(long, default_value = r"\[sig-network\] (Networking|DNS)")]
    focus: String,
    /// Regular expression over the names of the specs to leave out.
    #[arg(long, default_value = r"\[Slow\]|\[Disruptive\]|\[Serial\]|\[Flaky\]")]
    skip: String,
    /// How many specs to run at the same time.
    #[arg(long, default_value_t = 2)]
    procs: u8,
    /// Write a page of results to this file, in Markdown.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The commit under test, for the page.
    #[arg(long, value_name = "COMMIT", default_value = "unknown")]
    commit: String,
}

/// From where load balancers are asked: the clients of a cloud's are in another network than the nodes, and some specs take one in the nodes' for a node. The
/// nodes' way there is their default route.
const CLIENT: &str = "172.31.77.1";
/// What `lab/manifests/addresses.yaml` gives to load balancers.
const LOAD_BALANCERS: &str = "192.168.77.192/26";

/// The test runner's report, in the folder of the run.
const REPORT: &str = "report.json";

/// The results of the chosen specs, by name, with the reason where one did not pass.
#[derive(Debug, Default)]
struct Results {
    passed: Vec<String>,
    failed: Vec<(String, String)>,
    /// Specs that cannot pass here, whatever the network does.
    inapplicable: Vec<(String, String)>,
}

/// Runs the chosen specs. The error says how many failed.
pub(crate) fn conform(lab: &Lab, options: &Options) -> Result<String> {
    let folder = lab.folder.join("conformance");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let reasons = inapplicable(&fs::read_to_string("/proc/net/protocols").unwrap_or_default());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot tell the kernel's version")?;

    let chosen = chosen(lab, options, &folder)?;
    let mut run = Vec::new();
    if chosen.iter().any(|spec| known(spec, &reasons).is_none()) {
        let skips = std::iter::once(options.skip.clone()).chain(reasons.iter().map(|(part, _)| literally(part)));
        let skips = skips.filter(|skip| !skip.is_empty()).collect::<Vec<_>>().join("|");
        let flags = [format!("--procs={}", options.procs), format!("--skip={skips}")];
        ask_from_elsewhere(lab)?;
        // From the bridge, as a machine beside the nodes: some specs connect to them.
        namespace::run_in(lab, CONTROL, &ginkgo(lab, options, &folder, &flags.each_ref().map(String::as_str))?)?;
        run = report::read(&folder.join(REPORT))?;
    }
    let results = Results::new(&chosen, &run, &reasons);
    if let Some(path) = &options.report {
        state::write(path, page::page(&results, options, kernel.trim()))?;
    }
    let Results { passed, failed, inapplicable } = results;
    let rest = format!("{} not applicable", inapplicable.len());
    if !failed.is_empty() {
        let all = passed.len() + failed.len();
        bail!("{} of {all} specs failed, {rest} (focus '{}')", failed.len(), options.focus);
    }
    if passed.is_empty() {
        bail!("no spec was run, {rest} (focus '{}')", options.focus);
    }
    Ok(format!("{} specs passed, {rest}", passed.len()))
}

impl Results {
    fn new(chosen: &[Spec], run: &[Spec], reasons: &[Reason]) -> Self {
        let run: BTreeMap<String, &Spec> = run.iter().map(|spec| (spec.name(), spec)).collect();
        let unmet = listed(include_str!("conformance/unmet.txt"));
        let mut results = Self::default();
        for spec in chosen {
            let name = spec.name();
            let why = |message: &str| known(spec, &unmet).unwrap_or(message).to_owned();
            match run.get(&name).map(|spec| (spec.outcome(), spec.message())) {
                Some((Outcome::Passed, _)) => results.passed.push(name),
                // Some specs find out only at run time that they need another kind of cluster.
                Some((Outcome::Declined, message)) => results.inapplicable.push((name, message.to_owned())),
                Some((Outcome::Failed, message)) => results.failed.push((name, why(message))),
                Some((Outcome::Unchosen, _)) | None => match known(spec, reasons) {
                    Some(reason) => results.inapplicable.push((name, reason.to_owned())),
                    None => results.failed.push((name, why("the run ended before it"))),
                },
            }
        }
        results
    }
}

/// Gives the machine that runs the specs its address as a client of load balancers.
fn ask_from_elsewhere(lab: &Lab) -> Result<()> {
    if !lab.spec.topology.ipv4 {
        return Ok(());
    }
    let control = namespace::first_process(lab, CONTROL)?;
    let batch =
        format!("address replace {CLIENT}/32 dev {BRIDGE}\nroute replace {LOAD_BALANCERS} dev {BRIDGE} src {CLIENT}\n");
    run::ip(&["nsenter", &format!("--net=/proc/{control}/ns/net")], &batch)
}

/// The chosen specs, without running them.
fn chosen(lab: &Lab, options: &Options, folder: &Path) -> Result<Vec<Spec>> {
    let words = ginkgo(lab, options, folder, &["--dry-run", &format!("--skip={}", options.skip)])?;
    let (program, arguments) = words.split_first().context("no command")?;
    run::output(Command::new(program).args(arguments))?;
    report::read(&folder.join(REPORT))
}

/// The command line of the test runner. The report of an earlier run is removed.
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
        // The runner counts nodes in the first of its parallel processes only, and the others then skip specs for two nodes.
        format!("--num-nodes={}", lab.spec.topology.nodes),
        format!("--kubeconfig={}", shown(&lab.pki("admin.kubeconfig"))),
        format!("--kubectl-path={}", shown(&lab.program("kubectl"))),
        format!("--report-dir={}", shown(folder)),
    ]);
    Ok(command)
}

/// A part of spec names, and why such specs cannot pass.
type Reason = (&'static str, &'static str);

/// The specs that cannot pass here: those on the list, and those that need what the kernel lacks.
fn inapplicable(protocols: &str) -> Vec<Reason> {
    let mut reasons = listed(include_str!("conformance/inapplicable.txt"));
    if !protocols.lines().any(|line| line.starts_with("SCTP")) {
        reasons.push(("SCTPConnectivity", "the kernel of the machine has no SCTP"));
    }
    reasons
}

fn listed(list: &'static str) -> Vec<Reason> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once("    ")).map(|(part, why)| (part, why.trim())).collect()
}

fn known(spec: &Spec, reasons: &[Reason]) -> Option<&'static str> {
    let name = spec.name();
    reasons.iter().find(|(part, _)| name.contains(part)).map(|(_, why)| *why)
}

/// A regular expression that matches exactly this text.
fn literally(text: &str) -> String {
    text.chars().flat_map(|c| (!c.is_alphanumeric() && c != ' ').then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(states: &[(&str, &str)]) -> Vec<Spec> {
        let spec = |(name, state): &(&str, &str)| {
            format!(
                r#"{{"LeafNodeText": "{name}", "LeafNodeType": "It", "State": "{state}", "Failure": {{"Message": "m"}}}}"#
            )
        };
        states.iter().map(|one| serde_json::from_str(&spec(one)).unwrap()).collect()
    }

    #[test]
    fn a_chosen_spec_that_was_not_run_has_failed_unless_it_cannot_pass_here() {
        let names = ["good", "bad", "lost", "for another cluster", "check kube-proxy urls"];
        let chosen = specs(&names.map(|name| (name, "passed")));
        let run = specs(&[("good", "passed"), ("bad", "timedout"), ("for another cluster", "skipped")]);
        let results = Results::new(&chosen, &run, &inapplicable("SCTP 1\n"));
        assert_eq!(results.passed, ["good"]);
        let pair = |name: &str, why: &str| (name.to_owned(), why.to_owned());
        assert_eq!(results.failed, [pair("bad", "m"), pair("lost", "the run ended before it")]);
        let other = [pair("for another cluster", "m"), pair("check kube-proxy urls", "there is no kube-proxy")];
        assert_eq!(results.inapplicable, other);
    }

    #[test]
    fn what_we_do_not_do_is_run_and_has_failed_with_the_reason() {
        let spec = "should allow egress access to server in CIDR block";
        let reasons = inapplicable("SCTP 1\n");
        let results = Results::new(&specs(&[(spec, "passed")]), &specs(&[(spec, "failed")]), &reasons);
        assert!(results.failed[0].1.starts_with("CIDR rules"), "{results:?}");
        assert!(results.inapplicable.is_empty());
    }

    #[test]
    fn every_line_of_the_lists_has_a_part_of_a_name_and_a_reason() {
        for list in [include_str!("conformance/inapplicable.txt"), include_str!("conformance/unmet.txt")] {
            let lines = list.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
            let reasons = listed(list);
            assert_eq!(reasons.len(), lines);
            assert!(reasons.iter().all(|(part, why)| !part.is_empty() && !why.is_empty()), "{reasons:?}");
        }
    }

    #[test]
    fn a_kernel_without_sctp_is_a_reason() {
        assert!(
            inapplicable("TCP 1\nUDP 1\n").contains(&("SCTPConnectivity", "the kernel of the machine has no SCTP"))
        );
        assert!(!inapplicable("SCTP 1\n").iter().any(|(part, _)| *part == "SCTPConnectivity"));
    }

    #[test]
    fn load_balancers_are_asked_from_another_network_than_the_nodes() {
        let block = |text: &str, bits: u32| text.parse::<std::net::Ipv4Addr>().unwrap().to_bits() >> (32 - bits);
        let node = crate::topology::Topology { nodes: 1, ipv4: true, ipv6: false }.places()[0].addresses[0].to_string();
        assert_ne!(block(CLIENT, 16), block(&node, 16), "specs compare that much");
        let (start, length) = LOAD_BALANCERS.split_once('/').unwrap();
        let length = length.parse().unwrap();
        let pool = include_str!("../manifests/addresses.yaml");
        let of_pool = pool.split(&[' ', ',']).filter(|word| word.starts_with("192.168."));
        assert_eq!(of_pool.map(|ip| block(ip, length)).collect::<Vec<_>>(), [block(start, length); 2]);
    }

    #[test]
    fn parts_of_names_are_matched_literally() {
        assert_eq!(literally("a [b]: c=d"), "a \\[b\\]\\: c\\=d");
    }
}
