// SPDX-License-Identifier: Apache-2.0
//! The test runner's report, in JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// What came of a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// It started, and found that it needs another kind of cluster.
    Declined,
    /// It was not chosen.
    Unchosen,
}

/// The report of one spec.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Spec {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_text: String,
    leaf_node_type: String,
    state: String,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    message: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    spec_reports: Vec<Spec>,
}

impl Spec {
    /// Its full name.
    pub(super) fn name(&self) -> String {
        let mut words = self.container_hierarchy_texts.clone().unwrap_or_default();
        words.push(self.leaf_node_text.clone());
        words.join(" ")
    }

    /// What came of it.
    pub(super) fn outcome(&self) -> Outcome {
        match self.state.as_str() {
            "passed" => Outcome::Passed,
            "skipped" if self.message().is_empty() => Outcome::Unchosen,
            "pending" => Outcome::Unchosen,
            "skipped" => Outcome::Declined,
            _ => Outcome::Failed,
        }
    }

    /// The first line of the reason for its failure or skip.
    pub(super) fn message(&self) -> &str {
        self.failure.as_ref().map_or("", |failure| failure.message.lines().next().unwrap_or_default())
    }
}

/// The chosen specs, by name.
pub(super) fn read(file: &Path) -> Result<Vec<Spec>> {
    let text = fs::read_to_string(file).context("the test runner wrote no report: see its output above")?;
    let suites: Vec<Suite> = serde_json::from_str(&text).with_context(|| format!("cannot read {}", file.display()))?;
    let all = suites.into_iter().flat_map(|suite| suite.spec_reports);
    let chosen = all.filter(|spec| spec.leaf_node_type == "It" && spec.outcome() != Outcome::Unchosen);
    let mut specs: Vec<Spec> = chosen.collect();
    specs.sort_by_key(Spec::name);
    Ok(specs)
}
