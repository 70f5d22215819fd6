// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod addresses;
mod api;
pub mod attachment;
pub mod cilium_endpoint;
pub mod cni;
mod config;
pub mod conflist;
mod file;
#[cfg(fuzzing)]
pub mod fuzz;
pub mod gc;
pub mod health;
mod host;
mod ids;
mod ingest;
mod install;
mod interfaces;
mod journal;
pub mod loopback;
mod manager;
mod metrics;
pub mod queue;
mod reconcile;
pub mod reference;
pub mod rest;
mod state;
#[cfg(test)]
mod testing;

pub use addresses::{AddressError, Addresses, Allocated, Families};
pub use config::Config;
pub use ingest::ingest_pod;
pub use install::{Error as InstallError, UninstallError, install_plugin, uninstall_plugin};
pub use manager::CreateError;
pub use metrics::register_metrics;
pub use reconcile::{Error as AttachError, Maps};

use attachment::Attachment;
use datapath::netlink::Netlink;
use datapath::{Epochs, Hooks, Kernel};
use health::HealthEndpoint;
use interfaces::Interfaces;
use k8s::Warnings;
use manager::restore::HostLinks;
use manager::{Manager, Sources};
use model::{Endpoint, EndpointPolicy, Identity, LocalNode, Node, Pod, RemoteEndpoint};
use statedb::{Reader, StatusReader, Tasks, Writer};
use std::sync::Arc;
use std::time::Duration;
use surface::Surface;
use tokio::sync::watch;

/// The agent's socket.
pub const SOCKET: &str = "/var/run/cilium/cilium.sock";

/// How long to wait after the last new pod before programs are attached permanently.
const QUIET: Duration = Duration::from_secs(3);

/// Inputs from other features.
pub struct Inputs {
    /// The table of endpoints, written by this feature. It is created outside because policy reads it too.
    pub endpoints: Writer<Endpoint>,
    /// Pods of this node, by [`ingest_pod`].
    pub pods: Reader<Pod>,
    /// Pods' policies: the permission to attach.
    pub policies: Reader<EndpointPolicy>,
    /// Labels of identities.
    pub identities: Reader<Identity>,
    pub local_node: Reader<LocalNode>,
    /// All nodes; this one for the published health endpoint.
    pub nodes: Reader<Node>,
    /// Pods of the cluster, to find stale ones of this node.
    pub remote_endpoints: Reader<RemoteEndpoint>,
    /// Hands out addresses.
    pub addresses: Arc<dyn Addresses>,
    /// Where its maps are; nobody else writes them.
    pub maps: Arc<dyn Kernel>,
    /// Where programs are attached to pods' interfaces.
    pub hooks: Arc<dyn Hooks>,
    /// The network namespace of the node.
    pub netlink: Netlink,
    /// Bumped when an earlier decision may be wrong.
    pub epochs: Epochs,
    /// Writes CiliumEndpoint objects.
    pub client: k8s::Client,
    /// Tells a pod's author why it has no network.
    pub warnings: Warnings,
    /// Whether the agent can serve, and so the CNI configuration may be written.
    pub ready: watch::Receiver<bool>,
}

/// Outputs for other features.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The health endpoint, or why there is currently none; nothing if it is disabled.
    pub health: Option<watch::Receiver<Result<HealthEndpoint, String>>>,
    /// Whether the endpoints on disk are restored: the API may be served.
    pub restored: watch::Receiver<bool>,
    /// Tables, status, routes and metrics.
    pub surface: Surface,
}

/// Restores the previous process's endpoints, then adds and removes endpoints as the container runtime asks.
///
/// # Errors
///
/// A map cannot be opened.
pub fn start(config: Config, inputs: Inputs, tasks: &Tasks) -> datapath::Result<Outputs> {
    let maps = Maps::open(&inputs.maps)?;
    let links = host::Links(inputs.netlink.clone());
    let (interfaces, settler) = host::HostInterfaces::new(Arc::clone(&inputs.hooks), inputs.netlink.clone(), QUIET);
    tasks.spawn("endpoint-settle", settler.run());
    if let Some(path) = config.conflist.clone() {
        tasks.spawn("endpoint-conflist", conflist::keep(path, config.clone(), inputs.ready.clone()));
    }
    let mut surface =
        Surface::new().table(&inputs.endpoints.reader()).status(conflist::fill_status(config.conflist.clone()));
    if !config.disable_cilium_endpoints {
        surface = surface.reconciler(&cilium_endpoint::start(&config.cluster_name, &inputs, tasks));
    }
    let (counted, ready) = (inputs.endpoints.reader(), inputs.policies.clone());
    surface = surface.metrics(|registry| register_metrics(counted, ready, registry));
    let (wants_health, node) = (config.health_endpoint(), inputs.local_node.clone());
    let core = Core {
        endpoints: inputs.endpoints,
        pods: inputs.pods,
        policies: inputs.policies,
        identities: inputs.identities,
        local_node: inputs.local_node,
        addresses: inputs.addresses,
        maps,
        epochs: inputs.epochs,
        warnings: inputs.warnings,
    };
    let Started { router, attachments, status, manager } = core.start(config, interfaces, links, tasks);
    let restored = manager.restored();
    let health = wants_health.then(|| {
        let (state, health) = watch::channel(Err("it is being created".to_owned()));
        tasks.spawn("endpoint-health", health::Keeper { manager, node, nodes: inputs.nodes, state }.run());
        health
    });
    Ok(Outputs { health, restored, surface: surface.table(&attachments).reconciler(&status).routes(router) })
}

/// The core, running.
pub(crate) struct Started {
    pub(crate) router: axum::Router,
    pub(crate) attachments: Reader<Attachment>,
    pub(crate) status: StatusReader<Attachment>,
    pub(crate) manager: Arc<Manager>,
}

/// The part without Kubernetes or programs.
pub(crate) struct Core {
    pub(crate) endpoints: Writer<Endpoint>,
    pub(crate) pods: Reader<Pod>,
    pub(crate) policies: Reader<EndpointPolicy>,
    pub(crate) identities: Reader<Identity>,
    pub(crate) local_node: Reader<LocalNode>,
    pub(crate) addresses: Arc<dyn Addresses>,
    pub(crate) maps: Maps,
    pub(crate) epochs: datapath::Epochs,
    pub(crate) warnings: Warnings,
}

impl Core {
    pub(crate) fn start<I: Interfaces, L: HostLinks + Clone>(
        self,
        config: Config,
        interfaces: I,
        links: L,
        tasks: &Tasks,
    ) -> Started {
        let maps = self.maps.clone();
        let endpoints = self.endpoints.reader();
        let attachments = attachment::derive(tasks, &endpoints, &self.policies, &self.local_node);
        let target = reconcile::Target::new(self.maps, self.epochs, interfaces);
        let status = statedb::reconcile(tasks, "endpoint-attach", attachments.rows.clone(), target);
        let sources = Sources { pods: self.pods, attachments: attachments.clone(), status: status.clone() };
        let manager = Arc::new(Manager::new(config, self.addresses, self.endpoints, sources, self.warnings));
        let restoring = Arc::clone(&manager);
        tasks.spawn_fallible("endpoint-restore", async move {
            restoring.restore(&links, &maps).await.map_err(|error| statedb::with_causes(&error))?;
            restoring.sweep(links).await;
            Ok::<(), String>(())
        });
        let (node, policies, identities) = (self.local_node, self.policies, self.identities);
        let router = api::router(api::Shared { manager: Arc::clone(&manager), node, policies, identities });
        Started { router, attachments: attachments.rows, status, manager }
    }
}
