// SPDX-License-Identifier: Apache-2.0
//! All objects that anything here follows from.

use crate::envoy::EnvoyConfig;
use crate::name::ObjectName;
use crate::source::{Anchors, KeyPair, Parameters, Route, Service, Slice, Source};
use k8s::gateway::{
    BackendTlsPolicySpec, GatewayClassSpec, GatewaySpec, GrantFrom, ListenerSetSpec, MeshSpec, ReferenceGrantSpec,
};
use model::Namespace;
use statedb::{Reader, Row, Snapshot};
use std::sync::Arc;

/// Tables of objects.
#[derive(Clone, Debug)]
pub struct Objects {
    /// GatewayClasses.
    pub classes: Reader<Source<GatewayClassSpec>>,
    /// Gateways.
    pub gateways: Reader<Source<GatewaySpec>>,
    /// XMeshes. Whoever writes no status does not need them.
    pub meshes: Reader<Source<MeshSpec>>,
    /// ListenerSets.
    pub listener_sets: Reader<Source<ListenerSetSpec>>,
    /// Routes of all kinds.
    pub routes: Reader<Route>,
    /// ReferenceGrants.
    pub grants: Reader<Source<ReferenceGrantSpec>>,
    /// BackendTLSPolicies.
    pub tls_policies: Reader<Source<BackendTlsPolicySpec>>,
    /// Namespaces.
    pub namespaces: Reader<Namespace>,
    /// Services.
    pub services: Reader<Service>,
    /// EndpointSlices. Without a proxy to serve nobody needs them, and the table may be empty.
    pub slices: Reader<Slice>,
    /// Secrets with certificates.
    pub key_pairs: Reader<KeyPair>,
    /// ConfigMaps with authorities.
    pub anchors: Reader<Anchors>,
    /// CiliumGatewayClassConfigs.
    pub parameters: Reader<Parameters>,
    /// CiliumEnvoyConfigs and CiliumClusterwideEnvoyConfigs; on a node those that hold there.
    pub envoy_configs: Reader<EnvoyConfig>,
}

/// Rows of one namespace, of a table by [`ObjectName`].
pub(crate) fn in_namespace<R: Row<Key = ObjectName>>(table: &Snapshot<R>, namespace: &Arc<str>) -> Vec<Arc<R>> {
    let first = ObjectName { namespace: Arc::clone(namespace), name: "".into() };
    table.range(first..).take_while(|row| row.key().namespace == *namespace).cloned().collect()
}

/// What is referred to across namespaces.
pub(crate) struct Referred<'a> {
    /// API group.
    pub(crate) group: &'a str,
    /// Kind.
    pub(crate) kind: &'a str,
    /// Namespace and name.
    pub(crate) name: &'a ObjectName,
}

impl Objects {
    /// Whether an object of Gateway API of one of these kinds, in `namespace`, may refer to another: in its own namespace it may, and else
    /// a ReferenceGrant beside the other must say so.
    pub(crate) fn permits(&self, kinds: &[&str], namespace: &str, to: &Referred<'_>) -> bool {
        if to.name.namespace.as_ref() == namespace {
            return true;
        }
        let from = |from: &GrantFrom| {
            let group = [k8s::gateway::GROUP, k8s::gateway::TRIAL_GROUP].contains(&from.group.as_str());
            group && kinds.contains(&from.kind.as_str()) && from.namespace == namespace
        };
        in_namespace(&self.grants.snapshot(), &to.name.namespace).iter().any(|grant| {
            let named = |name: &Option<String>| name.as_ref().is_none_or(|name| *name == *to.name.name);
            grant.spec.from.iter().any(from)
                && grant
                    .spec
                    .to
                    .iter()
                    .any(|entry| entry.group == to.group && entry.kind == to.kind && named(&entry.name))
        })
    }
}
