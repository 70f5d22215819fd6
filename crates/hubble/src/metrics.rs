// SPDX-License-Identifier: Apache-2.0
//! Metrics of flows, for Prometheus, on a port of their own.
//!
//! They are counted by a client of the ring like any other: if it is too slow it loses events and says how many.
//! Context labels can take any number of values, so each metric has a maximum number of series; samples beyond that are
//! counted as left out.

mod context;
mod dynamic;
mod options;
mod plugins;
mod series;
mod serve;
#[cfg(test)]
mod tests;

pub(crate) use options::Plugins;
pub use plugins::rcode;
pub(crate) use serve::serve;

use crate::export::Counts as Exporters;
use crate::filter::Filters;
use crate::proto::flow::{Flow, LostEvent};
use crate::proto::observer::GetFlowsResponse;
use crate::proto::observer::get_flows_response::ResponseTypes;
use crate::server::{Problems, TlsFiles, report};
use crate::service::{Query, Workers, subscribe};
use crate::store::Store;
use context::Labels;
use dynamic::Counted;
use model::PodName;
use parking_lot::Mutex;
use plugins::{COUNTERS, DURATION, Sample};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use series::Series;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of series per metric.
const MOST: usize = 10_000;
/// Seconds, from five milliseconds to ten seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The label of an example, as dashboards look for it.
const TRACE: &str = "traceID";

/// Between looks for pods that are gone.
const SWEEP: Duration = Duration::from_secs(60);
/// Between looks at the file that lists metrics.
const PACE: Duration = Duration::from_secs(5);

/// Which metrics are served, and where.
pub(crate) struct Served {
    pub(crate) always: Plugins,
    /// A file that lists others.
    pub(crate) listed: Option<PathBuf>,
    pub(crate) address: SocketAddr,
    /// Without them it is plain text.
    pub(crate) tls: Option<TlsFiles>,
    /// Of the exporters that a file lists, if one does.
    pub(crate) exporters: Option<Exporters>,
    /// Whether traces are named as examples to clients that name OpenMetrics.
    pub(crate) exemplars: bool,
}

/// Counts and serves for ever.
pub(crate) async fn run(
    store: Arc<Store>,
    served: Served,
    problems: Problems,
    lost_interval: Duration,
    workers: Workers,
) {
    let exporters = served.exporters;
    let counting = move |counted| Metrics::new(counted, MOST).beside(exporters.as_ref());
    let current = Arc::new(Mutex::new(Arc::new(counting(of_all_flows(&served.always)))));
    let count = async {
        let mut flows = subscribe(Arc::clone(&store), Query::live(Filters::default(), None), lost_interval, workers);
        while let Some(batch) = flows.recv().await {
            let metrics = Arc::clone(&current.lock());
            batch.iter().for_each(|response| metrics.take(response));
        }
    };
    let list = async {
        if let Some(path) = &served.listed {
            follow(path, &served.always, &current, &counting, &problems).await;
        }
    };
    let shown = Arc::clone(&current);
    let render = move |openmetrics: bool| {
        let metrics = Arc::clone(&shown.lock());
        metrics.render(openmetrics && served.exemplars)
    };
    let forget = async {
        loop {
            tokio::time::sleep(SWEEP).await;
            let pods: HashSet<PodName> = store.pods().collect();
            let metrics = Arc::clone(&current.lock());
            metrics.forget_pods(|pod| pods.contains(pod));
        }
    };
    tokio::join!(count, list, forget, serve(served.address, served.tls, problems.clone(), PACE, render));
}

/// Counts what a file lists, beside what is always counted. When it changes, all metrics start again at zero; a file that cannot be used
/// changes nothing.
async fn follow(
    path: &Path,
    always: &Plugins,
    current: &Mutex<Arc<Metrics>>,
    counting: &impl Fn(Counted) -> Metrics,
    problems: &Problems,
) {
    let mut known = String::new();
    loop {
        let text = tokio::fs::read_to_string(path).await.map_err(|error| error.to_string());
        let listed = text.and_then(|text| Ok((dynamic::parse(&text, always)?, text)));
        let problem = listed.as_ref().err().map(|error| format!("{}: {error}", path.display()));
        report(problems, "listed metrics", problem);
        if let Ok((listed, text)) = listed
            && text != known
        {
            let counted = of_all_flows(always).into_iter().chain(listed).collect();
            *current.lock() = Arc::new(counting(counted));
            known = text;
        }
        tokio::time::sleep(PACE).await;
    }
}

