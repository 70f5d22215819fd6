// SPDX-License-Identifier: Apache-2.0
//! Writes the addresses of Ingresses into their status.

use crate::controllers::unless_stale;
use gateway::IngressAddresses;
use k8s::Client;
use k8s::k8s_openapi::api::networking::v1::Ingress;
use k8s::kube::Error;
use k8s::kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use statedb::Target;
use std::net::IpAddr;

pub(super) struct Ingresses(pub(super) Client);

impl Target<IngressAddresses> for Ingresses {
    type Error = Error;

    async fn update(&mut self, row: &IngressAddresses) -> Result<(), Error> {
        let entry = |address: &String| -> Value {
            if address.parse::<IpAddr>().is_ok() { json!({"ip": address}) } else { json!({"hostname": address}) }
        };
        let ingress: Vec<Value> = row.addresses.iter().map(entry).collect();
        let patch = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        let api = self.0.namespaced::<Ingress>(&row.name.namespace);
        unless_stale(api.patch_status(&row.name.name, &PatchParams::default(), &Patch::Merge(patch)).await)
    }

    fn is_permanent(error: &Error) -> bool {
        k8s::is_permanent(error)
    }
}
