// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod api;
mod config;
#[cfg(test)]
mod fixture;
#[cfg(fuzzing)]
pub mod fuzz;
mod hello;
mod icmp;
mod mesh;
mod metrics;
mod probe;
mod respond;
mod retry;
mod run;
mod targets;

pub use config::Config;
pub use metrics::Metrics;

use mesh::Mesh;
use model::{LocalNode, Node};
use nix::errno::Errno;
use probe::Network;
use rest::{HealthStatusResponse, StatusResponse};
use statedb::{Reader, Tasks};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use surface::Surface;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Queue length of requests for fresh results.
const REQUESTS: usize = 8;

/// What this feature reads.
pub struct Inputs {
    /// Name of this node.
    pub node_name: String,
    /// All nodes, this one included.
    pub nodes: Reader<Node>,
    /// Addresses on which this node answers.
    pub local_node: Reader<LocalNode>,
    /// The network namespace of this node's health endpoint, while it exists.
    pub endpoint: watch::Receiver<Option<Arc<OwnedFd>>>,
    /// Where the API listens.
    pub socket: PathBuf,
    /// The agent's status.
    pub agent: Arc<dyn Fn() -> StatusResponse + Send + Sync>,
}

/// Outputs for other features.
#[derive(Debug)]
pub struct Outputs {
    /// Results of the last probes. If probing is off, it is empty and its sender is gone.
    pub status: watch::Receiver<Arc<HealthStatusResponse>>,
    /// Its status and metrics for the agent; its own API is on a separate socket.
    pub surface: Surface,
}

/// Starts answering probes, probing, and serving the API, unless that is off. An address, port or socket that is
/// unavailable is retried rather than an error.
pub fn start(config: Config, inputs: Inputs, tasks: &Tasks) -> Outputs {
    let metrics = Metrics::default();
    let surface = Surface::new().metrics(|registry| metrics.register(registry));
    let (sender, status) = watch::channel(Arc::default());
    if !config.enabled {
        return Outputs { status, surface };
    }
    tasks.spawn("health-respond-node", respond::on_node(config.port, inputs.local_node));
    if config.probes_endpoints() {
        tasks.spawn("health-respond-endpoint", respond::on_endpoint(config.port, inputs.endpoint));
    }
    let (probe, requests) = mpsc::channel(REQUESTS);
    let mesh = Mesh::new(inputs.node_name, config.probes_endpoints());
    let network = Network { port: config.port, requests: config.icmp_threshold };
    let channels = run::Channels { nodes: inputs.nodes, requests, status: sender, metrics };
    tasks.spawn("health-probe", run::run(mesh, network, channels));
    let shared = api::Shared { status: status.clone(), probe, agent: inputs.agent, since: Instant::now() };
    tasks.spawn_fallible("health-api", api::serve(inputs.socket, shared));
    Outputs { status, surface }
}

/// An I/O error's message without the error number.
fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_owned())
}
