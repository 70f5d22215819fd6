// SPDX-License-Identifier: Apache-2.0
//! Results as lines of a table and of a file. Targets are shown beside the figures, and never asserted.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{run, stats};

/// One figure.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figure {
    /// Part of the run.
    pub(crate) section: String,
    /// What was measured.
    pub(crate) what: String,
    /// The arm: `plain`, `ptp`, `ours`, ...
    pub(crate) arm: String,
    /// The figure; the median if there are several rounds.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: String,
    /// Median of single transactions, in the unit of `latency_unit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50: Option<f64>,
    /// Their 99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99: Option<f64>,
    /// Unit of `p50` and `p99`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_unit: Option<&'static str>,
    /// Processor time of the whole machine per transaction, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_us: Option<f64>,
    /// Median of the rounds' ratios to the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// 95 % interval of that ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_interval: Option<(f64, f64)>,
    /// The reference's median transaction time divided by this one's: depends less on other load than the rates do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_ratio: Option<f64>,
    /// The target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    /// The figure of each round.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rounds: Vec<f64>,
}

impl Figure {
    /// A figure without anything else.
    pub(crate) fn new(what: impl Into<String>, arm: impl Into<String>, value: f64, unit: impl Into<String>) -> Self {
        Self { what: what.into(), arm: arm.into(), value, unit: unit.into(), ..Self::default() }
    }

    /// Median and percentiles of single times, in milliseconds.
    pub(crate) fn times(what: impl Into<String>, arm: impl Into<String>, milliseconds: &[f64]) -> Self {
        Self {
            p50: Some(stats::percentile(milliseconds, 0.5)),
            p99: Some(stats::percentile(milliseconds, 0.99)),
            latency_unit: Some("ms"),
            ..Self::new(what, arm, stats::median(milliseconds), "ms")
        }
    }

    /// With a target.
    pub(crate) fn target(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }

    fn cells(&self) -> [String; 8] {
        let number = |value: f64| match value.abs() {
            v if v >= 1000.0 => format!("{value:.0}"),
            v if v >= 100.0 => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        };
        let unit = self.latency_unit.unwrap_or_default();
        let latency = match (self.p50, self.p99) {
            (Some(p50), Some(p99)) => format!("{} / {} {unit}", number(p50), number(p99)),
            _ => String::new(),
        };
        let ratio = match (self.ratio, self.ratio_interval) {
            (Some(ratio), Some((low, high))) => format!("{ratio:.3} [{low:.3}, {high:.3}]"),
            (Some(ratio), None) => format!("{ratio:.3}"),
            _ => String::new(),
        };
        [
            self.what.clone(),
            self.arm.clone(),
            format!("{} {}", number(self.value), self.unit),
            latency,
            self.cpu_us.map(|cpu| format!("{} us", number(cpu))).unwrap_or_default(),
            ratio,
            self.latency_ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default(),
            self.target.clone().unwrap_or_default(),
        ]
    }
}

/// A part without figures, and the reason.
#[derive(Clone, Debug, Serialize)]
struct Failure {
    section: String,
    reason: String,
}

/// All results of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    figures: Vec<Figure>,
    failures: Vec<Failure>,
}

#[derive(Debug, Default, Serialize)]
struct Machine {
    /// Which state of the sources was measured; with a plus if it was changed since.
    commit: String,
    kernel: String,
    processors: usize,
    processor: String,
    memory_mib: u64,
}

const HEADINGS: [&str; 8] = ["what", "of", "figure", "p50 / p99", "cpu each", "to plain [95 %]", "by p50", "target"];

impl Report {
    /// An empty report for this machine.
    pub(crate) fn of_machine() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default();
        let machine = Machine {
            commit: commit(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            memory_mib: kib / 1024,
        };
        Self { machine, ..Self::default() }
    }

    /// Adds and prints a part's figures, or the reason why there are none.
    pub(crate) fn add(&mut self, section: &str, figures: Result<Vec<Figure>>) {
        match figures {
            Ok(figures) => {
                let figures: Vec<_> =
                    figures.into_iter().map(|figure| Figure { section: section.to_owned(), ..figure }).collect();
                eprintln!("{}", table(&figures));
                self.figures.extend(figures);
            }
            Err(error) => {
                eprintln!("{section} gave no figures: {error:#}");
                self.failures.push(Failure { section: section.to_owned(), reason: format!("{error:#}") });
            }
        }
    }

    /// Writes the file and prints the table. False if a part failed.
    pub(crate) fn finish(&self, path: &Path) -> Result<bool> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", table(&self.figures));
        for Failure { section, reason } in &self.failures {
            println!("{section}: no figures: {reason}");
        }
        println!("written to {}", path.display());
        Ok(self.failures.is_empty())
    }
}

fn commit() -> String {
    let git = |arguments: &[&str]| run::output(std::process::Command::new("git").args(arguments)).ok();
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return String::new() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    format!("{}{}", head.trim(), if changed { "+" } else { "" })
}

/// A table with columns as wide as necessary.
fn table(figures: &[Figure]) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(figures.iter().map(Figure::cells));
    let mut widths = [0; HEADINGS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; HEADINGS.len()]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Figure, table};

    #[test]
    fn a_table_has_a_line_per_figure_with_its_target() {
        let figure = Figure { ratio: Some(1.0123), ..Figure::new("RR", "ours", 12345.6, "transactions/s") };
        let text = table(&[figure.target(">= 1.0")]);
        let line = text.lines().nth(1).unwrap_or_default();
        assert!(line.contains("12346 transactions/s") && line.contains("1.012") && line.ends_with(">= 1.0"), "{text}");
    }
}
