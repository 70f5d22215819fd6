// SPDX-License-Identifier: Apache-2.0
//! Objects of Kubernetes to source rows.

mod backends;
mod credentials;
mod token_key;

pub use backends::{Endpoint, Hints, Service, ServicePort, Slice, ingest_service, ingest_slice};
pub use credentials::{
    Anchors, Keep, KeyPair, OWNING_KIND, OWNING_NAME, OWNING_NAMESPACE, ingest_config_map, ingest_secret,
    ingest_synced, ingest_synced_anchors, original,
};
pub use token_key::{TOKEN_KEY, TokenKey, ingest_token_key, token_key_secret};

use crate::name::{ObjectName, RouteKind, RouteName};
use k8s::gateway::{
    GatewayClassConfigSpec, GatewayClassConfigStatus, GrpcRouteSpec, GrpcRule, HttpRouteSpec, HttpRule, Object,
    ParentReference, RouteStatus, ServiceParameters, Spec, StreamRule, TcpRouteSpec, TlsRouteSpec, UdpRouteSpec,
};
use k8s::kube::api::ObjectMeta;
use std::sync::Arc;

/// What of an object's metadata matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Number of the specification.
    pub generation: i64,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Unique over time.
    pub uid: Arc<str>,
}

impl From<&ObjectMeta> for Meta {
    fn from(meta: &ObjectMeta) -> Self {
        Self {
            generation: meta.generation.unwrap_or_default(),
            created: meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
        }
    }
}

/// What is said of an object, and in which version of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told<T> {
    /// Version of the object.
    pub version: String,
    /// The status.
    pub status: T,
}

/// An object of Gateway API. Whoever writes no status has none in his rows either, so that they do not change with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Source<S: Spec> {
    /// Namespace and name.
    pub name: ObjectName,
    /// Metadata.
    pub meta: Meta,
    /// What is wanted.
    pub spec: S,
    /// What is said of it.
    pub told: Option<Told<S::Status>>,
}

impl<S: Spec> statedb::Row for Source<S> {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.name.clone()
    }
}

impl<S: Spec> Source<S> {
    /// The row of an object, without its status.
    #[must_use]
    pub fn ingest(object: &Object<S>) -> Option<Self> {
        let name = ObjectName::of(&object.metadata)?;
        Some(Self { name, meta: (&object.metadata).into(), spec: object.spec.clone(), told: None })
    }

    /// The row of an object, with its status.
    #[must_use]
    pub fn ingest_told(object: &Object<S>) -> Option<Self> {
        Some(Self { told: Some(told(object)), ..Self::ingest(object)? })
    }
}

fn told<S: Spec>(object: &Object<S>) -> Told<S::Status> {
    let version = object.metadata.resource_version.clone().unwrap_or_default();
    Told { version, status: object.status.clone().unwrap_or_default() }
}

/// A CiliumGatewayClassConfig.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// Namespace and name.
    pub name: ObjectName,
    /// Number of the specification.
    pub generation: i64,
    /// How Services of Gateways are to be.
    pub service: ServiceParameters,
    /// The one port at which what stands for Ingresses listens at the nodes' own addresses.
    pub host_port: Option<u16>,
    /// At which ports of nodes it is reached besides.
    pub node_ports: NodePorts,
    /// What is said of it; see [`Source`].
    pub told: Option<Told<GatewayClassConfigStatus>>,
}

/// Ports of nodes that somebody has chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodePorts {
    /// Of port 80.
    pub insecure: Option<u16>,
    /// Of port 443.
    pub secure: Option<u16>,
}

impl Parameters {
    /// The row of an object.
    #[must_use]
    pub fn ingest(object: &Object<GatewayClassConfigSpec>) -> Option<Self> {
        Some(Self {
            generation: object.metadata.generation.unwrap_or_default(),
            ..Self::new(ObjectName::of(&object.metadata)?, object.spec.service.clone().unwrap_or_default())
        })
    }

    /// The row of an object, with its status.
    #[must_use]
    pub fn ingest_told(object: &Object<GatewayClassConfigSpec>) -> Option<Self> {
        Some(Self { told: Some(told(object)), ..Self::ingest(object)? })
    }

    /// Those of no object.
    pub(crate) fn new(name: ObjectName, service: ServiceParameters) -> Self {
        Self { name, generation: 0, service, host_port: None, node_ports: NodePorts::default(), told: None }
    }
}

impl statedb::Row for Parameters {
    type Key = ObjectName;
    fn key(&self) -> ObjectName {
        self.name.clone()
    }
}

/// A route of any kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Kind, namespace and name.
    pub name: RouteName,
    /// Metadata.
    pub meta: Meta,
    /// What it attaches to.
    pub parents: Vec<ParentReference>,
    /// Host names; empty for kinds that have none.
    pub hostnames: Vec<String>,
    /// Rules.
    pub rules: Rules,
    /// What is said of it; see [`Source`].
    pub told: Option<Told<RouteStatus>>,
}

/// The rules of a route.
#[derive(Clone, Debug, PartialEq)]
pub enum Rules {
    /// Of an HTTPRoute.
    Http(Vec<HttpRule>),
    /// Of a GRPCRoute.
    Grpc(Vec<GrpcRule>),
    /// Of a TLSRoute, TCPRoute or UDPRoute.
    Stream(Vec<StreamRule>),
}

impl statedb::Row for Route {
    type Key = RouteName;
    fn key(&self) -> RouteName {
        self.name.clone()
    }
}

impl Route {
    /// The row of a route, without its status.
    #[must_use]
    pub fn ingest<S: RouteSpec>(object: &Object<S>) -> Option<Self> {
        let name = RouteName { kind: S::KIND, name: ObjectName::of(&object.metadata)? };
        let (parents, hostnames, rules) = object.spec.clone().parts();
        Some(Self { name, meta: (&object.metadata).into(), parents, hostnames, rules, told: None })
    }

    /// The row of a route, with its status.
    #[must_use]
    pub fn ingest_told<S: RouteSpec>(object: &Object<S>) -> Option<Self> {
        Some(Self { told: Some(told(object)), ..Self::ingest(object)? })
    }
}

/// The specification of a kind of route.
pub trait RouteSpec: Spec<Status = RouteStatus> {
    /// Kind.
    const KIND: RouteKind;
    /// Parents, host names and rules.
    fn parts(self) -> (Vec<ParentReference>, Vec<String>, Rules);
}

macro_rules! route_spec {
    ($spec:ident, $kind:ident, $rules:ident) => {
        impl RouteSpec for $spec {
            const KIND: RouteKind = RouteKind::$kind;
            fn parts(self) -> (Vec<ParentReference>, Vec<String>, Rules) {
                (self.parent_refs, self.hostnames, Rules::$rules(self.rules))
            }
        }
    };
}

route_spec!(HttpRouteSpec, Http, Http);
route_spec!(GrpcRouteSpec, Grpc, Grpc);
route_spec!(TlsRouteSpec, Tls, Stream);
route_spec!(TcpRouteSpec, Tcp, Stream);
route_spec!(UdpRouteSpec, Udp, Stream);
