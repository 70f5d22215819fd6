// SPDX-License-Identifier: Apache-2.0
//! What the leader does. Each controller makes one pass at a time over the whole state, or over what has changed, whenever that may have changed
//! or its interval has elapsed, and fixes what is wrong: repeating a pass changes nothing.

mod endpoint_gc;
mod identity_gc;
mod l2_policy_status;
mod lb_ipam;
mod node_gc;
mod node_ipam;
mod node_readiness;
mod pending;
mod pod_cidrs;
mod policy_status;
mod refusals;
mod service_status;
mod warning_events;

use crate::config::Config;
use crate::gateways;
use crate::metrics::Metrics;
use crate::progress::Progress;
use endpoint::gc::{LivePod, Published};
use k8s::cilium::{CiliumLocalRedirectPolicy, CiliumNode};
use k8s::k8s_openapi::api::core::v1::{Node, Service};
use k8s::k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s::kube::Error;
use k8s::kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, Preconditions};
use k8s::{Client, Events, Feed, Warning, WatchConfig};
use serde_json::json;
use statedb::{Backoff, Retries, Tasks};
use std::time::Duration;
use warning_events::WarningEvents;

/// Back-off between failed passes.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(120));

/// The reporter of events.
const REPORTER: &str = "cilium-operator";

trait Controller: Send + 'static {
    /// Name in logs and metrics.
    const NAME: &'static str;

    /// Waits until another pass is due.
    fn due(&mut self) -> impl Future<Output = ()> + Send;

    /// Fixes what is wrong.
    fn pass(&mut self) -> impl Future<Output = Result<(), Failures>> + Send;
}

/// What a pass failed to do; the rest was done.
#[derive(Debug, Default)]
struct Failures(Vec<String>);

impl Failures {
    /// Records a failure to change an object.
    fn add(&mut self, object: impl std::fmt::Display, error: &Error) {
        self.0.push(format!("{object}: {}", k8s::chain(error)));
    }

    fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl From<Error> for Failures {
    fn from(error: Error) -> Self {
        Self(vec![k8s::chain(&error)])
    }
}

/// What each controller runs with.
pub(crate) struct Running {
    pub(crate) metrics: Metrics,
    pub(crate) progress: Progress,
    pub(crate) tasks: Tasks,
}

impl Running {
    fn spawn<C: Controller>(&self, controller: C) {
        self.tasks.spawn(C::NAME, run(controller, self.metrics.clone(), self.progress.clone()));
    }
}

/// Starts all controllers that the configuration wants.
pub(crate) fn start(client: &Client, namespace: &str, config: &Config, run: &Running) {
    let (mut nodes, mut core_nodes) = (Vec::new(), Vec::new());
    if let Some(pools) = &config.cluster_pools {
        let (writer, rows) = statedb::table("cilium-nodes");
        nodes.push(Feed::new(writer, ipam::cluster::nodes::ingest_node));
        let allocator = ipam::cluster::Allocator::new(pools.clone(), config.pod_cidr_rest);
        run.spawn(pod_cidrs::PodCidrs::new(client, allocator, &rows, run.metrics.clone()));
    }
    policies(client, run);
    let (writer, l2_policies) = statedb::table("l2-policies");
    run.tasks.spawn("reflect-l2-policies", client.reflect(client.all(), writer, l2::ingest_policy));
    run.spawn(l2_policy_status::L2PolicyStatus::new(client, &l2_policies));
    services(client, config, run, (&mut nodes, &mut core_nodes));
    if config.services.redirects {
        redirects(client, config, run);
    }
    run.tasks.spawn("reflect-cilium-nodes", client.reflect_into(client.all(), nodes));
    if let Some(gateways) = &config.gateways {
        let warnings = gateways::start(client, namespace, gateways, &run.tasks);
        let gateways::Warnings { problems, closed, ingresses } = warnings;
        run.spawn(WarningEvents::new(client, &problems));
        run.spawn(WarningEvents::new(client, &closed));
        run.spawn(WarningEvents::new(client, &ingresses));
    }
    if config.readiness.does_something() {
        let readiness = &config.readiness;
        let (writer, rows) = statedb::table("nodes");
        core_nodes.push(Feed::new(writer, node::readiness::ingest_node));
        let (writer, agents) = statedb::table("agent-pods");
        let pods = client.namespaced(readiness.pod_namespace.as_deref().unwrap_or(namespace));
        let watch = WatchConfig::default().labels(&readiness.pod_labels);
        run.tasks.spawn("reflect-agent-pods", client.reflect_with(pods, watch, writer, node::readiness::ingest_agent));
        run.spawn(node_readiness::NodeReadiness::new(client, readiness.clone(), &rows, &agents));
    }
    if !core_nodes.is_empty() {
        run.tasks.spawn("reflect-nodes", client.reflect_into(client.all(), core_nodes));
    }
    collect_endpoints_and_identities(client, config, run);
    if let Some(interval) = config.node_gc_interval {
        run.spawn(node_gc::NodeGc::new(client, interval));
    }
}

/// Both follow the CiliumEndpoints, by one watch.
fn collect_endpoints_and_identities(client: &Client, config: &Config, run: &Running) {
    if config.identity_gc.is_none() && config.endpoint_gc_interval.is_none() {
        return;
    }
    let (writer, endpoints) = statedb::table("published-endpoints");
    run.tasks.spawn("reflect-cilium-endpoints", client.reflect(client.all(), writer, Published::ingest));
    if let Some(gc) = config.identity_gc {
        run.spawn(identity_gc::IdentityGc::new(client, gc, &endpoints));
    }
    if let Some(interval) = config.endpoint_gc_interval {
        let (writer, pods) = statedb::table("live-pods");
        run.tasks.spawn("reflect-pods", client.reflect(client.all(), writer, LivePod::ingest));
        run.spawn(endpoint_gc::EndpointGc::new(client, interval, &endpoints, &pods));
    }
}

/// Starts to give addresses. Gives what follows the Services and the nodes.
fn lb_ipam(client: &Client, config: lbipam::Config, run: &Running) -> (Feed<Service>, Feed<CiliumNode>) {
    let (writer, pools) = statedb::table("load-balancer-ip-pools");
    run.tasks
        .spawn("reflect-load-balancer-ip-pools", client.reflect_newest(client.all(), writer, lbipam::Pool::ingest));
    let (writer, services) = statedb::table("load-balancer-services");
    let services_feed = Feed::new(writer, move |object: &_| lbipam::Service::ingest(config, object));
    let (writer, nodes) = statedb::table("node-occupants");
    let nodes_feed = Feed::new(writer, lbipam::Occupant::node);
    let (writer, service_cidrs) = statedb::table("service-cidrs");
    run.tasks.spawn("reflect-service-cidrs", client.reflect(client.all(), writer, lbipam::Occupant::service_cidr));
    let tables = lb_ipam::Tables { pools, services, nodes, service_cidrs };
    run.spawn(lb_ipam::LbIpam::new(client, config, &tables, run.metrics.clone()));
    (services_feed, nodes_feed)
}

/// Starts to write addresses of nodes. Gives what follows the Services, the EndpointSlices and the nodes.
fn node_ipam(
    client: &Client,
    config: lbipam::Config,
    run: &Running,
) -> (Feed<Service>, Feed<EndpointSlice>, Feed<Node>) {
    let (writer, services) = statedb::table("node-services");
    let services_feed = Feed::new(writer, move |object: &_| lbipam::NodeService::ingest(config, object));
    let (writer, nodes) = statedb::table("node-places");
    let nodes_feed = Feed::new(writer, lbipam::NodePlace::ingest);
    let (writer, hosts) = statedb::table("service-hosts");
    let hosts_feed = Feed::new(writer, lbipam::Hosts::ingest);
    let tables = node_ipam::Tables { services, nodes, hosts };
    run.spawn(node_ipam::NodeIpam::new(client, &run.tasks, &tables));
    (services_feed, hosts_feed, nodes_feed)
}

fn redirects(client: &Client, config: &Config, run: &Running) {
    let (writer, policies) = statedb::table("local-redirect-policies");
    let config = config.services.clone();
    let ingest = move |object: &CiliumLocalRedirectPolicy| services::judge_redirect(&config, object);
    run.tasks.spawn("reflect-local-redirect-policies", client.reflect(client.all(), writer, ingest));
    run.spawn(WarningEvents::new(client, &policies));
}

fn policies(client: &Client, run: &Running) {
    use k8s::cilium::{CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy};
    let (writer, groups) = statedb::table("cilium-cidr-groups");
    run.tasks.spawn("reflect-cilium-cidr-groups", client.reflect(client.all(), writer, policy::ingest_cidr_group));
    let (writer, namespaced) = statedb::table("cilium-network-policies");
    let ingest = policy::Judged::ingest::<CiliumNetworkPolicy>;
    run.tasks.spawn("reflect-cilium-network-policies", client.reflect(client.all(), writer, ingest));
    let (writer, clusterwide) = statedb::table("cilium-clusterwide-network-policies");
    let ingest = policy::Judged::ingest::<CiliumClusterwideNetworkPolicy>;
    run.tasks.spawn("reflect-cilium-clusterwide-network-policies", client.reflect(client.all(), writer, ingest));
    let namespaced = policy::judge_groups(&run.tasks, "judged-network-policies", &namespaced, &groups);
    let clusterwide = policy::judge_groups(&run.tasks, "judged-clusterwide-network-policies", &clusterwide, &groups);
    run.spawn(policy_status::PolicyStatus::new(client, &namespaced, &clusterwide));
}

/// All that follows Services and EndpointSlices, by one watch of each. What it needs of nodes is added to what follows those.
fn services(
    client: &Client,
    config: &Config,
    run: &Running,
    (nodes, core_nodes): (&mut Vec<Feed<CiliumNode>>, &mut Vec<Feed<Node>>),
) {
    let (writer, services) = statedb::table("k8s-services");
    let for_services = config.services.clone();
    let ingest = move |object: &Service| services::ingest_service_to_judge(&for_services, object);
    let mut feeds = vec![Feed::new(writer, ingest)];
    let (writer, all_nodes) = statedb::table("nodes-with-addresses");
    nodes.push(Feed::new(writer, |object: &CiliumNode| node::ingest_node("", "", object)));
    let (writer, slices) = statedb::table("judged-endpoint-slices");
    let for_slices = config.services.clone();
    let ingest = move |object: &EndpointSlice| services::ingest_slice_to_judge(&for_slices, object);
    let mut slice_feeds = vec![Feed::new(writer, ingest)];
    let tables = services::ProblemTables { services, slices, nodes: all_nodes };
    let problems = services::problems(&run.tasks, &config.services, &tables).rows;
    run.spawn(service_status::ServiceStatus::new(client, &problems));
    if let Some(config) = config.lb_ipam {
        let (of_services, of_nodes) = lb_ipam(client, config, run);
        feeds.push(of_services);
        nodes.push(of_nodes);
    }
    if let Some(config) = config.node_ipam {
        let (of_services, of_slices, of_nodes) = node_ipam(client, config, run);
        feeds.push(of_services);
        slice_feeds.push(of_slices);
        core_nodes.push(of_nodes);
    }
    run.tasks.spawn("reflect-endpoint-slices", client.reflect_into(client.all(), slice_feeds));
    // Of the newest version: who has which address must not be taken from an older one.
    run.tasks.spawn("reflect-k8s-services", client.reflect_newest_into(client.all(), feeds));
}

async fn run<C: Controller>(mut controller: C, metrics: Metrics, progress: Progress) {
    let mut retries = Retries::new(RETRY);
    loop {
        let result = progress.watch(C::NAME, controller.pass()).await;
        metrics.ran(C::NAME, result.is_ok());
        match result {
            Ok(()) => {
                if retries.succeeded() {
                    tracing::info!(controller = C::NAME, "works again");
                }
                controller.due().await;
            }
            Err(Failures(errors)) => {
                if !retries.failing() {
                    tracing::warn!(controller = C::NAME, error = errors.join("; "), "failed, retrying");
                }
                let _ = tokio::time::timeout(retries.failed(), controller.due()).await;
            }
        }
    }
}

/// Whether an error says that the object is gone or was changed by someone else: the next pass will see that.
pub(crate) fn is_stale(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 404 || status.code == 409)
}

