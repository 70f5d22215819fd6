// SPDX-License-Identifier: Apache-2.0
//! The node's proxies, of which there are two while one replaces the other: each is handed what it is to serve, and what it says is in
//! force makes it a backend of the Gateways' Services here, and is told to the operator.

mod backends;
mod intercepts;
mod link;
mod record;
mod report;
mod requests;
mod socket;

use gateway::{Config, InForce, Intercepted, Kinds, Peers, Reading, Serves, Taken};
use k8s::Client;
use model::{IpEntry, Node, Permission, Pod, PodName, Proxied};
use services::{EndpointSlice, Intercept};
use statedb::{Reader, Tasks};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use surface::Surface;
use tokio::sync::mpsc;

/// Folder of the proxy's sockets, in that of all.
const FOLDER: &str = "proxy";

/// What others have.
pub(crate) struct Shared {
    /// Name of this node.
    pub(crate) node: String,
    /// The namespace that Cilium is in.
    pub(crate) namespace: Arc<str>,
    /// Folder of the sockets.
    pub(crate) runtime: PathBuf,
    pub(crate) client: Client,
    /// Pods of this node.
    pub(crate) pods: Reader<Pod>,
    /// Nodes of the cluster.
    pub(crate) nodes: Reader<Node>,
    /// EndpointSlices of the cluster.
    pub(crate) slices: Reader<EndpointSlice>,
    /// Who has each address.
    pub(crate) addresses: Reader<IpEntry>,
    /// What policy says of [`Outputs::proxied`].
    pub(crate) permissions: Reader<Permission>,
}

/// What follows for others.
pub(crate) struct Outputs {
    /// EndpointSlices of the cluster, and those that make proxies backends.
    pub(crate) slices: Reader<EndpointSlice>,
    /// Services whose requests the proxies route.
    pub(crate) intercepts: Reader<Intercept>,
    /// Where the proxies send what pods ask Services.
    pub(crate) proxied: Reader<Proxied>,
    pub(crate) surface: Surface,
}

/// A proxy that has said what it has in force. One row per proxy of this node.
#[derive(Clone, Debug, PartialEq)]
struct Proxy {
    pod: PodName,
    taken: Vec<Taken>,
    intercepted: Vec<Intercepted>,
    in_force: InForce,
    /// It is about to end, and takes connections for a moment more.
    leaving: bool,
}

impl statedb::Row for Proxy {
    type Key = PodName;
    fn key(&self) -> PodName {
        self.pod.clone()
    }
}

/// Starts to serve Gateways and Ingresses, if that is on.
pub(crate) fn start(config: &Config, shared: Shared, tasks: &Tasks) -> Outputs {
    let Shared { node, namespace, runtime, client, pods, nodes, slices, addresses, permissions } = shared;
    if !config.serves() {
        return Outputs { slices, intercepts: nothing(), proxied: nothing(), surface: Surface::new() };
    }
    let ingress = config.ingress.then(|| config.ingresses(&namespace));
    let kinds = Kinds { gateway_api: config.enabled, ingress, envoy_configs: config.envoy_configs };
    let mut objects = Reading::Serving { secrets: &config.secrets_namespace }.objects(&kinds, &client, tasks).objects;
    objects.envoy_configs = gateway::envoy_configs_here(tasks, &objects.envoy_configs, &nodes);
    let token_keys = gateway::token_keys(&client, &config.secrets_namespace, tasks);
    let peers = Peers { pods: pods.clone(), nodes, addresses, permissions, token_keys };
    let Serves { snapshots, proxied, problems, unserved } = gateway::serve(tasks, &objects, &peers, &config.serving());
    let (told, tellings) = mpsc::channel(1);
    tasks.spawn_fallible("proxy-links", link::serve(runtime.join(FOLDER).join("agent.sock"), snapshots, told));
    let (writer, proxies) = statedb::table("proxies");
    tasks.spawn("proxies", record::keep(writer, tellings, pods.clone(), namespace));
    let report = report::Report { client, node: node.clone(), namespace: config.secrets_namespace.clone() };
    tasks.spawn("proxy-report", report.keep(proxies.clone(), unserved.clone()));
    let surface = Surface::new().table(&proxies).table(&proxied).table(&problems).table(&unserved);
    let backends = backends::derive(tasks, &proxies, &pods, &node);
    let slices = statedb::merge(tasks, "endpoint-slices", [slices, backends]).rows;
    let intercepts = intercepts::derive(tasks, &proxies, &pods);
    let surface = surface.table(&intercepts);
    Outputs { slices, intercepts, proxied, surface }
}

/// A table that nobody writes.
fn nothing<R: statedb::Row>() -> Reader<R> {
    let (mut writer, reader) = statedb::table("nothing");
    writer.mark_initialized();
    reader
}

/// Starts to tell Hubble of what the proxies serve, if both are on.
pub(crate) fn observe(config: &Config, runtime: &Path, sink: hubble::Sink, tasks: &Tasks) {
    let folder = runtime.join(FOLDER);
    if config.serves() && sink.observes() {
        tasks.spawn_fallible("proxy-requests", requests::serve(requests::socket(&folder), sink));
    } else {
        requests::refuse(&folder);
    }
}

#[cfg(test)]
mod tests;
