// SPDX-License-Identifier: Apache-2.0
//! The CustomResourceDefinitions of [`cilium`](crate::cilium)'s resources, with the schemas that users' manifests are
//! checked against. This is their only source: `deploy/crds` is written from it.

mod endpoint;
mod node;
mod policy;
mod schema;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schema::{Schema, list, map, object, string};
use serde_json::{Value, json};

/// Label of a CustomResourceDefinition with the version of its schema.
pub const SCHEMA_VERSION_LABEL: &str = "io.cilium.k8s.crd.schema.version";
/// The version of these schemas.
pub const SCHEMA_VERSION: &str = "1.32.6";

/// What of a definition is not its schema.
struct Definition {
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
    short_names: &'static [&'static str],
    /// Besides `cilium`.
    categories: &'static [&'static str],
    status_subresource: bool,
    /// Also served as `v2alpha1`, which is deprecated.
    alpha: bool,
    columns: Vec<Column>,
    schema: Schema,
}

/// A column that `kubectl get` prints.
struct Column {
    name: &'static str,
    path: &'static str,
    kind: &'static str,
    wide: bool,
}

const fn column(name: &'static str, kind: &'static str, path: &'static str) -> Column {
    Column { name, path, kind, wide: false }
}

const fn wide(name: &'static str, kind: &'static str, path: &'static str) -> Column {
    Column { name, path, kind, wide: true }
}

const AGE: Column = column("Age", "date", ".metadata.creationTimestamp");
const VALID: Column = column("Valid", "string", ".status.conditions[?(@.type=='Valid')].status");

/// All definitions, by name.
///
/// # Errors
/// Never in a build whose tests pass.
pub fn all() -> Result<Vec<CustomResourceDefinition>, serde_json::Error> {
    let mut all = policies().into_iter().chain(state()).map(Definition::build).collect::<Result<Vec<_>, _>>()?;
    all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    Ok(all)
}

/// What users write.
fn policies() -> Vec<Definition> {
    vec![
        Definition {
            kind: "CiliumNetworkPolicy",
            plural: "ciliumnetworkpolicies",
            namespaced: true,
            short_names: &["cnp", "ciliumnp"],
            categories: &["ciliumpolicy"],
            status_subresource: true,
            alpha: false,
            columns: vec![AGE, VALID],
            schema: policy::schema(),
        },
        Definition {
            kind: "CiliumClusterwideNetworkPolicy",
            plural: "ciliumclusterwidenetworkpolicies",
            namespaced: false,
            short_names: &["ccnp"],
            categories: &["ciliumpolicy"],
            status_subresource: true,
            alpha: false,
            columns: vec![VALID],
            schema: policy::schema(),
        },
        Definition {
            kind: "CiliumCIDRGroup",
            plural: "ciliumcidrgroups",
            namespaced: false,
            short_names: &["ccg"],
            categories: &[],
            status_subresource: false,
            alpha: true,
            columns: Vec::new(),
            schema: object([(
                "spec",
                object([("externalCIDRs", list(string().format("cidr")).with("minItems", 0))])
                    .required(["externalCIDRs"]),
            )])
            .required(["spec"]),
        },
    ]
}

/// What agents and operator write.
fn state() -> Vec<Definition> {
    vec![
        Definition {
            kind: "CiliumNode",
            plural: "ciliumnodes",
            namespaced: false,
            short_names: &["cn", "ciliumn"],
            categories: &[],
            status_subresource: true,
            alpha: false,
            columns: vec![
                column("CiliumInternalIP", "string", r#".spec.addresses[?(@.type=="CiliumInternalIP")].ip"#),
                column("InternalIP", "string", r#".spec.addresses[?(@.type=="InternalIP")].ip"#),
                AGE,
            ],
            schema: node::schema(),
        },
        Definition {
            kind: "CiliumEndpoint",
            plural: "ciliumendpoints",
            namespaced: true,
            short_names: &["cep", "ciliumep"],
            categories: &[],
            status_subresource: false,
            alpha: false,
            columns: vec![
                column("Security Identity", "integer", ".status.identity.id"),
                wide("Ingress Enforcement", "string", ".status.policy.ingress.state"),
                wide("Egress Enforcement", "string", ".status.policy.egress.state"),
                column("Endpoint State", "string", ".status.state"),
                column("IPv4", "string", ".status.networking.addressing[0].ipv4"),
                column("IPv6", "string", ".status.networking.addressing[0].ipv6"),
            ],
            schema: endpoint::schema(),
        },
        Definition {
            kind: "CiliumIdentity",
            plural: "ciliumidentities",
            namespaced: false,
            short_names: &["ciliumid"],
            categories: &[],
            status_subresource: true,
            alpha: false,
            columns: vec![column("Namespace", "string", r".metadata.labels.io\.kubernetes\.pod\.namespace"), AGE],
            schema: object([("security-labels", map(string()))]).required(["security-labels"]),
        },
    ]
}

impl Definition {
    fn build(self) -> Result<CustomResourceDefinition, serde_json::Error> {
        let columns: Vec<Value> = self.columns.iter().map(Column::json).collect();
        // What is null here is absent in the result.
        let version = |name: &str, storage: bool| {
            json!({
                "name": name, "served": true, "storage": storage, "deprecated": (!storage).then_some(true),
                "schema": {"openAPIV3Schema": self.schema.clone().top_level()},
                "subresources": if self.status_subresource { json!({"status": {}}) } else { json!({}) },
                "additionalPrinterColumns": (!columns.is_empty()).then_some(&columns),
            })
        };
        let versions: Vec<Value> =
            std::iter::once(version("v2", true)).chain(self.alpha.then(|| version("v2alpha1", false))).collect();
        let categories: Vec<&str> = std::iter::once("cilium").chain(self.categories.iter().copied()).collect();
        let names = json!({
            "kind": self.kind, "listKind": format!("{}List", self.kind), "plural": self.plural,
            "singular": self.kind.to_lowercase(), "shortNames": self.short_names, "categories": categories,
        });
        serde_json::from_value(json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{}.{}", self.plural, crate::cilium::GROUP),
                "labels": {SCHEMA_VERSION_LABEL: SCHEMA_VERSION},
            },
            "spec": {
                "group": crate::cilium::GROUP,
                "names": names,
                "scope": if self.namespaced { "Namespaced" } else { "Cluster" },
                "versions": versions,
            },
        }))
    }
}

impl Column {
    fn json(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "jsonPath": self.path, "priority": self.wide.then_some(1)})
    }
}

#[cfg(test)]
mod tests;
