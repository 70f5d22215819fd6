// SPDX-License-Identifier: Apache-2.0
//! Flows to a collector of OpenTelemetry, as logs, over gRPC or HTTP.
//!
//! It reads the ring like any other client, and the ring is its queue: while the collector does not take a request, no more is read, and what is
//! overwritten meanwhile is counted and told. A collector that hangs, refuses or is away costs its own records and nothing else. A request whose
//! answer was lost is sent again, so a flow may come twice.

mod connection;
mod record;
mod target;
#[cfg(test)]
mod tests;

pub(crate) use target::Target;
pub use target::{Address, Protocol};

use crate::proto::flow::{LostEvent, LostEventSource};
use crate::proto::observer::GetFlowsResponse;
use crate::proto::observer::get_flows_response::ResponseTypes;
use crate::proto::opentelemetry::{
    ExportLogsServiceRequest, ExportLogsServiceResponse, InstrumentationScope, LogRecord, Resource, ResourceLogs,
    ScopeLogs,
};
use crate::proto::timestamp;
use crate::server::{Problems, report};
use crate::service::{Batch, Workers, subscribe};
use crate::store::{Store, now};
use connection::{Connection, Failure};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use prost::Message;
use record::record;
use statedb::{Backoff, Retries};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Records of a request, and their bytes: collectors take no more than 4 MiB at once unless told to.
const RECORDS: usize = 512;
const BYTES: usize = 1 << 20;
/// The semantic conventions that the attributes follow.
const CONVENTIONS: &str = "https://opentelemetry.io/schemas/1.30.0";
/// How it is called among the problems in the status.
const NAME: &str = "export to OpenTelemetry";

/// How long things may take.
#[derive(Clone, Copy)]
struct Pace {
    /// How long a flow waits for others.
    collect: Duration,
    /// How long the collector may take to answer.
    answer: Duration,
    /// Between attempts.
    backoff: Backoff,
}

impl Default for Pace {
    fn default() -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        Self { collect: Duration::from_millis(500), answer: Duration::from_secs(10), backoff }
    }
}

/// What became of flows for the collector. Clones share their counts.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    taken: Counter,
    lost: Family<[(&'static str, &'static str); 1], Counter>,
}

/// Why the collector does not have them.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// They were overwritten in the ring before they were sent: events, whether wanted or not.
    Overwritten,
    /// The collector refused the request that they were in.
    Refused,
    /// The collector took the request without them.
    Rejected,
}

impl Counts {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Flows that the OpenTelemetry collector took";
        registry.register("hubble_otlp_flows_exported", help, self.taken.clone());
        let help = "Flows that the OpenTelemetry collector does not have, by reason: overwritten in the ring, refused or rejected";
        registry.register("hubble_otlp_flows_lost", help, self.lost.clone());
        [Loss::Overwritten, Loss::Refused, Loss::Rejected].into_iter().for_each(|why| self.lose(why, 0));
    }

    fn lose(&self, why: Loss, count: u64) {
        let why = match why {
            Loss::Overwritten => "overwritten",
            Loss::Refused => "refused",
            Loss::Rejected => "rejected",
        };
        self.lost.get_or_create(&[("reason", why)]).inc_by(count);
    }
}

/// Sends flows to one collector.
pub(crate) struct Exporter {
    store: Arc<Store>,
    target: Target,
    problems: Problems,
    pub(crate) counts: Counts,
    pace: Pace,
}

/// The records of a request.
#[derive(Default)]
struct Pending {
    records: Vec<LogRecord>,
    bytes: usize,
    flows: u64,
    /// Events that it tells the loss of.
    told: u64,
}

impl Exporter {
    pub(crate) fn new(store: Arc<Store>, target: Target, problems: Problems) -> Self {
        Self { store, target, problems, counts: Counts::default(), pace: Pace::default() }
    }

    /// Sends for ever.
    pub(crate) async fn run(self, lost_interval: Duration, workers: Workers) {
        let query = match self.target.query() {
            Ok(query) => query,
            Err(error) => {
                self.report(Some(error));
                // For as long as it is configured.
                return std::future::pending().await;
            }
        };
        let mut flows = subscribe(Arc::clone(&self.store), query, lost_interval, workers);
        let mut connection = None;
        let mut untold = 0;
        while let Some(pending) = self.collect(&mut flows, untold).await {
            untold = self.deliver(&mut connection, pending).await;
        }
    }

    /// Waits for flows, and a little for more of them; begins with what was not told of losses.
    async fn collect(&self, flows: &mut Receiver<Batch>, untold: u64) -> Option<Pending> {
        let mut pending = Pending::default();
        if untold > 0 {
            pending.add(&loss(untold));
        }
        self.take(&mut pending, &flows.recv().await?);
        let end = Instant::now() + self.pace.collect;
        while !pending.is_full() {
            match timeout_at(end, flows.recv()).await {
                Ok(Some(batch)) => self.take(&mut pending, &batch),
                Ok(None) | Err(_) => break,
            }
        }
        Some(pending)
    }

