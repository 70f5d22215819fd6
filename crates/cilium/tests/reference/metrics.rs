// SPDX-License-Identifier: Apache-2.0
//! Metrics, read off pages that the registries and collectors of the daemons themselves write.

use crate::page::{Page, code, codes};
use std::collections::BTreeSet;

const TEXT: &str = "\
What `/metrics` of the daemons serves (`prometheus-serve-addr`, `operator-prometheus-serve-addr`), in the OpenMetrics text format. A counter has the
suffix `_total`; a histogram has `_bucket`, `_sum` and `_count`. A sample appears when there is something to count.";

const FLOWS: &str = "\
Metrics of flows, at `hubble-metrics-server`, as far as `hubble.metrics` asks for them. [Their labels](../guide/hubble.md#metrics) follow from its options.";

pub(crate) fn page() -> Page {
    let mut page = Page::new("Metrics", TEXT);
    page.heading(2, "cilium-agent");
    table(&mut page, &agent::example_metrics().unwrap());
    page.heading(2, "cilium-operator");
    table(&mut page, &operator::example_metrics());
    page.heading(2, "Hubble");
    page.text(FLOWS);
    table(&mut page, &hubble::example_metrics());
    page
}

/// The names of all metrics, without the suffixes of samples.
pub(crate) fn names() -> BTreeSet<String> {
    let pages = [agent::example_metrics().unwrap(), operator::example_metrics(), hubble::example_metrics()];
    pages.iter().flat_map(|page| parse(page)).map(|metric| metric.name).collect()
}

/// One metric of a page.
#[derive(Debug, Default, PartialEq)]
struct Metric {
    name: String,
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

fn table(page: &mut Page, metrics: &str) {
    let mut metrics = parse(metrics);
    metrics.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = metrics.into_iter().map(|metric| {
        let suffix = if metric.kind == "counter" { "_total" } else { "" };
        [code(&format!("{}{suffix}", metric.name)), metric.kind, codes(metric.labels), metric.help]
    });
    page.table(["metric", "type", "labels", "meaning"], rows);
}

fn parse(page: &str) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for line in page.lines().filter(|line| *line != "# EOF") {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let help = help.trim_end_matches('.').to_owned();
            metrics.push(Metric { name: name.to_owned(), help, ..Metric::default() });
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let metric = metrics.last_mut().filter(|metric| metric.name == name).unwrap();
            metric.kind = kind.to_owned();
        } else {
            let metric = metrics.last_mut().filter(|metric| line.starts_with(&metric.name)).unwrap();
            metric.labels.extend(labels(line));
        }
    }
    metrics
}

/// The names of a sample's labels; values are short words here, without quotes inside.
fn labels(sample: &str) -> impl Iterator<Item = String> {
    let inside = sample.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(inside, _)| inside);
    let names = inside.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.trim().to_owned());
    names.filter(|name| name != "le")
}

#[test]
fn a_page_of_metrics_is_read_back() {
    let page = "\
# HELP x_runs Runs, of all.
# TYPE x_runs counter
x_runs_total{status=\"ok\",group=\"a,b\"} 1
# HELP x_delay Seconds.
# TYPE x_delay histogram
x_delay_bucket{le=\"1.0\",action=\"upsert\"} 0
# HELP x_none Nothing yet.
# TYPE x_none gauge
# EOF
";
    let metrics = parse(page);
    let labels = |i: usize| metrics[i].labels.iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!((labels(0), labels(1), labels(2).len()), (vec!["group", "status"], vec!["action"], 0));
    assert_eq!((&*metrics[0].kind, &*metrics[0].help, &*metrics[2].name), ("counter", "Runs, of all", "x_none"));
}
