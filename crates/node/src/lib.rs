// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod api;
mod config;
mod devices;
mod fib;
#[cfg(fuzzing)]
pub mod fuzz;
mod ingest;
mod inventory;
mod local;
mod programs;
mod publish;
pub mod readiness;
mod reconcile;
mod resolve;
mod run;
mod status;
mod ways_out;

pub use config::{Config, DevicePattern, Ipam};
pub use ingest::ingest_node;
pub use reconcile::{Error, ROUTE_PROTOCOL};
pub use resolve::{Hop, Problem, Route};

use datapath::bpf::XdpMode;
use datapath::netlink::Netlink;
use datapath::{Epochs, Hooks, Kernel};
use k8s::k8s_openapi::api::core::v1 as core;
use model::{Device, LocalNode, Node, NodeAddress};
use programs::Exposure;
use statedb::{Reader, Tasks};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use surface::Surface;
use tokio::sync::watch;

/// The end of the veth pair with the router's addresses.
pub const HOST_DEVICE: &str = "cilium_host";
/// The other end.
pub const NET_DEVICE: &str = "cilium_net";
/// The tunnel device.
pub const OVERLAY_DEVICE: &str = "cilium_vxlan";

/// What this feature reads, and the kernel it writes to.
pub struct Inputs {
    /// Name of this node; see [`name`].
    pub name: String,
    /// The API server, to read this node's Node and write its CiliumNode.
    pub client: k8s::Client,
    /// All nodes of the cluster, by [`ingest_node`].
    pub nodes: Reader<Node>,
    /// The maps of the node and its devices.
    pub maps: Arc<dyn Kernel>,
    /// Where programs are attached to devices.
    pub hooks: Arc<dyn Hooks>,
    /// Whether Services are exposed outside the cluster.
    pub exposed: bool,
    /// Where programs serve them before the kernel's stack, the best place first; nowhere if empty.
    pub before_stack: &'static [XdpMode],
    /// The network namespace to configure.
    pub netlink: Netlink,
    /// Bumped when a device changes.
    pub epochs: Epochs,
    /// Addresses of the node's health endpoint, to publish; nothing while they are unknown.
    pub health: watch::Receiver<Option<Vec<IpAddr>>>,
}

/// Outputs for other features.
#[derive(Debug)]
pub struct Outputs {
    /// This node. Its row appears, and the table is initialised, once the node has its prefixes and devices.
    pub local: Reader<LocalNode>,
    /// Its devices, available once Kubernetes knows the node.
    pub devices: Reader<Device>,
    /// The addresses on them.
    pub addresses: Reader<NodeAddress>,
    /// Where Services are served before the stack, by device.
    pub before_stack: watch::Receiver<BTreeMap<String, XdpMode>>,
    /// What this node is waiting for or cannot do; none if all is well.
    pub not_ready: watch::Receiver<Option<String>>,
    /// Tables, status, routes and metrics.
    pub surface: Surface,
}

/// Starts connecting this node to the others.
///
/// # Errors
///
/// Kernel notifications cannot be subscribed to, or a map cannot be opened.
pub fn start(config: Config, inputs: Inputs, tasks: &Tasks) -> datapath::Result<Outputs> {
    let netlink = inputs.netlink;
    let changes = netlink.changes()?;
    let (kube_writer, kube) = statedb::table("k8s-node");
    let this = k8s::WatchConfig::default().fields(&format!("metadata.name={}", inputs.name));
    let api = inputs.client.all::<core::Node>();
    tasks.spawn("node-kube", inputs.client.reflect_with(api, this, kube_writer, ingest::ingest_kube_node));

    let (publication, wanted) = watch::channel(None);
    tasks.spawn("node-publish", publish::keep(inputs.client, inputs.nodes.clone(), wanted));

    let (routes_writer, routes) = statedb::table("routes");
    let routes = statedb::reconcile(tasks, "node-routes", routes, reconcile::Target::new(netlink.clone()));
    let (local_writer, local) = statedb::table("local-node");
    let (problems_writer, problems) = statedb::table("node-problems");
    let (devices_writer, devices) = statedb::table("devices");
    let (addresses_writer, addresses) = statedb::table("node-addresses");
    let surface = Surface::new()
        .table(&local)
        .table(&devices)
        .table(&addresses)
        .table(&problems)
        .reconciler(&routes)
        .routes(api::routes(inputs.name.clone(), inputs.nodes.clone()))
        .status(status::fill(&config, inputs.name, local.clone(), inputs.nodes.clone()));
    let (accelerated, before_stack) = watch::channel(BTreeMap::new());
    let exposure = Exposure { exposed: inputs.exposed, before_stack: inputs.before_stack, accelerated };
    let (not_ready_sender, not_ready) = watch::channel(Some("looking at the devices".to_owned()));
    let run = run::Run {
        config,
        netlink,
        programs: programs::Programs::new(&inputs.maps, inputs.hooks, inputs.epochs, exposure)?,
        kube,
        nodes: inputs.nodes,
        local: local_writer,
        devices: devices_writer,
        addresses: addresses_writer,
        routes: routes_writer,
        problems: problems_writer,
        health: inputs.health,
        publication,
        not_ready: not_ready_sender,
        grants: resolve::Grants::default(),
        boot_id: publish::boot_id(),
        ways_out: ways_out::WaysOut::default(),
        warnings: Vec::new(),
    };
    tasks.spawn("node-run", run.run(changes));
    Ok(Outputs { local, devices, addresses, before_stack, not_ready, surface })
}

/// Name of this node: `K8S_NODE_NAME`, or else the host name.
#[must_use]
pub fn name() -> String {
    let given = std::env::var("K8S_NODE_NAME").ok().filter(|name| !name.is_empty());
    let machine = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    given.unwrap_or_else(|| machine().trim().to_owned())
}

/// Removes what this feature leaves in the network namespace of the calling thread: devices with their addresses,
/// routes, and netfilter's table. Programs and maps are removed by the datapath.
///
/// # Errors
///
/// What cannot be removed.
pub async fn cleanup() -> datapath::Result<()> {
    let netlink = Netlink::open()?;
    for route in reconcile::ours(&netlink).await? {
        netlink.delete_route(&route).await?;
    }
    devices::remove(&netlink).await?;
    datapath::nft::cleanup()
}

#[cfg(test)]
mod testing;
