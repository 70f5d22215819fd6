// SPDX-License-Identifier: Apache-2.0
//! The loop that keeps the mesh in step with the table of nodes, makes probes when they are due, and publishes the
//! results.

use crate::mesh::{Demand, Job, Mesh};
use crate::metrics::{Latency, Metrics};
use crate::probe::{Probe, probe, timestamp};
use model::Node;
use rest::{HealthStatusResponse, PathStatus};
use statedb::{Batch, Change, Reader, Row};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

#[cfg(test)]
mod tests;

/// Nodes probed concurrently, each under up to four addresses by two sockets. One that does not answer takes five seconds: with this many a
/// round of 5,000 such nodes, the most that a cluster may have, still ends within the interval.
const AT_ONCE: usize = 64;
/// Minimum time between reports, since the cost of a report grows with the number of nodes.
const REPORTS: Duration = Duration::from_secs(1);

/// A request to probe all nodes now and return the resulting report.
pub(crate) type Request = oneshot::Sender<Arc<HealthStatusResponse>>;

/// What the loop reads and writes.
pub(crate) struct Channels {
    /// The nodes.
    pub(crate) nodes: Reader<Node>,
    /// Requests for fresh results.
    pub(crate) requests: mpsc::Receiver<Request>,
    /// Where results go.
    pub(crate) status: watch::Sender<Arc<HealthStatusResponse>>,
    /// What counts them.
    pub(crate) metrics: Metrics,
}

type Found = (Job, Vec<(IpAddr, PathStatus)>);

/// Runs until it is dropped. No node is probed before the table is complete: the interval depends on all of them.
pub(crate) async fn run<P: Probe>(mesh: Mesh, network: P, channels: Channels) {
    let mut changes = channels.nodes.subscribe();
    let Channels { nodes: _, mut requests, status, metrics } = channels;
    let mut state = State { mesh, status, metrics, complete: false, report: None, reported: None, waiting: Vec::new() };
    // A report with only this node is better than none.
    state.publish();
    let mut running: JoinSet<Found> = JoinSet::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(job) = state.start()
        {
            let network = network.clone();
            running.spawn(async move {
                let results = probe(&network, &job.addresses).await;
                (job, results)
            });
        }
        let next = state.mesh.next().filter(|_| state.complete && running.len() < AT_ONCE);
        tokio::select! {
            batch = changes.next() => state.change(batch),
            Some(request) = requests.recv() => state.demand(request),
            Some(ended) = running.join_next() => state.ended(unwind(ended)),
            () = at(next) => {}
            () = at(state.report) => state.publish(),
        }
    }
}

/// Returns at that time, or never if there is none.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// A panicking probe fails this task, which ends the process.
fn unwind<T>(ended: Result<T, JoinError>) -> T {
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

struct State {
    mesh: Mesh,
    status: watch::Sender<Arc<HealthStatusResponse>>,
    metrics: Metrics,
    /// Whether all nodes are known.
    complete: bool,
    /// When to publish, if there is something new.
    report: Option<Instant>,
    reported: Option<Instant>,
    waiting: Vec<(Demand, Request)>,
}

impl State {
    fn start(&mut self) -> Option<Job> {
        if self.complete { self.mesh.start(Instant::now()) } else { None }
    }

    /// Added and removed nodes show at once.
    fn change(&mut self, batch: Batch<Node>) {
        let now = Instant::now();
        let mut news = batch.initialized && !self.complete;
        for change in &batch.changes {
            news |= self.mesh.apply(change, !self.complete, now);
            if let Change::Delete(node) = change {
                self.waiting.iter_mut().for_each(|(demand, _)| demand.gone(&node.key()));
            }
        }
        self.complete |= batch.initialized;
        if news {
            self.publish();
        }
    }

    fn demand(&mut self, request: Request) {
        let demand = self.mesh.demand(Instant::now());
        self.waiting.push((demand, request));
        self.answer();
    }

    fn ended(&mut self, (job, results): Found) {
        let now = Instant::now();
        self.measure(&job, &results);
        self.mesh.finish(&job, results, now);
        self.waiting.iter_mut().for_each(|(demand, _)| demand.ended(&job));
        if self.waiting.iter().any(|(demand, _)| demand.is_met()) {
            self.publish();
        } else if self.report.is_none() {
            self.report = Some(self.reported.map_or(now, |last| now.max(last + REPORTS)));
        }
    }

    fn publish(&mut self) {
        let report = self.mesh.report(timestamp());
        self.metrics.show(&report);
        self.status.send_replace(Arc::new(report));
        self.reported = Some(Instant::now());
        self.report = None;
        self.answer();
    }

    /// Answers requests that are complete, and drops those given up on.
    fn answer(&mut self) {
        for (_, request) in self.waiting.extract_if(.., |(demand, request)| demand.is_met() || request.is_closed()) {
            // The requester may be gone.
            let _ = request.send(Arc::clone(&self.status.borrow()));
        }
    }

    fn measure(&self, job: &Job, results: &[(IpAddr, PathStatus)]) {
        for (ip, path) in results {
            let Some((r#type, address_type)) = self.mesh.kind(&job.node, *ip) else { continue };
            for (protocol, probe) in [("icmp", &path.icmp), ("http", &path.http)] {
                if let Some(probe) = probe.as_ref().filter(|probe| probe.status.is_empty()) {
                    let latency = Duration::from_nanos(u64::try_from(probe.latency).unwrap_or_default());
                    self.metrics.answered(Latency { r#type, address_type, protocol }, latency);
                }
            }
        }
    }
}
