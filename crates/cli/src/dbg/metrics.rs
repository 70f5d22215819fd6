// SPDX-License-Identifier: Apache-2.0
//! `cilium-dbg metrics list`: the agent's metrics, as Prometheus would get them.

use super::Output;
use crate::curl;
use crate::table::Table;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Subcommand, Debug)]
pub(super) enum Commands {
    /// List all metrics.
    #[command(alias = "ls")]
    List {
        /// Only metrics whose name matches this regular expression.
        #[arg(long, short = 'p', default_value = "")]
        match_pattern: String,
        /// Where the agent serves metrics.
        #[arg(long, default_value = "localhost:9962")]
        address: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Metric {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

pub(super) async fn run(command: Commands) -> Result<()> {
    let Commands::List { match_pattern, address, output } = command;
    let pattern = regex::Regex::new(&match_pattern).context("--match-pattern")?;
    let text = fetch(&address).await.with_context(|| format!("get metrics from {address}: are they enabled?"))?;
    let mut metrics: Vec<Metric> = text.lines().filter_map(parse).collect();
    metrics.retain(|metric| pattern.is_match(&metric.name));
    output.format().print(&metrics, || table(&metrics).to_string())
}

async fn fetch(address: &str) -> Result<String> {
    let answer = curl::fetch(&format!("http://{address}/metrics"), &[]).await?;
    if !answer.status().is_success() {
        bail!("{}", answer.status());
    }
    Ok(String::from_utf8(answer.into_body().to_vec())?)
}

fn table(metrics: &[Metric]) -> Table {
    let mut table = Table::new(["Metric", "Labels", "Value"]);
    for metric in metrics {
        let labels: Vec<String> = metric.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        table.row([metric.name.clone(), labels.join(" "), format!("{:.6}", metric.value)]);
    }
    table
}

/// One line of the text format: `name{label="value",...} value [timestamp]`.
fn parse(line: &str) -> Option<Metric> {
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next()?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        other => other.parse().ok()?,
    };
    Some(Metric { name: name.to_owned(), labels, value })
}

/// The labels, and what follows the closing brace.
fn parse_labels(text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (mut value, mut escaped, mut end) = (String::new(), false, None);
        for (at, c) in after.char_indices() {
            match c {
                'n' if escaped => value.push('\n'),
                c if escaped => value.push(c),
                '\\' => {}
                '"' => {
                    end = Some(at);
                    break;
                }
                c => value.push(c),
            }
            escaped = !escaped && c == '\\';
        }
        rest = after.get(end? + 1..)?;
        labels.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format_is_read_with_labels_and_without() {
        let text = "# HELP x y\n# TYPE x counter\n\
            cilium_drop_count_total{direction=\"INGRESS\",reason=\"Policy \\\"denied\\\"\"} 3\n\
            cilium_endpoint 12 1700000000\nbuckets{le=\"+Inf\"} +Inf\n\nbroken{";
        let metrics: Vec<Metric> = text.lines().filter_map(parse).collect();
        assert_eq!(metrics.len(), 3);
        let reason = metrics.first().unwrap().labels.get("reason").unwrap();
        assert_eq!(reason, "Policy \"denied\"");
        let shown = table(metrics.get(1..2).unwrap()).to_string();
        assert_eq!(shown, "Metric            Labels   Value\ncilium_endpoint            12.000000\n");
    }
}
