// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod class;
mod cluster;
mod config;
mod duration;
mod edge;
mod envoy;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod host;
mod infrastructure;
mod ingress;
mod name;
mod objects;
mod reflect;
mod resolve;
mod route;
mod serve;
mod source;
mod status;
mod tls_policy;
mod verdict;

pub use class::CONTROLLER;
pub use cluster::service_of;
pub use config::{Config, LoadBalancerMode};
pub use envoy::{EnvoyConfig, EnvoyProblems, envoy_configs_here, ingest_clusterwide_envoy_config, ingest_envoy_config};
pub use infrastructure::{
    Copy, IngressAddresses, IngressClosed, NodeAddresses, Observed, ObservedService, PROXY_REPORT, ProxyReport,
    ServiceConfig, Wanted, WantedService, ingest_node, ingest_observed, ingest_report, report_objects, want,
};
pub use ingress::{Ingress, IngressConfig, IngressFault, IngressProblem, ingest_ingress, with_ingresses};
pub use name::{ObjectName, ParentKind, ParentName, RouteKind, RouteName};
pub use objects::Objects;
pub use reflect::{Kinds, Reading, Reflected, token_keys};
pub use serve::{
    ClosedPort, Edition, InForce, Intercepted, Peers, Serves, Serving, Snapshots, Taken, Unserved, in_force,
    intercepted, serve, taken,
};
pub use source::*;
pub use status::{Correction, Report, Status, Subject};
pub use verdict::Verdict;