/// The result of a write for which [`is_stale`] is no failure.
pub(crate) fn unless_stale<T>(written: Result<T, Error>) -> Result<(), Error> {
    match written {
        Err(error) if !is_stale(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Replaces all conditions of an object in that very version of it: in another one, somebody else may have written some of theirs.
fn conditions_of(version: &str, conditions: &impl serde::Serialize) -> Patch<serde_json::Value> {
    Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}}))
}

/// Publishes events, then writes the status that records them: in the other order a failed event would never be
/// retried. One that the API server rejects must not hold up the rest, though.
async fn warn_and_write<T>(
    events: &Events,
    warnings: impl IntoIterator<Item = Warning>,
    write: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut published = Ok(());
    for warning in warnings {
        match events.publish(&warning).await {
            Err(error) if !matches!(error, Error::Api(_)) => return Err(error),
            result => published = published.and(result),
        }
    }
    let written = write.await?;
    published.map(|()| written)
}

/// The metadata of all objects, each reduced by `keep`, from the API server's cache: they may be old.
async fn list_metadata<K, T>(api: &Api<K>, keep: impl FnMut(ObjectMeta) -> Option<T>) -> Result<Vec<T>, Error>
where
    K: k8s::kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let list = api.list_metadata(&ListParams::default().match_any()).await?;
    Ok(list.items.into_iter().map(|item| item.metadata).filter_map(keep).collect())
}

/// The newest version of an object, if there is one. By a list, which the operator may make anyway.
async fn find<K>(api: &Api<K>, name: &str) -> Result<Option<K>, Error>
where
    K: k8s::kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let params = ListParams::default().fields(&format!("metadata.name={name}"));
    Ok(api.list(&params).await?.items.pop())
}

/// This very version of an object.
fn version_of(meta: &ObjectMeta) -> Preconditions {
    Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() }
}

/// Deletes a version of an object: one that has been changed or recreated meanwhile stays.
async fn delete<K>(api: &Api<K>, name: &str, version: Preconditions) -> Result<(), Error>
where
    K: k8s::kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let params = DeleteParams { preconditions: Some(version), ..DeleteParams::default() };
    unless_stale(api.delete(name, &params).await)
}

#[cfg(test)]
mod tests;
