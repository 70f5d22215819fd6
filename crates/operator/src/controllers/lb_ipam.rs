// SPDX-License-Identifier: Apache-2.0
//! Assigns addresses from CiliumLoadBalancerIPPools to Services of type LoadBalancer: writes the decisions of `lbipam`
//! to the status of both.
//!
//! Every write is conditional on the version that was decided on. Nothing is decided before all tables are complete,
//! those of pools and Services at the newest version: what the previous leader assigned must not look free.

use super::refusals::Refusals;
use super::{Controller, Failures, REPORTER, conditions_of, warn_and_write};
use crate::metrics::Metrics;
use k8s::cilium::CiliumLoadBalancerIPPool;
use k8s::k8s_openapi::api::core::v1::Service as ServiceObject;
use k8s::k8s_openapi::jiff::Timestamp;
use k8s::kube::Error;
use k8s::kube::api::{Api, Patch, PatchParams};
use k8s::{Client, Events};
use lbipam::{Allocator, Config, Occupant, Pool, PoolUpdate, Service, ServiceUpdate};
use model::ServiceName;
use serde_json::json;
use statedb::{Batch, Change, Changes, Reader};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// How often to check whether the API server serves ServiceCIDRs.
const LOOK: Duration = Duration::from_secs(1);

/// What it reads.
pub(super) struct Tables {
    pub(super) pools: Reader<Pool>,
    pub(super) services: Reader<Service>,
    pub(super) nodes: Reader<Occupant>,
    pub(super) service_cidrs: Reader<Occupant>,
}

pub(super) struct LbIpam {
    client: Client,
    events: Events,
    config: Config,
    allocator: Allocator,
    pools: Source<Pool>,
    services: Source<Service>,
    nodes: Source<Occupant>,
    service_cidrs: Source<Occupant>,
    /// Pools whose status is still to be written.
    unwritten_pools: BTreeSet<Arc<str>>,
    /// Services whose status is still to be written.
    unwritten_services: BTreeSet<ServiceName>,
    refused_pools: Refusals<Arc<str>, ()>,
    refused_services: Refusals<ServiceName, ()>,
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
    pub(super) fn new(client: &Client, config: Config, tables: &Tables, metrics: Metrics) -> Self {
        Self {
            client: client.clone(),
            events: Events::new(client, REPORTER),
            config,
            allocator: Allocator::default(),
            pools: Source::new(&tables.pools),
            services: Source::new(&tables.services),
            nodes: Source::new(&tables.nodes),
            service_cidrs: Source::new(&tables.service_cidrs),
            unwritten_pools: BTreeSet::new(),
            unwritten_services: BTreeSet::new(),
            refused_pools: Refusals::new(Self::NAME),
            refused_services: Refusals::new(Self::NAME),
            metrics,
        }
    }

    /// Whether everything is known. While some Services are unknown, their addresses look free. Older versions of
    /// Kubernetes have no ServiceCIDRs.
    fn is_ready(&self) -> bool {
        let refused = || {
            self.client.failing_watches(Duration::ZERO).iter().any(|watch| watch.refused && watch.kind == "ServiceCIDR")
        };
        let known = self.pools.complete && self.services.complete && self.nodes.complete;
        known && (self.service_cidrs.complete || refused())
    }

    fn take_occupants(&mut self, batch: Batch<Occupant>) {
        for change in batch.changes {
            match change {
                Change::Upsert(occupant) => self.allocator.set_occupant(Occupant::clone(&occupant)),
                Change::Delete(occupant) => self.allocator.remove_occupant(&occupant.name),
            }
        }
    }

    fn take_pools(&mut self, batch: Batch<Pool>) {
        self.pools.complete = batch.initialized;
        for change in batch.changes {
            match change {
                Change::Upsert(pool) => self.allocator.set_pool(Pool::clone(&pool)),
                Change::Delete(pool) => {
                    self.allocator.remove_pool(&pool.name);
                    self.refused_pools.forget(&pool.name);
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
                Change::Delete(service) => {
                    self.allocator.remove_service(&service.name);
                    self.refused_services.forget(&service.name);
                }
            }
        }
    }

    /// Returns the updated pool, if there was anything to write.
    async fn write_pool(&self, name: &str) -> Result<Option<CiliumLoadBalancerIPPool>, Error> {
        let Some(update) = self.allocator.pool_update(name, Timestamp::now()) else { return Ok(None) };
        let PoolUpdate { version, conditions, warnings } = update;
        let patch = conditions_of(&version, &conditions);
        let (api, params): (Api<CiliumLoadBalancerIPPool>, _) = (self.client.all(), PatchParams::default());
        warn_and_write(&self.events, warnings, api.patch_status(name, &params, &patch)).await.map(Some)
    }

    /// Returns the updated Service, if there was anything to write.
    async fn write_service(&self, name: &ServiceName) -> Result<Option<ServiceObject>, Error> {
        let Some(update) = self.allocator.service_update(name, Timestamp::now()) else { return Ok(None) };
        let ServiceUpdate { version, ingress, conditions, warnings } = update;
        let status = json!({"loadBalancer": {"ingress": ingress}, "conditions": conditions});
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": status}));
        let (api, params): (Api<ServiceObject>, _) = (self.client.namespaced(&name.namespace), PatchParams::default());
        warn_and_write(&self.events, warnings, api.patch_status(&name.name, &params, &patch)).await.map(Some)
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
            match self.refused_pools.absorb(Arc::clone(&name), (), result) {
                Ok(()) => drop(self.unwritten_pools.remove(&name)),
                Err(error) if failures.add_write("CiliumLoadBalancerIPPool", &name, &error).is_break() => return,
                Err(_) => {}
            }
        }
    }

    async fn write_services(&mut self, failures: &mut Failures) {
        for name in self.unwritten_services.clone() {
            let result = self.write_service(&name).await.map(|written| {
                let row = written.as_ref().and_then(|object| Service::ingest(self.config, object));
                row.into_iter().for_each(|row| self.allocator.set_service(row));
            });
            match self.refused_services.absorb(name.clone(), (), result) {
                Ok(()) => drop(self.unwritten_services.remove(&name)),
                Err(error) if failures.add_write("Service", &name, &error).is_break() => return,
                Err(_) => {}
            }
        }
    }
}

impl Failures {
    /// Records a failed write, which is retried. If the API server did not even respond, the others need not be tried now.
    fn add_write(&mut self, kind: &str, key: &impl Display, error: &Error) -> ControlFlow<()> {
        self.add(format_args!("{kind} {key}"), error);
        if matches!(error, Error::Api(_)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

impl Controller for LbIpam {
    const NAME: &'static str = "lb-ipam";

    async fn due(&mut self) {
        let ready = self.is_ready();
        tokio::select! {
            batch = self.pools.changes.next() => self.take_pools(batch),
            batch = self.services.changes.next() => self.take_services(batch),
            batch = self.nodes.changes.next() => {
                self.nodes.complete = batch.initialized;
                self.take_occupants(batch);
            }
            batch = self.service_cidrs.changes.next() => {
                self.service_cidrs.complete = batch.initialized;
                self.take_occupants(batch);
            }
            () = tokio::time::sleep(LOOK), if !ready => {}
            pools = self.refused_pools.due() => self.unwritten_pools.extend(pools),
            services = self.refused_services.due() => self.unwritten_services.extend(services),
        }
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        if !self.is_ready() {
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
