// SPDX-License-Identifier: Apache-2.0
//! Flows to files, one JSON object per line, for log collectors: one file from the agent's configuration, and any
//! number from a file that may change at any time.
//!
//! An exporter reads the ring like any other client: one that is too slow, or whose disk is full, loses flows and
//! records in its file how many.

mod aggregate;
mod config;
mod counts;
mod file;
mod list;
#[cfg(test)]
mod tests;

pub(crate) use config::{FlowLog, query};
pub(crate) use counts::Counts;

use crate::proto::flow::{LostEvent, LostEventSource};
use crate::proto::observer::export_event::ResponseTypes as Exported;
use crate::proto::observer::get_flows_response::ResponseTypes;
use crate::proto::observer::{ExportEvent, GetFlowsResponse};
use crate::proto::{timestamp, to_json};
use crate::server::{Problems, report};
use crate::service::{Batch, Workers, subscribe};
use crate::store::{Store, now};
use aggregate::Aggregate;
use file::{LogFile, Rotation};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Delay between attempts to open or write a file, and between checks of the configuration file.
const PACE: Duration = Duration::from_secs(5);

/// Shared by all exporters.
#[derive(Clone)]
pub(crate) struct Exporters {
    pub(crate) store: Arc<Store>,
    pub(crate) problems: Problems,
    pub(crate) lost_interval: Duration,
    pub(crate) workers: Workers,
    pub(crate) pace: Duration,
}

impl Exporters {
    pub(crate) fn new(store: Arc<Store>, problems: Problems, lost_interval: Duration, workers: Workers) -> Self {
        Self { store, problems, lost_interval, workers, pace: PACE }
    }

    /// Exports one flow log until its end, or until it is to stop.
    pub(crate) async fn export(self, log: FlowLog, stop: CancellationToken) {
        let problem = Problem { problems: Arc::clone(&self.problems), exporter: format!("export {}", log.name) };
        let (query, mut aggregate) = match log.query().and_then(|query| Ok((query, log.aggregate()?))) {
            Ok(wanted) => wanted,
            Err(error) => {
                problem.report(Some(error));
                // For as long as it is configured.
                return stop.cancelled().await;
            }
        };
        let mut flows = subscribe(Arc::clone(&self.store), query, self.lost_interval, self.workers.clone());
        let mut writer = Writer { file: None, path: log.file_path.clone(), rotation: log.rotation(), lost: 0 };
        let ends = until(log.end);
        tokio::pin!(ends);
        loop {
            let come = tokio::select! {
                batch = flows.recv() => batch.map_or(Come::End, Come::Flows),
                () = due(&mut aggregate) => Come::Interval,
                () = &mut ends => Come::End,
                () = stop.cancelled() => Come::End,
            };
            let last = matches!(come, Come::End);
            let batch = match (come, &mut aggregate) {
                (Come::Flows(batch), None) => batch,
                (Come::Flows(batch), Some(aggregate)) => aggregate.take(batch),
                (Come::Interval | Come::End, Some(aggregate)) => aggregate.drain(),
                (Come::Interval | Come::End, None) => Batch::new(),
            };
            if !batch.is_empty() {
                let written = writer.write(&self.store.decoder.node_name, batch).await;
                let not_in_it =
                    |error| format!("{}: {error}; {} flows are not in it", log.file_path.display(), writer.lost);
                problem.report(written.err().map(not_in_it));
            }
            if last {
                return;
            }
        }
    }
}

/// What an exporter waits for.
enum Come {
    Flows(Batch),
    /// Flows that were counted are due.
    Interval,
    End,
}

/// Until flows that were counted are to be written.
async fn due(aggregate: &mut Option<Aggregate>) {
    match aggregate {
        Some(aggregate) => aggregate.due().await,
        None => std::future::pending().await,
    }
}

/// Until that time, in nanoseconds since 1970.
async fn until(end: Option<i64>) {
    let Some(end) = end else { return std::future::pending().await };
    tokio::time::sleep(Duration::from_nanos(u64::try_from(end.saturating_sub(now())).unwrap_or(0))).await;
}

/// What is wrong with one exporter, as long as there is one.
struct Problem {
    problems: Problems,
    exporter: String,
}

impl Problem {
    fn report(&self, problem: Option<String>) {
        report(&self.problems, self.exporter.clone(), problem);
    }
}

impl Drop for Problem {
    fn drop(&mut self) {
        self.report(None);
    }
}

/// Writes to a file that may be missing or full.
struct Writer {
    file: Option<LogFile>,
    path: PathBuf,
    rotation: Rotation,
    /// Flows lost since the last successful write.
    lost: u64,
}

impl Writer {
    async fn write(&mut self, node: &str, responses: Batch) -> io::Result<()> {
        let (mut lines, mut flows) = (String::new(), 0);
        if self.lost > 0 {
            lines += &line(&lost(node, self.lost));
        }
        for response in responses {
            flows += match &response.response_types {
                Some(ResponseTypes::Flow(flow)) => aggregate::number(flow),
                Some(ResponseTypes::LostEvents(lost)) => lost.num_events_lost,
                _ => 0,
            };
            lines.extend(event(response).map(|event| line(&event)));
        }
        let written = self.append(lines.as_bytes()).await;
        self.lost = if written.is_ok() { 0 } else { self.lost + flows };
        written
    }

    async fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let in_place = match &self.file {
            Some(file) => file.is_in_place().await,
            None => false,
        };
        if !in_place {
            // Somebody has deleted it, cut it, or put it aside: what is written to it would be for nobody.
            self.file = None;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(LogFile::open(&self.path, self.rotation).await?),
        };
        let written = file.append(lines).await;
        if written.is_err() {
            self.file = None;
        }
        written
    }
}

fn line(event: &ExportEvent) -> String {
    to_json(event).map(|json| json + "\n").unwrap_or_default()
}

fn event(response: GetFlowsResponse) -> Option<ExportEvent> {
    let exported = match response.response_types? {
        ResponseTypes::Flow(flow) => Exported::Flow(flow),
        ResponseTypes::NodeStatus(status) => Exported::NodeStatus(status),
        ResponseTypes::LostEvents(lost) => Exported::LostEvents(lost),
    };
    Some(ExportEvent { node_name: response.node_name, time: response.time, response_types: Some(exported) })
}

/// The record of flows that were not written.
fn lost(node: &str, count: u64) -> ExportEvent {
    let source = LostEventSource::ObserverEventsQueue.into();
    let time = Some(timestamp(now()));
    let lost = LostEvent { source, num_events_lost: count, last: time, ..LostEvent::default() };
    ExportEvent { node_name: node.to_owned(), time, response_types: Some(Exported::LostEvents(lost)) }
}
