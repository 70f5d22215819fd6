// SPDX-License-Identifier: Apache-2.0
//! Writes the addresses of nodes into the statuses of Services that have these, as `lbipam` finds right.

use super::pending::Pending;
use super::{Controller, Failures, REPORTER};
use k8s::k8s_openapi::api::core::v1::Service;
use k8s::kube::api::{Patch, PatchParams};
use k8s::kube::{Api, Error};
use k8s::{Client, Events};
use lbipam::{Hosts, NodePlace, NodeService, NodeUpdate};
use model::ServiceName;
use serde_json::json;
use statedb::{Derived, Inputs, Reader, Tasks};
use std::sync::Arc;

/// What it follows.
pub(super) struct Tables {
    pub(super) services: Reader<NodeService>,
    pub(super) nodes: Reader<NodePlace>,
    pub(super) hosts: Reader<Hosts>,
}

/// The statuses that are not right.
fn updates(tasks: &Tasks, tables: &Tables) -> Derived<NodeUpdate> {
    let all = tables.services.clone();
    let names = move |_: &NodePlace| all.snapshot().iter().map(|service| service.name.clone()).collect::<Vec<_>>();
    let inputs = Inputs::of(&tables.services, |service: &NodeService| [service.name.clone()])
        .and(&tables.nodes, names)
        .and(&tables.hosts, |hosts| [hosts.service.clone()]);
    let (services, nodes) = (tables.services.clone(), tables.nodes.clone());
    let hosts = tables.hosts.index(|hosts| [hosts.service.clone()]);
    statedb::derive(tasks, "node-ipam", inputs, move |name: &ServiceName, _| {
        let nodes = nodes.snapshot();
        let of_service = hosts.get(name).iter().flat_map(|hosts| hosts.nodes.clone()).collect();
        services.snapshot().get(name)?.update(nodes.iter().map(Arc::as_ref), &of_service)
    })
}

pub(super) struct NodeIpam {
    client: Client,
    events: Events,
    services: Pending<NodeService>,
    updates: Pending<NodeUpdate>,
}

impl NodeIpam {
    pub(super) fn new(client: &Client, tasks: &Tasks, tables: &Tables) -> Self {
        Self {
            client: client.clone(),
            events: Events::new(client, REPORTER),
            services: Pending::new(Self::NAME, &tables.services),
            updates: Pending::new(Self::NAME, &updates(tasks, tables).rows),
        }
    }

    async fn warn(&self, service: &NodeService) -> Result<(), Error> {
        match service.warning() {
            Some(warning) => self.events.publish(&warning).await,
            None => Ok(()),
        }
    }

    async fn write(&self, update: &NodeUpdate) -> Result<(), Error> {
        let status = json!({"loadBalancer": {"ingress": update.ingress}});
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": update.version}, "status": status}));
        let api: Api<Service> = self.client.namespaced(&update.service.namespace);
        api.patch_status(&update.service.name, &PatchParams::default(), &patch).await.map(drop)
    }
}

impl Controller for NodeIpam {
    const NAME: &'static str = "node-ipam";

    async fn due(&mut self) {
        tokio::select! {
            () = self.services.more() => {}
            () = self.updates.more() => {}
        }
    }

    async fn pass(&mut self) -> Result<(), Failures> {
        let mut failures = Failures::default();
        for service in self.services.rows() {
            let result = self.warn(&service).await;
            if let Err(error) = self.services.settle(&service, result) {
                failures.add(format_args!("service {}", service.name), &error);
            }
        }
        for update in self.updates.rows() {
            let result = self.write(&update).await;
            if let Err(error) = self.updates.settle(&update, result) {
                failures.add(format_args!("service {}", update.service), &error);
            }
        }
        failures.into_result()
    }
}
