// SPDX-License-Identifier: Apache-2.0
//! Gateway API: what follows from its objects for the cluster is decided in `gateway`, and written here.

mod copies;
mod ingresses;
mod services;
mod statuses;
mod token_key;

use gateway::{
    EnvoyProblems, IngressClosed, IngressProblem, Kinds, NodeAddresses, Observed, Reading, Reflected, ServiceConfig,
};
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
    /// The same of Ingresses.
    pub ingress_nodes: String,
}

/// What is to be said of objects that have no conditions.
pub(crate) struct Warnings {
    pub(crate) problems: Reader<EnvoyProblems>,
    pub(crate) closed: Reader<IngressClosed>,
    pub(crate) ingresses: Reader<IngressProblem>,
}

/// Starts to follow the objects, and to write what follows. `namespace` is the operator's.
pub(crate) fn start(client: &Client, namespace: &str, config: &Gateways, tasks: &Tasks) -> Warnings {
    let (writer, observed) = statedb::table("gateway-observed-services");
    let ingest = gateway::ingest_observed;
    tasks.spawn("reflect-gateway-services", client.reflect(client.all(), writer, ingest));
    let of_gateways = config.service.gateways_at_nodes.then_some(&*config.nodes);
    let nodes = nodes(client, "reflect-gateway-nodes", of_gateways, tasks);
    let of_ingresses = config.service.ingresses_at_nodes.then_some(&*config.ingress_nodes);
    let ingress_nodes = self::nodes(client, "reflect-ingress-nodes", of_ingresses, tasks);
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
    let observed = Observed { services: observed, nodes, ingress_nodes, proxies, ingresses, ingress };
    let wanted = gateway::want(tasks, &objects, &observed, config.service.clone());
    reconcile(tasks, "ingress-write-addresses", wanted.ingresses, ingresses::Ingresses(client.clone()));
    let services = services::Services::new(client, observed.services);
    reconcile(tasks, "gateway-write-services", wanted.services, services);
    reconcile(tasks, "gateway-write-statuses", wanted.corrections, statuses::Statuses::new(client));
    if let Some(namespace) = &config.secrets_namespace {
        reconcile(tasks, "gateway-write-copies", wanted.copies, copies::Copies::new(client, namespace));
        let keys = gateway::token_keys(client, namespace, tasks);
        tasks.spawn("gateway-token-key", token_key::keep(client.clone(), namespace.clone(), keys));
    }
    Warnings { problems: wanted.problems, closed: wanted.closed, ingresses: wanted.ingress_problems }
}

/// Nodes with some labels; none if there is no selector.
fn nodes(client: &Client, task: &'static str, selector: Option<&str>, tasks: &Tasks) -> Reader<NodeAddresses> {
    let (mut writer, nodes) = statedb::table("gateway-nodes");
    match selector {
        Some(selector) => {
            let watch = WatchConfig::default().labels(selector);
            tasks.spawn(task, client.reflect_with(client.all(), watch, writer, gateway::ingest_node));
        }
        None => writer.mark_initialized(),
    }
    nodes
}
