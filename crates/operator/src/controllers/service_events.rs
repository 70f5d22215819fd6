// SPDX-License-Identifier: Apache-2.0
//! Tells the authors of Services what is not honoured, in events.

use super::{Controller, Failures, REPORTER, is_stale};
use k8s::{Client, Events};
use model::ServiceName;
use services::ServiceProblems;
use statedb::{Changes, Reader};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) struct ServiceEvents {
    events: Events,
    problems: Reader<ServiceProblems>,
    changes: Changes<ServiceProblems>,
    /// What has been reported.
    told: BTreeMap<ServiceName, Arc<ServiceProblems>>,
}

impl ServiceEvents {
    pub(super) fn new(client: &Client, problems: &Reader<ServiceProblems>) -> Self {
        Self {
            events: Events::new(client, REPORTER),
            problems: problems.clone(),
            changes: problems.subscribe(),
            told: BTreeMap::new(),
        }
    }
}

impl Controller for ServiceEvents {
    const NAME: &'static str = "service-events";

    async fn due(&mut self) {
        self.changes.next().await;
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let mut failures = Failures::default();
        let problems = self.problems.snapshot();
        self.told.retain(|service, _| problems.get(service).is_some());
        for row in problems.iter() {
            if self.told.get(&row.service) == Some(row) {
                continue;
            }
            match self.events.publish(&row.warning()).await {
                Err(error) if !is_stale(&error) => failures.add(format_args!("service {}", row.service), &error),
                _ => drop(self.told.insert(row.service.clone(), Arc::clone(row))),
            }
        }
        failures.into_result()
    }
}
