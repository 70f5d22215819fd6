// SPDX-License-Identifier: Apache-2.0
//! The findings of `cilium status`, and how they are shown.

use crate::table::Table;
use rest::StatusResponse;
use serde::Serialize;
use std::collections::BTreeMap;

/// The components in the order of the summary: title, name of the workload.
pub(super) const COMPONENTS: [(&str, &str); 5] = [
    ("Cilium", "cilium"),
    ("Operator", "cilium-operator"),
    ("Envoy DaemonSet", "cilium-envoy"),
    ("Hubble Relay", "hubble-relay"),
    ("ClusterMesh", "clustermesh-apiserver"),
];

/// All findings.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Report {
    /// Pods by workload and image.
    pub(super) image_count: BTreeMap<String, BTreeMap<String, usize>>,
    /// Pods by workload and phase.
    pub(super) phase_count: BTreeMap<String, BTreeMap<String, usize>>,
    /// Workloads.
    pub(super) pod_state: BTreeMap<String, Workload>,
    /// Pods of the whole cluster.
    pub(super) pods_count: PodsCount,
    /// The status each agent reports.
    pub(super) cilium_status: BTreeMap<String, Option<StatusResponse>>,
    /// By workload and pod.
    pub(super) errors: BTreeMap<String, BTreeMap<String, Findings>>,
    /// What could not be determined.
    pub(super) collection_errors: Vec<String>,
    /// Version of the chart.
    pub(super) helm_chart_version: String,
    /// Warnings about the configuration.
    pub(super) config_errors: Vec<String>,
}

/// A DaemonSet or Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Workload {
    #[serde(rename = "Type")]
    pub(super) kind: String,
    pub(super) desired: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
    pub(super) unavailable: i32,
}

/// Pods that need a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PodsCount {
    pub(super) all: usize,
    pub(super) by_cilium: usize,
}

/// What is wrong with one component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Findings {
    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) disabled: bool,
}

impl Report {
    pub(super) fn error(&mut self, workload: &str, pod: &str, text: impl Into<String>) {
        self.findings(workload, pod).errors.push(text.into());
    }

    pub(super) fn warning(&mut self, workload: &str, pod: &str, text: impl Into<String>) {
        self.findings(workload, pod).warnings.push(text.into());
    }

    pub(super) fn disabled(&mut self, workload: &str) {
        self.findings(workload, workload).disabled = true;
    }

    fn findings(&mut self, workload: &str, pod: &str) -> &mut Findings {
        self.errors.entry(workload.to_owned()).or_default().entry(pod.to_owned()).or_default()
    }

    fn all_findings(&self) -> impl Iterator<Item = (&str, &str, &Findings)> {
        self.errors.iter().flat_map(|(workload, pods)| {
            pods.iter().map(move |(pod, findings)| (workload.as_str(), pod.as_str(), findings))
        })
    }

    /// Whether nothing is wrong.
    pub(super) fn is_good(&self, ignore_warnings: bool) -> bool {
        let fine = |f: &Findings| f.errors.is_empty() && (ignore_warnings || f.warnings.is_empty());
        self.collection_errors.is_empty() && self.all_findings().all(|(_, _, findings)| fine(findings))
    }

