// SPDX-License-Identifier: Apache-2.0
//! Makes the Services of Gateways. One that somebody else has made under such a name is not touched.

use super::FIELD_MANAGER;
use crate::controllers::unless_stale;
use gateway::{ObjectName, ObservedService, WantedService};
use k8s::Client;
use k8s::k8s_openapi::api::core::v1::Service;
use k8s::kube::Error;
use k8s::kube::api::{DeleteParams, Patch, PatchParams};
use statedb::{Reader, Snapshot, Target};
use std::collections::BTreeMap;

pub(super) struct Services {
    client: Client,
    observed: Reader<ObservedService>,
    /// What each Service has been given by this process.
    applied: BTreeMap<ObjectName, Service>,
}

impl Services {
    pub(super) fn new(client: &Client, observed: Reader<ObservedService>) -> Self {
        Self { client: client.clone(), observed, applied: BTreeMap::new() }
    }

    async fn remove(&self, service: &ObservedService) -> Result<(), Error> {
        let api = self.client.namespaced::<Service>(&service.name.namespace);
        unless_stale(api.delete(&service.name.name, &DeleteParams::default()).await)
    }
}

impl Target<WantedService> for Services {
    type Error = Error;

    async fn update(&mut self, row: &WantedService) -> Result<(), Error> {
        if row.present && self.applied.get(&row.gateway) == Some(&row.service) {
            return Ok(());
        }
        let api = self.client.namespaced::<Service>(&row.gateway.namespace);
        let name = row.service.metadata.name.clone().unwrap_or_default();
        // Without force: fields that somebody else has set are an error.
        api.patch(&name, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(&row.service)).await?;
        self.applied.insert(row.gateway.clone(), row.service.clone());
        Ok(())
    }

    async fn delete(&mut self, gateway: &ObjectName) -> Result<(), Error> {
        self.applied.remove(gateway);
        let observed = self.observed.snapshot();
        for service in observed.iter().filter(|service| service.gateways().contains(gateway)) {
            self.remove(service).await?;
        }
        Ok(())
    }

    async fn prune(&mut self, desired: &Snapshot<WantedService>) -> Result<(), Error> {
        let observed = self.observed.snapshot();
        for service in observed.iter() {
            let gateways = service.gateways();
            if !gateways.is_empty() && gateways.iter().all(|gateway| desired.get(gateway).is_none()) {
                self.remove(service).await?;
            }
        }
        Ok(())
    }

    fn is_permanent(error: &Error) -> bool {
        k8s::is_permanent(error)
    }
}
