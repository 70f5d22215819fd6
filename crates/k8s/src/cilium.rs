// SPDX-License-Identifier: Apache-2.0
//! Cilium's custom resources (group `cilium.io`, version `v2`) as Rust types.
//!
//! Fields have the API's names. An absent list is `None`, an empty one `Some(vec![])`: in policies that is a difference.
//! Unknown fields are ignored, so that objects written by a newer version can be read.

mod endpoint;
mod node;
mod policy;
mod validate;

use crate::crd::{self, AGE, Facts, VALID, column, wide};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;

pub use endpoint::*;
pub use node::*;
pub use policy::*;
pub use validate::{Policy, Violation, validate, validate_rule};

/// API group of all of them.
pub const GROUP: &str = "cilium.io";
/// Annotation of a CiliumIdentity with the time at which it was last found in use.
pub const HEARTBEAT_ANNOTATION: &str = "io.cilium.heartbeat";
/// Label of a pod's namespace on a CiliumIdentity's metadata.
pub const POD_NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";

/// The `apiVersion` of a resource, which is in its type; occupies nothing.
pub struct ApiVersion<K>(PhantomData<fn() -> K>);

/// The `kind` of a resource, which is in its type; occupies nothing.
pub struct Kind<K>(PhantomData<fn() -> K>);

macro_rules! type_tag {
    ($tag:ident, $text:ident) => {
        impl<K> Clone for $tag<K> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<K> Copy for $tag<K> {}
        impl<K> Default for $tag<K> {
            fn default() -> Self {
                Self(PhantomData)
            }
        }
        impl<K> PartialEq for $tag<K> {
            fn eq(&self, _: &Self) -> bool {
                true
            }
        }
        impl<K: kube::Resource<DynamicType = ()>> Debug for $tag<K> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&K::$text(&()))
            }
        }
        impl<K: kube::Resource<DynamicType = ()>> Serialize for $tag<K> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&K::$text(&()))
            }
        }
    };
}

type_tag!(ApiVersion, api_version);
type_tag!(Kind, kind);

/// Declares a custom resource: its type, and what its CustomResourceDefinition says besides.
macro_rules! resource {
    (
        $(#[$meta:meta])*
        $name:ident, $scope:ty, $plural:literal, { $($fact:ident: $value:expr,)* }
        { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// `apiVersion`, always the type's.
            #[serde(skip_deserializing)]
            #[schemars(skip)]
            pub api_version: ApiVersion<$name>,
            /// `kind`, always the type's.
            #[serde(skip_deserializing)]
            #[schemars(skip)]
            pub kind: Kind<$name>,
            /// Name, labels and so on.
            #[serde(default)]
            #[schemars(skip)]
            pub metadata: ObjectMeta,
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl crate::crd::Defined for $name {
            const FACTS: Facts = Facts { $($fact: $value,)* ..Facts::NONE };
        }

        impl $name {
            /// An empty object of that name.
            #[must_use]
            pub fn named(name: &str) -> Self {
                let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
                Self { metadata, ..Self::default() }
            }
        }

        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                stringify!($name).into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                GROUP.into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                "v2".into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource! {
    /// A policy for the pods of one namespace.
    CiliumNetworkPolicy, NamespaceResourceScope, "ciliumnetworkpolicies", {
        short_names: &["cnp", "ciliumnp"],
        categories: &["ciliumpolicy"],
        status_subresource: true,
        columns: &[AGE, VALID],
    }
    {
        /// One rule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "crd::policy::spec")]
        spec: Option<Rule>,
        /// Several rules; with `spec` they count together.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "crd::policy::specs")]
        specs: Option<Vec<Rule>>,
        /// Whether it is valid.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "crd::policy::conditions")]
        status: Option<PolicyStatus>,
    }
}

resource! {
    /// A policy for pods of all namespaces, or for nodes.
    CiliumClusterwideNetworkPolicy, ClusterResourceScope, "ciliumclusterwidenetworkpolicies", {
        short_names: &["ccnp"],
        categories: &["ciliumpolicy"],
        status_subresource: true,
        columns: &[VALID],
    }
    {
        /// One rule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "crd::policy::spec")]
        spec: Option<Rule>,
        /// Several rules; with `spec` they count together.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "crd::policy::specs")]
        specs: Option<Vec<Rule>>,
        /// Whether it is valid.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(schema_with = "crd::policy::conditions")]
        status: Option<PolicyStatus>,
    }
}

resource! {
    /// A node as the other nodes need to know it, and the pod CIDRs that the operator gave it.
    CiliumNode, ClusterResourceScope, "ciliumnodes", {
        short_names: &["cn", "ciliumn"],
        status_subresource: true,
        columns: &[
            column("CiliumInternalIP", "string", r#".spec.addresses[?(@.type=="CiliumInternalIP")].ip"#),
            column("InternalIP", "string", r#".spec.addresses[?(@.type=="InternalIP")].ip"#),
            AGE,
        ],
    }
    {
        /// What is known of it.
        #[serde(default)]
        spec: NodeSpec,
        /// What became of its requests.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<NodeStatus>,
    }
}

resource! {
    /// A pod's network state, written by its node's agent. Name and namespace are the pod's.
    CiliumEndpoint, NamespaceResourceScope, "ciliumendpoints", {
        short_names: &["cep", "ciliumep"],
        columns: &[
            column("Security Identity", "integer", ".status.identity.id"),
            wide("Ingress Enforcement", "string", ".status.policy.ingress.state"),
            wide("Egress Enforcement", "string", ".status.policy.egress.state"),
            column("Endpoint State", "string", ".status.state"),
            column("IPv4", "string", ".status.networking.addressing[0].ipv4"),
            column("IPv6", "string", ".status.networking.addressing[0].ipv6"),
        ],
    }
    {
        /// All that there is. It is not a subresource.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<EndpointStatus>,
    }
}

resource! {
    /// A security identity. Its name is the number.
    CiliumIdentity, ClusterResourceScope, "ciliumidentities", {
        short_names: &["ciliumid"],
        status_subresource: true,
        columns: &[column("Namespace", "string", r".metadata.labels.io\.kubernetes\.pod\.namespace"), AGE],
    }
    {
        /// The labels that make it, `source:key` to value.
        #[serde(default, rename = "security-labels")]
        security_labels: BTreeMap<String, String>,
    }
}

resource! {
    /// A named list of prefixes for policies.
    CiliumCIDRGroup, ClusterResourceScope, "ciliumcidrgroups", {
        short_names: &["ccg"],
        alpha: true,
    }
    {
        /// The prefixes.
        #[serde(default)]
        spec: CIDRGroupSpec,
    }
}

/// Content of a [`CiliumCIDRGroup`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CIDRGroupSpec {
    /// The prefixes.
    #[serde(default, rename = "externalCIDRs")]
    #[schemars(length(min = 0), extend("items" = {"type": "string", "format": "cidr"}))]
    pub external_cidrs: Vec<String>,
}

#[cfg(test)]
mod tests;
