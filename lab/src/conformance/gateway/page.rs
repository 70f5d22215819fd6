// SPDX-License-Identifier: Apache-2.0
//! The page about a run: each profile in figures, what failed, what is not there, and what passed.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Options;
use super::report::{Part, Report};

/// The page, in Markdown.
pub(super) fn page(report: &Report, options: &Options, kernel: &str) -> String {
    let summary = &report.summary;
    let mut text = format!(
        "# Conformance with Gateway API\n\nWhat the suite of Gateway API {} ({} channel) finds of the GatewayClass and the mesh, run in the lab by \
         `make conformance SUITE=gateway`. This page is generated.\n\nCommit {}, Linux {kernel}. {} tests passed, {} failed, {} were not run.\n\n\
         | profile | core: passed | failed | skipped | extended: passed | failed | skipped | features that are not there |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        summary.version,
        summary.channel,
        options.commit,
        report.passed.len(),
        report.failed.len(),
        report.unsupported.len(),
    );
    for profile in &summary.profiles {
        let unsupported = match profile.extended.unsupported_features.join(", ") {
            none if none.is_empty() => "none".to_owned(),
            some => some,
        };
        let (core, extended) = (figures(&profile.core), figures(&profile.extended));
        let _ = writeln!(text, "| {} | {core} | {extended} | {unsupported} |", profile.name);
    }
    let declared: BTreeSet<&str> =
        summary.profiles.iter().flat_map(|profile| &profile.extended.supported_features).map(String::as_str).collect();
    let declared = declared.into_iter().collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "\nExtended features that class and mesh have by their own word: {declared}.");
    if !report.failed.is_empty() {
        text.push_str("\n## Failed\n\n");
    }
    for (test, parts) in &report.failed {
        let _ = writeln!(text, "- {test}{}{}", if parts.is_empty() { "" } else { ": " }, parts.join("; "));
    }
    if !report.unsupported.is_empty() {
        text.push_str("\n## Not run\n\n");
    }
    for (test, feature) in &report.unsupported {
        let _ = writeln!(text, "- {test}: the class has no {feature}");
    }
    text.push_str("\n## Passed\n\n");
    for test in &report.passed {
        let _ = writeln!(text, "- {test}");
    }
    text
}

fn figures(part: &Part) -> String {
    let statistics = &part.statistics;
    format!("{} | {} | {}", statistics.passed, statistics.failed, statistics.skipped)
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{LOG, SUMMARY};
    use super::*;

    #[test]
    fn the_page_has_what_failed_and_what_is_not_there() {
        let options = Options {
            class: "cilium".into(),
            mesh: "io.cilium/gateway-controller".into(),
            profiles: "GATEWAY-HTTP".into(),
            only: None,
            report: None,
            commit: "0123abc".into(),
        };
        let text = page(&Report::read(LOG, SUMMARY).unwrap(), &options, "6.1.0");
        for part in [
            "Gateway API v1.6.3 (experimental channel)",
            "\nCommit 0123abc, Linux 6.1.0. 1 tests passed, 2 failed, 1 were not run.\n",
            "\n| GATEWAY-HTTP | 36 | 0 | 0 | 2 | 1 | 0 | HTTPRouteRetry |\n",
            "by their own word: HTTPRouteCORS.\n",
            "\n## Failed\n\n- GatewayLost: it did not end\n- HTTPRouteCORS: a preflight request\n",
            "\n## Not run\n\n- Mesh: the class has no Mesh\n",
            "\n## Passed\n\n- TCPRouteWeight\n",
        ] {
            assert!(text.contains(part), "no '{part}' in {text}");
        }
    }
}
