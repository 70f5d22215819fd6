// SPDX-License-Identifier: Apache-2.0
//! The CustomResourceDefinitions of [`cilium`](crate::cilium)'s resources, with the schemas that users' manifests are
//! checked against. A resource is declared with its type; `deploy/crds` is written from that.

pub(crate) mod condition;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod schema;

use crate::cilium::{
    CiliumCIDRGroup, CiliumClusterwideEnvoyConfig, CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumEnvoyConfig,
    CiliumGatewayClassConfig, CiliumIdentity, CiliumL2AnnouncementPolicy, CiliumLoadBalancerIPPool,
    CiliumLocalRedirectPolicy, CiliumNetworkPolicy, CiliumNode,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Resource;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use schemars::JsonSchema;
use serde_json::{Value, json};

/// Label of a CustomResourceDefinition with the version of its schema.
pub const SCHEMA_VERSION_LABEL: &str = "io.cilium.k8s.crd.schema.version";
/// The version of these schemas.
pub const SCHEMA_VERSION: &str = "1.32.6";

/// All definitions, by name.
///
/// # Errors
/// Never in a build whose tests pass.
pub fn all() -> Result<Vec<CustomResourceDefinition>, serde_json::Error> {
    [
        definition::<CiliumCIDRGroup>,
        definition::<CiliumClusterwideEnvoyConfig>,
        definition::<CiliumClusterwideNetworkPolicy>,
        definition::<CiliumEndpoint>,
        definition::<CiliumEnvoyConfig>,
        definition::<CiliumGatewayClassConfig>,
        definition::<CiliumIdentity>,
        definition::<CiliumL2AnnouncementPolicy>,
        definition::<CiliumLoadBalancerIPPool>,
        definition::<CiliumLocalRedirectPolicy>,
        definition::<CiliumNetworkPolicy>,
        definition::<CiliumNode>,
    ]
    .into_iter()
    .map(|definition| definition())
    .collect()
}

/// What a resource's type does not say of its definition.
pub(crate) trait Defined: Resource<DynamicType = ()> + JsonSchema {
    const FACTS: Facts;
}

/// What of a definition is neither in the type nor in its schema.
pub(crate) struct Facts {
    /// The version that is stored.
    pub(crate) version: &'static str,
    pub(crate) short_names: &'static [&'static str],
    /// Besides `cilium`.
    pub(crate) categories: &'static [&'static str],
    pub(crate) status_subresource: bool,
    /// Also served as `v2alpha1`, which is deprecated.
    pub(crate) alpha: bool,
    pub(crate) columns: &'static [Column],
}

impl Facts {
    pub(crate) const NONE: Self = Self {
        version: "v2",
        short_names: &[],
        categories: &[],
        status_subresource: false,
        alpha: false,
        columns: &[],
    };
}

/// A column that `kubectl get` prints.
pub(crate) struct Column {
    name: &'static str,
    path: &'static str,
    kind: &'static str,
    wide: bool,
}

pub(crate) const fn column(name: &'static str, kind: &'static str, path: &'static str) -> Column {
    Column { name, path, kind, wide: false }
}

pub(crate) const fn wide(name: &'static str, kind: &'static str, path: &'static str) -> Column {
    Column { name, path, kind, wide: true }
}

pub(crate) const AGE: Column = column("Age", "date", ".metadata.creationTimestamp");
pub(crate) const VALID: Column = column("Valid", "string", ".status.conditions[?(@.type=='Valid')].status");

/// Whether objects live in namespaces, as definitions say it.
trait Scope {
    const NAME: &str;
}

impl Scope for NamespaceResourceScope {
    const NAME: &str = "Namespaced";
}

impl Scope for ClusterResourceScope {
    const NAME: &str = "Cluster";
}

fn definition<K: Defined<Scope: Scope>>() -> Result<CustomResourceDefinition, serde_json::Error> {
    let (facts, kind, plural, group) = (K::FACTS, K::kind(&()), K::plural(&()), K::group(&()));
    let columns: Vec<Value> = facts.columns.iter().map(Column::json).collect();
    let schema = schema::of::<K>();
    // What is null here is absent in the result.
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage, "deprecated": (!storage).then_some(true),
            "schema": {"openAPIV3Schema": &schema},
            "subresources": if facts.status_subresource { json!({"status": {}}) } else { json!({}) },
            "additionalPrinterColumns": (!columns.is_empty()).then_some(&columns),
        })
    };
    let stored = version(&K::version(&()), true);
    let versions: Vec<Value> = std::iter::once(stored).chain(facts.alpha.then(|| version("v2alpha1", false))).collect();
    let categories: Vec<&str> = std::iter::once("cilium").chain(facts.categories.iter().copied()).collect();
    let names = json!({
        "kind": kind, "listKind": format!("{kind}List"), "plural": plural,
        "singular": kind.to_lowercase(), "shortNames": facts.short_names, "categories": categories,
    });
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}"), "labels": {SCHEMA_VERSION_LABEL: SCHEMA_VERSION}},
        "spec": {"group": group, "names": names, "scope": K::Scope::NAME, "versions": versions},
    }))
}

impl Column {
    fn json(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "jsonPath": self.path, "priority": self.wide.then_some(1)})
    }
}

#[cfg(test)]
mod tests;
