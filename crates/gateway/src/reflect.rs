// SPDX-License-Identifier: Apache-2.0
//! The tables of objects, kept equal to the API server.

use crate::envoy::{EnvoyConfig, ingest_clusterwide_envoy_config, ingest_envoy_config};
use crate::ingress::{Ingress, IngressConfig, ingest_ingress, with_ingresses};
use crate::objects::Objects;
use crate::source::{
    Keep, Parameters, Route, RouteSpec, Source, TOKEN_KEY, TokenKey, ingest_config_map, ingest_secret, ingest_service,
    ingest_slice, ingest_synced, ingest_synced_anchors, ingest_token_key,
};
use k8s::gateway::{GrpcRouteSpec, HttpRouteSpec, Object, Spec, TcpRouteSpec, TlsRouteSpec, UdpRouteSpec};
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::k8s_openapi::api::networking::v1 as networking;
use k8s::{Client, WatchConfig};
use model::Namespace;
use statedb::{Reader, Row, Tasks, table};

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

/// Which objects are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// Those of Gateway API.
    pub gateway_api: bool,
    /// Ingresses, and how they are served.
    pub ingress: Option<IngressConfig>,
    /// CiliumEnvoyConfigs and CiliumClusterwideEnvoyConfigs.
    pub envoy_configs: bool,
}

/// What is read.
#[derive(Clone, Debug)]
pub struct Reflected {
    /// All objects, Ingresses as Gateways and routes.
    pub objects: Objects,
    /// Ingresses.
    pub ingresses: Reader<Ingress>,
}

impl Reading<'_> {
    /// Reads all objects of the kinds.
    pub fn objects(&self, kinds: &Kinds, client: &Client, tasks: &Tasks) -> Reflected {
        let objects = self.all_but_ingresses(kinds, client, tasks);
        let (mut writer, ingresses) = table("ingresses");
        let Some(config) = &kinds.ingress else {
            writer.mark_initialized();
            return Reflected { objects, ingresses };
        };
        let ingest = config.clone();
        let ingest = move |object: &networking::Ingress| ingest_ingress(&ingest, object);
        tasks.spawn("reflect-ingresses", client.reflect(client.all(), writer, ingest));
        let objects = with_ingresses(tasks, &objects, &ingresses, config);
        Reflected { objects, ingresses }
    }

    fn all_but_ingresses(&self, kinds: &Kinds, client: &Client, tasks: &Tasks) -> Objects {
        let on = kinds.gateway_api;
        let routes = [
            self.routes::<HttpRouteSpec>(on, client, tasks, "http-routes"),
            self.routes::<GrpcRouteSpec>(on, client, tasks, "grpc-routes"),
            self.routes::<TlsRouteSpec>(on, client, tasks, "tls-routes"),
            self.routes::<TcpRouteSpec>(on, client, tasks, "tcp-routes"),
            self.routes::<UdpRouteSpec>(on, client, tasks, "udp-routes"),
        ];
        let ingest = if *self == Self::Judging { Parameters::ingest_told } else { Parameters::ingest };
        let parameters = follow(on, client, tasks, "gateway-class-configs", ingest);
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
            classes: self.sources(on, client, tasks, "gateway-classes"),
            gateways: self.sources(on, client, tasks, "gateways"),
            meshes: self.sources(on && *self == Self::Judging, client, tasks, "meshes"),
            listener_sets: self.sources(on, client, tasks, "listener-sets"),
            routes: statedb::merge(tasks, "gateway-all-routes", routes).rows,
            grants: self.sources(on, client, tasks, "reference-grants"),
            tls_policies: self.sources(on, client, tasks, "backend-tls-policies"),
            namespaces,
            services,
            slices,
            key_pairs,
            anchors,
            parameters,
            envoy_configs: envoy_configs(kinds.envoy_configs, client, tasks),
        }
    }

    fn sources<S: Spec>(&self, on: bool, client: &Client, tasks: &Tasks, name: &'static str) -> Reader<Source<S>> {
        follow(on, client, tasks, name, if *self == Self::Judging { Source::ingest_told } else { Source::<S>::ingest })
    }

    fn routes<S: RouteSpec>(&self, on: bool, client: &Client, tasks: &Tasks, name: &'static str) -> Reader<Route> {
        follow(on, client, tasks, name, if *self == Self::Judging { Route::ingest_told::<S> } else { Route::ingest })
    }
}

/// Those of namespaces and those of the cluster, if they are to be read.
fn envoy_configs(on: bool, client: &Client, tasks: &Tasks) -> Reader<EnvoyConfig> {
    let (mut namespaced, of_namespaces) = table("namespaced-envoy-configs");
    let (mut clusterwide, of_cluster) = table("clusterwide-envoy-configs");
    if on {
        tasks.spawn("reflect-envoy-configs", client.reflect(client.all(), namespaced, ingest_envoy_config));
        let ingest = ingest_clusterwide_envoy_config;
        tasks.spawn("reflect-clusterwide-envoy-configs", client.reflect(client.all(), clusterwide, ingest));
    } else {
        namespaced.mark_initialized();
        clusterwide.mark_initialized();
    }
    statedb::merge(tasks, "all-envoy-configs", [of_namespaces, of_cluster]).rows
}

/// Follows the key of session persistence, which is in the namespace of the copies.
pub fn token_keys(client: &Client, namespace: &str, tasks: &Tasks) -> Reader<TokenKey> {
    let (writer, keys) = table("gateway-token-keys");
    let watch = WatchConfig::default().fields(&format!("metadata.name={TOKEN_KEY}"));
    let secrets = client.namespaced(namespace);
    tasks.spawn("reflect-gateway-token-key", client.reflect_with(secrets, watch, writer, ingest_token_key));
    keys
}

/// Follows a kind, if it is to be read.
fn follow<S: Spec, R: Row>(
    on: bool,
    client: &Client,
    tasks: &Tasks,
    name: &'static str,
    ingest: fn(&Object<S>) -> Option<R>,
) -> Reader<R> {
    let (mut writer, reader) = table(name);
    if on {
        tasks.spawn(name, client.reflect_served(writer, ingest));
    } else {
        writer.mark_initialized();
    }
    reader
}

fn namespace(object: &core::Namespace) -> Option<Namespace> {
    let labels = object.metadata.labels.clone().unwrap_or_default();
    Some(Namespace { name: object.metadata.name.as_deref()?.into(), labels })
}
