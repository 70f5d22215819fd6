// SPDX-License-Identifier: Apache-2.0
//! Nodes that nothing waits for: their proxies should have something in force, and have not for long. Their agent, or the node, may be dead.

use super::Programmed;
use super::programmed::NodeReport;
use crate::name::ParentName;
use crate::source::Meta;
use statedb::{Reader, Tasks, Writer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// For how long what is missing there is waited for. In force is what a node can have within milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node that nothing waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Late(pub(crate) Arc<str>);

impl statedb::Row for Late {
    type Key = Arc<str>;
    fn key(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

/// Keeps them. One is waited for again once it has said something else, and lacks nothing.
pub(super) fn derive(tasks: &Tasks, programmed: &Reader<Programmed>, reports: &Reader<NodeReport>) -> Reader<Late> {
    let (writer, late) = statedb::table("gateway-late-nodes");
    tasks.spawn("gateway-late-nodes", follow(programmed.clone(), reports.clone(), writer));
    late
}

/// What a node lacks: of which object.
type Lack = (Arc<str>, ParentName);

async fn follow(programmed: Reader<Programmed>, reports: Reader<NodeReport>, mut late: Writer<Late>) {
    let mut changes = programmed.subscribe();
    let mut since: BTreeMap<Lack, (Meta, Instant)> = BTreeMap::new();
    // With what each has said.
    let mut nodes: BTreeMap<Arc<str>, Option<Arc<NodeReport>>> = BTreeMap::new();
    late.mark_initialized();
    loop {
        let now = Instant::now();
        let due = since.values().map(|(_, since)| *since + PATIENCE).filter(|due| *due > now).min();
        tokio::select! {
            _ = changes.next() => {}
            () = tokio::time::sleep_until(due.unwrap_or(now)), if due.is_some() => {}
        }
        since = lacking(&programmed, &since);
        let said = reports.snapshot();
        let lacks: BTreeSet<_> = since.keys().map(|(node, _)| Arc::clone(node)).collect();
        nodes.retain(|node, before| lacks.contains(node) || said.get(node) == *before);
        for ((node, _), (_, since)) in &since {
            if since.elapsed() >= PATIENCE {
                nodes.entry(Arc::clone(node)).or_insert_with(|| said.get(node));
            }
        }
        late.replace(nodes.keys().cloned().map(Late));
        late.commit();
    }
}

/// What nodes lack now, and since when.
fn lacking(
    programmed: &Reader<Programmed>,
    before: &BTreeMap<Lack, (Meta, Instant)>,
) -> BTreeMap<Lack, (Meta, Instant)> {
    let mut lacking = BTreeMap::new();
    // What no node has is not a node's fault.
    for row in programmed.snapshot().iter().filter(|row| row.nodes > 0) {
        for node in &row.missing {
            let lack = (Arc::clone(node), row.object.clone());
            let known = before.get(&lack).filter(|(wanted, _)| *wanted == row.wanted);
            let since = known.map_or_else(Instant::now, |(_, since)| *since);
            lacking.insert(lack, (row.wanted.clone(), since));
        }
    }
    lacking
}
