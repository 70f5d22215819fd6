// SPDX-License-Identifier: Apache-2.0
//! The tables of objects, kept equal to the API server.

use crate::objects::Objects;
use crate::source::{
    Keep, Parameters, Route, RouteSpec, Source, ingest_config_map, ingest_secret, ingest_service, ingest_slice,
    ingest_synced, ingest_synced_anchors,
};
use k8s::gateway::{GrpcRouteSpec, HttpRouteSpec, Object, Spec, TcpRouteSpec, TlsRouteSpec, UdpRouteSpec};
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::{Client, WatchConfig};
use model::Namespace;
use statedb::{Reader, Tasks, table};

/// For what objects are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<'a> {
    /// To serve them. Credentials are read from their copies in this namespace.
    Serving {
        /// The namespace.
        secrets: &'a str,
    },
    /// To write what is said of them. Of credentials it is known whether they can be used, and nothing else is kept.
    Judging,
}

impl Reading<'_> {
    /// Reads all objects.
    pub fn objects(&self, client: &Client, tasks: &Tasks) -> Objects {
        let routes = [
            self.routes::<HttpRouteSpec>(client, tasks, "http-routes"),
            self.routes::<GrpcRouteSpec>(client, tasks, "grpc-routes"),
            self.routes::<TlsRouteSpec>(client, tasks, "tls-routes"),
            self.routes::<TcpRouteSpec>(client, tasks, "tcp-routes"),
            self.routes::<UdpRouteSpec>(client, tasks, "udp-routes"),
        ];
        let (writer, parameters) = table("gateway-class-configs");
        tasks.spawn("reflect-gateway-class-configs", client.reflect_served(writer, Parameters::ingest));
        let (writer, namespaces) = table("gateway-namespaces");
        tasks.spawn("reflect-gateway-namespaces", client.reflect(client.all(), writer, namespace));
        let (writer, services) = table("gateway-backends");
        tasks.spawn("reflect-gateway-backends", client.reflect(client.all(), writer, ingest_service));
        let (mut writer, slices) = table("gateway-endpoints");
        match self {
            Self::Serving { .. } => {
                tasks.spawn("reflect-gateway-endpoints", client.reflect(client.all(), writer, ingest_slice));
            }
            Self::Judging => writer.mark_initialized(),
        }
        let (pairs, key_pairs) = table("gateway-certificates");
        let (authorities, anchors) = table("gateway-authorities");
        let certificates = "reflect-gateway-certificates";
        match *self {
            Self::Serving { secrets } => {
                tasks.spawn(certificates, client.reflect(client.namespaced(secrets), pairs, ingest_synced));
                let copies = client.reflect(client.namespaced(secrets), authorities, ingest_synced_anchors);
                tasks.spawn("reflect-gateway-authorities", copies);
            }
            Self::Judging => {
                let watch = WatchConfig::default().fields("type=kubernetes.io/tls");
                let ingest = |secret: &core::Secret| ingest_secret(Keep::Nothing, secret);
                tasks.spawn(certificates, client.reflect_with(client.all(), watch, pairs, ingest));
                let ingest = |map: &core::ConfigMap| ingest_config_map(Keep::Nothing, map);
                tasks.spawn("reflect-gateway-authorities", client.reflect(client.all(), authorities, ingest));
            }
        }
        Objects {
            classes: self.sources(client, tasks, "gateway-classes"),
            gateways: self.sources(client, tasks, "gateways"),
            listener_sets: self.sources(client, tasks, "listener-sets"),
            routes: statedb::merge(tasks, "gateway-all-routes", routes).rows,
            grants: self.sources(client, tasks, "reference-grants"),
            tls_policies: self.sources(client, tasks, "backend-tls-policies"),
            namespaces,
            services,
            slices,
            key_pairs,
            anchors,
            parameters,
        }
    }

    fn sources<S: Spec>(&self, client: &Client, tasks: &Tasks, name: &'static str) -> Reader<Source<S>> {
        let (writer, reader) = table(name);
        let ingest = if *self == Self::Judging { Source::ingest_told } else { Source::<S>::ingest };
        tasks.spawn(name, client.reflect_served(writer, ingest));
        reader
    }

    fn routes<S: RouteSpec>(&self, client: &Client, tasks: &Tasks, name: &'static str) -> Reader<Route> {
        let (writer, reader) = table(name);
        let ingest: fn(&Object<S>) -> Option<Route> =
            if *self == Self::Judging { Route::ingest_told } else { Route::ingest };
        tasks.spawn(name, client.reflect_served(writer, ingest));
        reader
    }
}

fn namespace(object: &core::Namespace) -> Option<Namespace> {
    let labels = object.metadata.labels.clone().unwrap_or_default();
    Some(Namespace { name: object.metadata.name.as_deref()?.into(), labels })
}
