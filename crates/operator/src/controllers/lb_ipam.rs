// SPDX-License-Identifier: Apache-2.0
//! Gives Services of type LoadBalancer their addresses out of CiliumLoadBalancerIPPools: writes what `lbipam` decides into the
//! statuses of both.
//!
//! Everything is written to the very version that was decided on. Nothing is decided before both tables are complete, and of the
//! newest version: what the leader before this one gave must not look free.

use super::{Controller, Failures, is_stale};
use crate::metrics::Metrics;
use k8s::Client;
use k8s::cilium::CiliumLoadBalancerIPPool;
use k8s::k8s_openapi::api::core::v1::{ObjectReference, Service as ServiceObject};
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::Error;
use k8s::kube::api::{Api, Patch, PatchParams};
use k8s::kube::runtime::events::{Event, EventType, Recorder};
use lbipam::{Allocator, Config, Pool, PoolUpdate, Service, ServiceUpdate};
use model::ServiceName;
use serde_json::json;
use statedb::{Batch, Change, Changes, Reader};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What the API server takes as the text of an event. The condition has it all.
const MAX_NOTE: usize = 1024;

pub(super) struct LbIpam {
    client: Client,
    recorder: Recorder,
    config: Config,
    allocator: Allocator,
    pools: Source<Pool>,
    services: Source<Service>,
    /// Pools whose status is still to be written.
    unwritten_pools: BTreeSet<Arc<str>>,
    /// Services whose status is still to be written.
    unwritten_services: BTreeSet<ServiceName>,
    metrics: Metrics,
}

struct Source<R: statedb::Row> {
    changes: Changes<R>,
    complete: bool,
}

impl<R: statedb::Row> Source<R> {
    fn new(table: &Reader<R>) -> Self {
        Self { changes: table.subscribe(), complete: false }
    }
}

impl LbIpam {
    pub(super) fn new(
        client: &Client,
        config: Config,
        pools: &Reader<Pool>,
        services: &Reader<Service>,
        metrics: Metrics,
    ) -> Self {
        Self {
            client: client.clone(),
            recorder: Recorder::new(client.kube(), "cilium-operator".into()),
            config,
            allocator: Allocator::default(),
            pools: Source::new(pools),
            services: Source::new(services),
            unwritten_pools: BTreeSet::new(),
            unwritten_services: BTreeSet::new(),
            metrics,
        }
    }

    fn take_pools(&mut self, batch: Batch<Pool>) {
        self.pools.complete = batch.initialized;
        for change in batch.changes {
            match change {
                Change::Upsert(pool) => self.allocator.set_pool(Pool::clone(&pool)),
                Change::Delete(pool) => {
                    self.allocator.remove_pool(&pool.name);
                    self.metrics.forget_lb_pool(&pool.name);
                }
            }
        }
    }

    fn take_services(&mut self, batch: Batch<Service>) {
        self.services.complete = batch.initialized;
        for change in batch.changes {
            match change {
                Change::Upsert(service) => self.allocator.set_service(Service::clone(&service)),
                Change::Delete(service) => self.allocator.remove_service(&service.name),
            }
        }
    }

    /// Gives the pool as it is then, if there was anything to write.
    async fn write_pool(&self, name: &str) -> Result<Option<CiliumLoadBalancerIPPool>, Error> {
        let Some(update) = self.allocator.pool_update(name, Timestamp::now()) else { return Ok(None) };
        let PoolUpdate { reference, version, conditions, news } = update;
        for (reason, note) in news {
            self.tell(&reference, reason, note).await?;
        }
        let patch = json!({"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}});
        let api: Api<CiliumLoadBalancerIPPool> = self.client.all();
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(Some)
    }

    /// Gives the Service as it is then, if there was anything to write.
    async fn write_service(&self, name: &ServiceName) -> Result<Option<ServiceObject>, Error> {
        let Some(update) = self.allocator.service_update(name, Timestamp::now()) else { return Ok(None) };
        let ServiceUpdate { reference, version, ingress, conditions, news } = update;
        if let Some(note) = news {
            self.tell(&reference, "AddressNotAssigned", note).await?;
        }
        let status = json!({"loadBalancer": {"ingress": ingress}, "conditions": conditions});
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": status}));
        let api: Api<ServiceObject> = self.client.namespaced(&name.namespace);
        api.patch_status(&name.name, &PatchParams::default(), &patch).await.map(Some)
    }

    /// An event that the API server refuses must not keep the status away.
    async fn tell(&self, about: &ObjectReference, reason: &str, mut note: String) -> Result<(), Error> {
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        let (reason, action) = (reason.to_owned(), "Assign".to_owned());
        let event = Event { type_: EventType::Warning, reason, note: Some(note), action, secondary: None };
        match self.recorder.publish(&event, about).await {
            Err(error) if !matches!(error, Error::Api(_)) => Err(error),
            _ => Ok(()),
        }
    }

    async fn write_pools(&mut self, failures: &mut Failures) {
        for name in self.unwritten_pools.clone() {
            if let Some(counts) = self.allocator.pool_counts(&name) {
                self.metrics.lb_pool(&name, counts);
            }
            let result = self.write_pool(&name).await.map(|written| {
                let row = written.as_ref().and_then(Pool::ingest);
                row.into_iter().for_each(|row| self.allocator.set_pool(row));
            });
            let unwritten = &mut self.unwritten_pools;
            if failures.add_unwritten(unwritten, &name, "CiliumLoadBalancerIPPool", result).is_break() {
                return;
            }
        }
    }

    async fn write_services(&mut self, failures: &mut Failures) {
        for name in self.unwritten_services.clone() {
            let result = self.write_service(&name).await.map(|written| {
                let row = written.as_ref().and_then(|object| Service::ingest(self.config, object));
                row.into_iter().for_each(|row| self.allocator.set_service(row));
            });
            let unwritten = &mut self.unwritten_services;
            if failures.add_unwritten(unwritten, &name, "Service", result).is_break() {
                return;
            }
        }
    }
}

impl Failures {
    /// Takes note of what became of a write. One that failed is to be tried again; if the API server did not even answer, the
    /// others need not be tried now.
    fn add_unwritten<K: Ord + Display>(
        &mut self,
        unwritten: &mut BTreeSet<K>,
        key: &K,
        kind: &str,
        result: Result<(), Error>,
    ) -> ControlFlow<()> {
        match result {
            // What is gone or was changed comes again as a change of the table.
            Err(error) if !is_stale(&error) => {
                self.add(format_args!("{kind} {key}"), &error);
                if matches!(error, Error::Api(_)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            }
            _ => {
                unwritten.remove(key);
                ControlFlow::Continue(())
            }
        }
    }
}

impl Controller for LbIpam {
    const NAME: &'static str = "lb-ipam";

    async fn due(&mut self) {
        tokio::select! {
            batch = self.pools.changes.next() => self.take_pools(batch),
            batch = self.services.changes.next() => self.take_services(batch),
        }
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        // As long as some Services are unknown, what they have looks free.
        if !self.pools.complete || !self.services.complete {
            return Ok(());
        }
        let settled = self.allocator.settle();
        tracing::debug!(considered = settled.considered, "settled addresses of Services");
        self.unwritten_pools.extend(settled.pools);
        self.unwritten_services.extend(settled.services);
        self.metrics.lb_totals(self.allocator.totals());
        let mut failures = Failures::default();
        self.write_pools(&mut failures).await;
        self.write_services(&mut failures).await;
        failures.into_result()
    }
}

#[cfg(test)]
mod tests;
