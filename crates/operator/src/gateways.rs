// SPDX-License-Identifier: Apache-2.0
//! Gateway API: what follows from its objects for the cluster is decided in `gateway`, and written here.

mod copies;
mod ingresses;
mod services;
mod statuses;

use gateway::{EnvoyProblems, Kinds, Observed, Reading, Reflected, ServiceConfig};
use k8s::{Client, WatchConfig};
use statedb::{Reader, Tasks, reconcile};

/// Under which name fields are ours.
const FIELD_MANAGER: &str = "cilium-operator-gateway";

/// What is done for Gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateways {
    /// Objects of Gateway API are read.
    pub gateway_api: bool,
    /// CiliumEnvoyConfigs are read.
    pub envoy_configs: bool,
    /// How Ingresses are served, if they are.
    pub ingresses: Option<gateway::Config>,
    /// Where credentials are copied to, of which agents may read Secrets; nothing is copied if unset.
    pub secrets_namespace: Option<String>,
    /// Where agents say what proxies have in force.
    pub reports_namespace: String,
    /// How Services of Gateways are.
    pub service: ServiceConfig,
    /// Label selector of the nodes at whose addresses Gateways are reached, if they are.
    pub nodes: String,
}

/// Starts to follow the objects, and to write what follows. `namespace` is the operator's. Gives what is to be said of objects without a
/// status.
pub(crate) fn start(client: &Client, namespace: &str, config: &Gateways, tasks: &Tasks) -> Reader<EnvoyProblems> {
    let (writer, observed) = statedb::table("gateway-observed-services");
    let ingest = gateway::ingest_observed;
    tasks.spawn("reflect-gateway-services", client.reflect(client.all(), writer, ingest));
    let (mut writer, nodes) = statedb::table("gateway-nodes");
    if config.service.host_network {
        let watch = WatchConfig::default().labels(&config.nodes);
        let ingest = gateway::ingest_node;
        tasks.spawn("reflect-gateway-nodes", client.reflect_with(client.all(), watch, writer, ingest));
    } else {
        writer.mark_initialized();
    }
    let (writer, proxies) = statedb::table("gateway-proxies");
    let watch = WatchConfig::default().labels(gateway::PROXY_REPORT);
    let reports = client.namespaced(&config.reports_namespace);
    let ingest = gateway::ingest_report;
    tasks.spawn("reflect-gateway-proxies", client.reflect_with(reports, watch, writer, ingest));
    let ingress = config.ingresses.as_ref().map(|served| served.ingresses(namespace));
    let (gateway_api, envoy_configs) = (config.gateway_api, config.envoy_configs);
    let kinds = Kinds { gateway_api, ingress: ingress.clone(), envoy_configs };
    let Reflected { objects, ingresses } = Reading::Judging.objects(&kinds, client, tasks);
    let ingress = ingress.unwrap_or_default();
    let observed = Observed { services: observed, nodes, proxies, ingresses, ingress };
    let wanted = gateway::want(tasks, &objects, &observed, config.service.clone());
    reconcile(tasks, "ingress-write-addresses", wanted.ingresses, ingresses::Ingresses(client.clone()));
    let services = services::Services::new(client, observed.services);
    reconcile(tasks, "gateway-write-services", wanted.services, services);
    reconcile(tasks, "gateway-write-statuses", wanted.corrections, statuses::Statuses::new(client));
    if let Some(namespace) = &config.secrets_namespace {
        reconcile(tasks, "gateway-write-copies", wanted.copies, copies::Copies::new(client, namespace));
    }
    wanted.problems
}
