// SPDX-License-Identifier: Apache-2.0
//! Dashboards of the chart ask for metrics that there are.

use crate::{metrics, tree};
use serde_json::Value;
use std::collections::BTreeSet;

/// Suffixes that samples of a metric may have.
const SUFFIXES: [&str; 5] = ["", "_total", "_bucket", "_sum", "_count"];

/// The words of an expression that can be metrics of ours.
fn asked(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("cilium_") || word.starts_with("hubble_"))
}

/// Every expression of a dashboard, with the panel that it is of.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().unwrap();
        found.extend(targets.iter().map(|target| (text(&panel["title"]), text(&target["expr"]))));
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    found.extend(variables.iter().map(|variable| (text(&variable["name"]), text(&variable["query"]))));
    found
}

#[test]
fn dashboards_ask_for_metrics_that_there_are() {
    let names = metrics::names();
    let exists =
        |asked: &str| SUFFIXES.iter().filter_map(|suffix| asked.strip_suffix(suffix)).any(|name| names.contains(name));
    let mut used = BTreeSet::new();
    for name in ["cilium-dashboard", "cilium-operator-dashboard", "hubble-dashboard"] {
        let text = std::fs::read_to_string(tree(&format!("deploy/helm/cilium/files/dashboards/{name}.json"))).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(dashboard["uid"], name);
        for (panel, expression) in expressions(&dashboard) {
            for metric in asked(&expression) {
                assert!(exists(metric), "{name}, {panel}: there is no metric {metric}");
                used.insert(metric.to_owned());
            }
        }
    }
    assert!(used.len() > 30, "so few: {used:?}");
    assert!(!exists("cilium_endpoint_regenerations_total"), "what is not there is noticed");
}
