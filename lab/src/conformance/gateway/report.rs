// SPDX-License-Identifier: Apache-2.0
//! What the suite says: each test in its log, and each profile in its report.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// The results of a run.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) summary: Summary,
    pub(super) passed: Vec<String>,
    /// With those of their parts that failed.
    pub(super) failed: Vec<(String, Vec<String>)>,
    /// Tests that were not run, with the suite's reason.
    pub(super) unsupported: Vec<(String, String)>,
}

/// The suite's own report.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    #[serde(rename = "gatewayAPIVersion")]
    pub(super) version: String,
    #[serde(rename = "gatewayAPIChannel")]
    pub(super) channel: String,
    #[serde(default)]
    pub(super) profiles: Vec<Profile>,
}

/// A profile: what every implementation has of it, and what some have.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Profile {
    pub(super) name: String,
    #[serde(default)]
    pub(super) core: Part,
    #[serde(default)]
    pub(super) extended: Part,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Part {
    pub(super) statistics: Statistics,
    pub(super) supported_features: Vec<String>,
    pub(super) unsupported_features: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Statistics {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) skipped: u32,
}

impl Report {
    /// Reads log and report. A test that began and has no end has failed.
    pub(super) fn read(log: &str, summary: &str) -> Result<Self> {
        let summary = serde_saphyr::from_str(summary).context("cannot read the suite's report")?;
        let mut report = Self { summary, ..Self::default() };
        // The results come last, all at once.
        let mut reasons = BTreeMap::new();
        let mut begun = Vec::new();
        for line in log.lines().map(str::trim_start) {
            if let Some(test) = line.strip_prefix("=== RUN ").and_then(test) {
                begun.push(test.to_owned());
            } else if let Some((test, feature)) = left_out(line) {
                reasons.insert(test, feature);
            } else if let Some(test) = line.strip_prefix("--- PASS: ").and_then(test) {
                report.passed.push(test.to_owned());
            } else if let Some(test) = line.strip_prefix("--- SKIP: ").and_then(test) {
                let feature = reasons.get(test).copied().unwrap_or("feature for it");
                report.unsupported.push((test.to_owned(), feature.to_owned()));
            } else if let Some(test) = line.strip_prefix("--- FAIL: ").and_then(test) {
                report.failed.push((test.to_owned(), Vec::new()));
            } else if let (Some(path), Some((_, parts))) = (line.strip_prefix("--- FAIL: "), report.failed.last_mut()) {
                parts.extend(part(path));
            }
        }
        begun.retain(|test| !report.knows(test));
        report.failed.extend(begun.into_iter().map(|test| (test, vec!["it did not end".to_owned()])));
        report.passed.sort();
        report.failed.sort();
        report.unsupported.sort();
        Ok(report)
    }

    fn knows(&self, test: &str) -> bool {
        self.passed.iter().any(|one| one == test)
            || self.failed.iter().any(|(one, _)| one == test)
            || self.unsupported.iter().any(|(one, _)| one == test)
    }
}

/// The name of a test of the suite; nothing of a test's part.
fn test(path: &str) -> Option<&str> {
    let name = path.trim().strip_prefix("TestConformance/")?.split(' ').next()?;
    (!name.contains('/')).then_some(name)
}

/// A test that is not run, and the feature that it would need.
fn left_out(line: &str) -> Option<(&str, &str)> {
    line.split_once(": Skipping ")?.1.split_once(": suite does not support ")
}

/// The name of a test's part.
fn part(path: &str) -> Option<String> {
    let (_, part) = path.trim().strip_prefix("TestConformance/")?.split_once('/')?;
    let (part, _) = part.rsplit_once(" (").unwrap_or((part, ""));
    Some(part.replace('_', " "))
}

#[cfg(test)]
pub(super) mod tests {
    use super::Report;

    pub(in super::super) const LOG: &str = "\
=== RUN   TestConformance
=== RUN   TestConformance/TCPRouteWeight
=== RUN   TestConformance/Mesh
    conformance.go:56: Skipping Mesh: suite does not support Mesh
=== RUN   TestConformance/HTTPRouteCORS
=== RUN   TestConformance/HTTPRouteCORS/a_preflight_request
=== RUN   TestConformance/GatewayLost
--- FAIL: TestConformance (1.00s)
    --- PASS: TestConformance/TCPRouteWeight (0.50s)
        --- PASS: TestConformance/TCPRouteWeight/a_part (0.10s)
    --- SKIP: TestConformance/Mesh (0.00s)
    --- FAIL: TestConformance/HTTPRouteCORS (0.17s)
        --- FAIL: TestConformance/HTTPRouteCORS/a_preflight_request (30.00s)
        --- PASS: TestConformance/HTTPRouteCORS/another (0.10s)
";
    pub(in super::super) const SUMMARY: &str = "\
gatewayAPIChannel: experimental
gatewayAPIVersion: v1.6.3
profiles:
- core:
    result: success
    statistics: {Failed: 0, Passed: 36, Skipped: 0}
  extended:
    failedTests: [HTTPRouteCORS]
    result: failure
    statistics: {Failed: 1, Passed: 2, Skipped: 0}
    supportedFeatures: [HTTPRouteCORS]
    unsupportedFeatures: [HTTPRouteRetry]
  name: GATEWAY-HTTP
";

    #[test]
    fn each_test_has_its_result_and_one_without_an_end_has_failed() {
        let report = Report::read(LOG, SUMMARY).unwrap();
        assert_eq!(report.passed, ["TCPRouteWeight"]);
        assert_eq!(report.unsupported, [("Mesh".to_owned(), "Mesh".to_owned())]);
        let failed = [("GatewayLost", "it did not end"), ("HTTPRouteCORS", "a preflight request")];
        assert_eq!(report.failed, failed.map(|(test, part)| (test.to_owned(), vec![part.to_owned()])));
        assert_eq!(report.summary.profiles[0].core.statistics.passed, 36);
        assert_eq!(report.summary.profiles[0].extended.unsupported_features, ["HTTPRouteRetry"]);
    }

    #[test]
    fn a_report_that_is_none_is_an_error() {
        assert!(Report::read(LOG, "profiles: 3").is_err());
    }
}