    fn summary(&self, workload: &str, color: bool) -> String {
        let paint = |code: &str, text: String| if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text };
        let findings: Vec<_> = self.errors.get(workload).map(|pods| pods.values().collect()).unwrap_or_default();
        let errors: usize = findings.iter().map(|f| f.errors.len()).sum();
        let warnings: usize = findings.iter().map(|f| f.warnings.len()).sum();
        let mut parts = Vec::new();
        if errors > 0 {
            parts.push(paint("31", format!("{errors} errors")));
        }
        if warnings > 0 {
            parts.push(paint("33", format!("{warnings} warnings")));
        }
        if !parts.is_empty() {
            return parts.join(", ");
        }
        match findings.iter().any(|f| f.disabled) {
            true if workload == "cilium-envoy" => paint("36", "disabled (using embedded mode)".to_owned()),
            true => paint("36", "disabled".to_owned()),
            false => paint("32", "OK".to_owned()),
        }
    }

    /// The report for people.
    pub(super) fn render(&self, color: bool) -> String {
        let paint = |code: &str, text: &str| if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
        let logo = [
            (paint("33", "    /¯¯\\"), None),
            (format!("{}{}{}", paint("36", " /¯¯"), paint("33", "\\__/"), paint("32", "¯¯\\")), COMPONENTS.first()),
            (format!("{}{}{}", paint("36", " \\__"), paint("31", "/¯¯\\"), paint("32", "__/")), COMPONENTS.get(1)),
            (format!("{}{}{}", paint("32", " /¯¯"), paint("31", "\\__/"), paint("35", "¯¯\\")), COMPONENTS.get(2)),
            (format!("{}{}{}", paint("32", " \\__"), paint("34", "/¯¯\\"), paint("35", "__/")), COMPONENTS.get(3)),
            (paint("34", "    \\__/"), COMPONENTS.get(4)),
        ];
        let mut text = String::new();
        for (index, (line, component)) in logo.iter().enumerate() {
            text.push_str(line);
            if let Some((title, workload)) = component {
                let indent = if index == 5 { "   " } else { "" };
                let title = format!("{title}:");
                text.push_str(&format!("{indent}    {title:<20}{}", self.summary(workload, color)));
            }
            text.push('\n');
        }
        format!("{text}\n{}", self.rows())
    }

    fn rows(&self) -> Table {
        let mut table = Table::with_gap(4);
        for (name, w) in &self.pod_state {
            let share = |n: i32| format!("{n}/{}", w.desired);
            let mut state =
                format!("Desired: {}, Ready: {}, Available: {}", w.desired, share(w.ready), share(w.available));
            if w.unavailable > 0 {
                state.push_str(&format!(", Unavailable: {}", share(w.unavailable)));
            }
            table.row([w.kind.as_str(), name, &state]);
        }
        section(
            &mut table,
            "Containers:",
            self.phase_count.iter().map(|(name, phases)| {
                let phases: Vec<String> = phases.iter().map(|(phase, count)| format!("{phase}: {count}")).collect();
                (name.clone(), phases.join(", "))
            }),
        );
        let pods = &self.pods_count;
        table.row(["Cluster Pods:".to_owned(), format!("{}/{} managed by Cilium", pods.by_cilium, pods.all)]);
        if !self.helm_chart_version.is_empty() {
            table.row(["Helm chart version:", &self.helm_chart_version]);
        }
        let images = self.image_count.iter().flat_map(|(name, images)| {
            images.iter().map(move |(image, count)| (name.clone(), format!("{image}: {count}")))
        });
        section(&mut table, "Image versions", images);
        let found = |pick: fn(&Findings) -> &Vec<String>| {
            self.all_findings()
                .flat_map(move |(workload, pod, f)| pick(f).iter().map(move |text| (workload, pod, text)))
                .map(|(workload, pod, text)| vec![workload.to_owned(), pod.to_owned(), text.clone()])
                .collect::<Vec<_>>()
        };
        let collection = self.collection_errors.iter().map(|e| vec![String::new(), String::new(), e.clone()]);
        wide_section(&mut table, "Errors:", found(|f| &f.errors).into_iter().chain(collection));
        wide_section(&mut table, "Warnings:", found(|f| &f.warnings));
        wide_section(
            &mut table,
            "Configuration:",
            self.config_errors.iter().map(|e| vec![String::new(), String::new(), e.clone()]),
        );
        table
    }
}

fn section(table: &mut Table, title: &str, rows: impl Iterator<Item = (String, String)>) {
    wide_section(table, title, rows.map(|(name, value)| vec![name, value]));
}

/// Rows, with the title on the first one only.
fn wide_section(table: &mut Table, title: &str, rows: impl IntoIterator<Item = Vec<String>>) {
    for (index, mut row) in rows.into_iter().enumerate() {
        row.insert(0, if index == 0 { title.to_owned() } else { String::new() });
        table.row(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        let mut report = Report { helm_chart_version: "0.1.0".to_owned(), ..Report::default() };
        let workload =
            |kind: &str, n| Workload { kind: kind.to_owned(), desired: n, ready: n, available: n, unavailable: 0 };
        report.pod_state.insert("cilium".to_owned(), workload("DaemonSet", 2));
        report.pod_state.insert("cilium-operator".to_owned(), workload("Deployment", 1));
        let count = |n: usize, what: &str| BTreeMap::from([(what.to_owned(), n)]);
        report.phase_count.insert("cilium".to_owned(), count(2, "Running"));
        report.phase_count.insert("cilium-operator".to_owned(), count(1, "Running"));
        report.image_count.insert("cilium".to_owned(), count(2, "quay.io/cilium-rs/cilium:dev"));
        report.pods_count = PodsCount { all: 3, by_cilium: 3 };
        report.disabled("cilium-envoy");
        report.disabled("hubble-relay");
        report.disabled("clustermesh-apiserver");
        report
    }

    #[test]
    fn a_good_cluster_looks_as_people_know_it() {
        let report = good();
        assert!(report.is_good(false));
        assert_eq!(report.render(false), include_str!("../../tests/golden/cilium-status.txt"));
    }

    #[test]
    fn errors_and_warnings_are_counted_and_listed() {
        let mut report = good();
        report.error("cilium", "cilium-abc", "controller x is failing");
        report.warning("cilium", "cilium-abc", "cluster health: 1/2 reachable");
        let text = report.render(false);
        assert!(text.contains("Cilium:             1 errors, 1 warnings\n"), "{text}");
        assert!(text.contains("Errors:") && text.contains("cilium-abc    controller x is failing\n"), "{text}");
        assert!(!report.is_good(true));
        assert!(report.render(true).contains("\u{1b}[31m1 errors\u{1b}[0m"));
    }

    #[test]
    fn warnings_alone_can_be_ignored() {
        let mut report = good();
        report.warning("cilium", "cilium-abc", "odd");
        assert!(!report.is_good(false) && report.is_good(true));
    }
}
