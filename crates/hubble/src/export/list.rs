// SPDX-License-Identifier: Apache-2.0
//! The exporters that a file lists, which may change at any time. An invalid file changes nothing.

use super::config::{FlowLog, FlowLogs};
use super::counts::{Change, Counts};
use super::{Exporters, report};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// What is running, by name.
struct List {
    exporters: Exporters,
    running: BTreeMap<String, Running>,
    counts: Counts,
    /// What the file was worth when it was read last: its hash, or what was wrong with it.
    known: Option<Result<u32, String>>,
}

/// An exporter.
struct Running {
    log: FlowLog,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Running {
    /// Writes what it has counted, and ends.
    async fn end(self) {
        self.stop.cancel();
        // Another one may write to the same file.
        let _ = self.task.await;
    }
}

impl Exporters {
    /// Exports as the file says, until it is to stop.
    pub(crate) async fn follow(self, path: PathBuf, counts: Counts, stop: CancellationToken) {
        let pace = self.pace;
        let mut list = List { exporters: self, running: BTreeMap::new(), counts, known: None };
        loop {
            list.look(&path).await;
            if stop.run_until_cancelled(tokio::time::sleep(pace)).await.is_none() {
                break;
            }
        }
        for running in list.running.into_values() {
            running.end().await;
        }
    }
}

impl List {
    async fn look(&mut self, path: &Path) {
        let (listed, found) = match FlowLogs::read(path).await {
            Ok((logs, hash)) => (Some(logs), Ok(hash)),
            Err(error) => (None, Err(error)),
        };
        let problem = found.as_ref().err().map(|error| format!("{}: {error}", path.display()));
        report(&self.exporters.problems, "flow logs", problem);
        if self.known.as_ref() != Some(&found) {
            match &found {
                Ok(hash) => self.counts.applied(*hash),
                Err(_) => self.counts.change(Change::Failure),
            }
            self.known = Some(found);
        }
        if let Some(FlowLogs { flow_logs }) = listed {
            self.apply(flow_logs).await;
        }
        self.counts.running(self.running.iter().map(|(name, running)| (name.as_str(), !running.task.is_finished())));
    }

    async fn apply(&mut self, logs: Vec<FlowLog>) {
        let stale: Vec<_> = self.running.extract_if(.., |_, running| !logs.contains(&running.log)).collect();
        for (name, running) in &stale {
            let change = if logs.iter().any(|log| log.name == *name) { Change::Update } else { Change::Remove };
            self.counts.change(change);
            running.stop.cancel();
        }
        let were: Vec<_> = stale.iter().map(|(name, _)| name.clone()).collect();
        for (_, running) in stale {
            running.end().await;
        }
        for log in logs {
            if self.running.contains_key(&log.name) {
                continue;
            }
            if !were.contains(&log.name) {
                self.counts.change(Change::Add);
            }
            let stop = CancellationToken::new();
            let exporting = self.exporters.clone().export(log.clone(), stop.clone());
            let task = AbortOnDropHandle::new(tokio::spawn(exporting));
            self.running.insert(log.name.clone(), Running { log, stop, task });
        }
    }
}
