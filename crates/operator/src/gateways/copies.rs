// SPDX-License-Identifier: Apache-2.0
//! Copies credentials into the namespace of which agents may read Secrets, and takes away those that nobody may use any more. What is in
//! them is read when it is copied, and kept nowhere.

use super::FIELD_MANAGER;
use crate::controllers::unless_stale;
use gateway::{Copy, ObjectName};
use k8s::Client;
use k8s::k8s_openapi::ByteString;
use k8s::k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s::kube::Error;
use k8s::kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use statedb::{Snapshot, Target};
use std::collections::BTreeMap;

pub(super) struct Copies {
    client: Client,
    namespace: String,
}

impl Copies {
    pub(super) fn new(client: &Client, namespace: &str) -> Self {
        Self { client: client.clone(), namespace: namespace.to_owned() }
    }

    fn api(&self) -> Api<Secret> {
        self.client.namespaced(&self.namespace)
    }

    async fn read(&self, copy: &Copy) -> Result<Option<BTreeMap<String, ByteString>>, Error> {
        let ObjectName { namespace, name } = &copy.original;
        if copy.config_map {
            let map = self.client.namespaced::<ConfigMap>(namespace).get_opt(name).await?;
            let text = map.and_then(|map| map.data?.remove("ca.crt"));
            return Ok(text.map(|text| BTreeMap::from([("ca.crt".to_owned(), ByteString(text.into_bytes()))])));
        }
        let secret = self.client.namespaced::<Secret>(namespace).get_opt(name).await?;
        Ok(secret.and_then(|secret| secret.data).map(|data| copy.content(data)))
    }

    async fn remove(&self, name: &str) -> Result<(), Error> {
        unless_stale(self.api().delete(name, &DeleteParams::default()).await)
    }
}

impl Target<Copy> for Copies {
    type Error = Error;

    async fn update(&mut self, row: &Copy) -> Result<(), Error> {
        // One that has gone meanwhile is gone from the table too, soon.
        let Some(data) = self.read(row).await? else { return Ok(()) };
        let api = self.api();
        for name in row.names() {
            let present = api.get_opt(&name).await?;
            if present.as_ref().is_some_and(|present| !row.is_copy(present)) {
                continue;
            }
            if present.is_some_and(|present| present.data.as_ref() == Some(&data)) {
                return Ok(());
            }
            let secret = row.secret(&name, &self.namespace, data);
            return api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(secret)).await.map(drop);
        }
        tracing::warn!(secret = %row.original, "cannot be copied: both names that the copy may have are taken");
        Ok(())
    }

    async fn delete(&mut self, (config_map, original): &(bool, ObjectName)) -> Result<(), Error> {
        let copy = Copy { config_map: *config_map, original: original.clone(), version: "".into() };
        for name in copy.names() {
            if self.api().get_opt(&name).await?.is_some_and(|present| copy.is_copy(&present)) {
                self.remove(&name).await?;
            }
        }
        Ok(())
    }

    async fn prune(&mut self, desired: &Snapshot<Copy>) -> Result<(), Error> {
        let params = ListParams::default().labels(gateway::OWNING_NAMESPACE);
        for secret in self.api().list(&params).await? {
            let original = gateway::original(&secret);
            if original.is_some_and(|original| desired.get(&original).is_none()) {
                self.remove(secret.metadata.name.as_deref().unwrap_or_default()).await?;
            }
        }
        Ok(())
    }

    fn is_permanent(error: &Error) -> bool {
        k8s::is_permanent(error)
    }
}