fn of_all_flows(plugins: &Plugins) -> Counted {
    plugins.0.iter().map(|plugin| (plugin.clone(), Filters::default())).collect()
}

/// A page with a sample of each metric, without the labels that follow from options.
pub(crate) fn example_page() -> String {
    let metrics = Metrics::new(Counted::new(), MOST).beside(Some(&Exporters::example()));
    let none = Labels::new();
    metrics.counters.values().for_each(|family| drop(family.get_or_create(&none)));
    drop(metrics.durations.get_or_create(&none));
    metrics.count_lost(&LostEvent::default());
    drop(metrics.left_out.get_or_create(&vec![("metric", String::new())]));
    metrics.render(false)
}

type Durations = HistogramWithExemplars<[(&'static str, String); 1]>;

/// What is counted.
struct Metrics {
    counted: Counted,
    most: usize,
    registry: Registry,
    counters: BTreeMap<&'static str, Family<Labels, Counter>>,
    durations: Family<Labels, Durations>,
    lost: Family<Labels, Counter>,
    left_out: Family<Labels, Counter>,
    /// The series of each metric.
    series: Mutex<BTreeMap<&'static str, Series>>,
}

impl Metrics {
    fn new(counted: Counted, most: usize) -> Self {
        let mut registry = Registry::with_prefix("hubble");
        let mut family = |name: &'static str, help: &'static str| {
            let family = Family::<Labels, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let lost = family("lost_events", "Events that were lost on their way to the metrics");
        let left_out =
            family("metrics_samples_left_out", "Samples that would have been one series too many of a metric");
        let counters = COUNTERS.into_iter().map(|(name, help)| (name, family(name, help))).collect();
        let durations = Family::<Labels, Durations>::new_with_constructor(|| Durations::new(BUCKETS.into_iter()));
        registry.register(DURATION, "Time until a response to an HTTP request", durations.clone());
        Self { counted, most, registry, counters, durations, lost, left_out, series: Mutex::default() }
    }

    /// On the page of these.
    fn beside(mut self, exporters: Option<&Exporters>) -> Self {
        if let Some(exporters) = exporters {
            exporters.register(&mut self.registry);
        }
        self
    }

    fn take(&self, response: &GetFlowsResponse) {
        match &response.response_types {
            Some(ResponseTypes::Flow(flow)) => self.count(flow),
            Some(ResponseTypes::LostEvents(lost)) => self.count_lost(lost),
            _ => {}
        }
    }

    fn count(&self, flow: &Flow) {
        let counted = self.counted.iter().filter(|(_, filters)| filters.matches(flow));
        for sample in counted.flat_map(|(plugin, _)| plugin.samples(flow)) {
            self.add(flow, sample);
        }
    }

    fn count_lost(&self, lost: &LostEvent) {
        let source = lost.source().as_str_name().to_lowercase();
        self.lost.get_or_create(&vec![("source", source)]).inc_by(lost.num_events_lost);
    }

    fn add(&self, flow: &Flow, sample: Sample) {
        let Sample { metric, labels, seconds, trace } = sample;
        if !self.series.lock().entry(metric).or_default().takes(flow, &labels, self.most) {
            self.left_out.get_or_create(&vec![("metric", format!("hubble_{metric}"))]).inc();
            return;
        }
        match (seconds, self.counters.get(metric)) {
            (Some(seconds), _) => {
                self.durations.get_or_create(&labels).observe(seconds, trace.map(|id| [(TRACE, id)]), None);
            }
            (None, Some(family)) => drop(family.get_or_create(&labels).inc()),
            (None, None) => {}
        }
    }

    /// Drops the series that are named after pods which were not there the last time either.
    fn forget_pods(&self, is_there: impl Fn(&PodName) -> bool) {
        for (metric, series) in self.series.lock().iter_mut() {
            for labels in series.sweep(&is_there) {
                match self.counters.get(metric) {
                    Some(family) => drop(family.remove(&labels)),
                    None => drop(self.durations.remove(&labels)),
                }
            }
        }
    }

    fn render(&self, exemplars: bool) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        if exemplars { text } else { text.lines().map(without_exemplar).collect() }
    }
}

/// A line, complete. In values of labels quotes are escaped, so none looks like an example.
fn without_exemplar(line: &str) -> String {
    let example = format!(" # {{{TRACE}=\"");
    let line = line.rsplit_once(&example).map_or(line, |(line, _)| line);
    format!("{line}\n")
}