    fn take(&self, pending: &mut Pending, batch: &Batch) {
        for response in batch {
            if let Some(ResponseTypes::LostEvents(lost)) = &response.response_types
                && lost.source() == LostEventSource::HubbleRingBuffer
            {
                self.counts.lose(Loss::Overwritten, lost.num_events_lost);
            }
            pending.add(response);
        }
    }

    /// Sends until the collector takes or refuses it; how many events it then does not know the loss of.
    async fn deliver(&self, connection: &mut Option<Connection>, pending: Pending) -> u64 {
        let mut retries = Retries::new(self.pace.backoff);
        let (flows, told) = (pending.flows, pending.told);
        let request = self.request(pending.records);
        loop {
            match self.attempt(connection, request.clone()).await {
                Ok(response) => {
                    self.taken(flows, response);
                    return 0;
                }
                Err(Failure { for_good: true, text, .. }) => {
                    self.counts.lose(Loss::Refused, flows);
                    self.report(Some(format!("{text}; flows are lost")));
                    return flows + told;
                }
                Err(Failure { pause, text, .. }) => {
                    // The next connection is made with the certificates and to the address of its time.
                    *connection = None;
                    self.report(Some(text));
                    sleep(retries.failed().max(pause.unwrap_or_default())).await;
                }
            }
        }
    }

    async fn attempt(
        &self,
        connection: &mut Option<Connection>,
        request: ExportLogsServiceRequest,
    ) -> Result<ExportLogsServiceResponse, Failure> {
        let headers = self.target.headers().await.map_err(|error| Failure::passing(&error))?;
        let connected = match connection {
            Some(connection) => connection,
            None => connection.insert(Connection::open(&self.target).await.map_err(|error| Failure::passing(&error))?),
        };
        let late = |_| Failure::passing(&format!("no answer within {} s", self.pace.answer.as_secs()));
        timeout(self.pace.answer, connected.export(&self.target.address, headers, request)).await.map_err(late)?
    }

    /// Some of what was taken may have been rejected.
    fn taken(&self, flows: u64, response: ExportLogsServiceResponse) {
        let partial = response.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_log_records).unwrap_or_default().min(flows);
        self.counts.lose(Loss::Rejected, rejected);
        self.counts.taken.inc_by(flows - rejected);
        self.report((rejected > 0).then(|| format!("{rejected} flows were rejected: {}", partial.error_message)));
    }

    fn request(&self, log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
        let decoder = &self.store.decoder;
        let node = decoder.node_name.rsplit_once('/').map_or(&*decoder.node_name, |(_, node)| node);
        let cluster = decoder.node_name.rsplit_once('/').map_or("", |(cluster, _)| cluster);
        let attributes = [
            record::text("service.name", "hubble"),
            record::text("service.namespace", "cilium"),
            record::text("service.version", &decoder.version),
            record::text("service.instance.id", &uuid::Uuid::from_u64_pair(decoder.instance, 0).to_string()),
            record::text("k8s.cluster.name", cluster),
            record::text("k8s.node.name", node),
        ];
        let resource = Some(Resource { attributes: attributes.into_iter().flatten().collect() });
        let scope = Some(InstrumentationScope { name: "hubble".to_owned(), version: decoder.version.clone() });
        let scope_logs = vec![ScopeLogs { scope, log_records }];
        let logs = ResourceLogs { resource, scope_logs, schema_url: CONVENTIONS.to_owned() };
        ExportLogsServiceRequest { resource_logs: vec![logs] }
    }

    fn report(&self, problem: Option<String>) {
        report(&self.problems, NAME, problem.map(|problem| format!("{}: {problem}", self.target.address)));
    }
}

impl Pending {
    fn add(&mut self, response: &GetFlowsResponse) {
        let Some(record) = record(response, now()) else { return };
        match &response.response_types {
            Some(ResponseTypes::LostEvents(lost)) => self.told += lost.num_events_lost,
            _ => self.flows += 1,
        }
        self.bytes += record.encoded_len();
        self.records.push(record);
    }

    fn is_full(&self) -> bool {
        self.records.len() >= RECORDS || self.bytes >= BYTES
    }
}

/// Tells of events that were in requests which the collector refused.
fn loss(count: u64) -> GetFlowsResponse {
    let time = Some(timestamp(now()));
    let source = LostEventSource::ObserverEventsQueue.into();
    let lost = LostEvent { source, num_events_lost: count, last: time, ..LostEvent::default() };
    GetFlowsResponse { time, response_types: Some(ResponseTypes::LostEvents(lost)), ..GetFlowsResponse::default() }
}
