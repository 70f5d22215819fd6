// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod api;
mod config;
pub mod dump;
mod encode;
mod endpoints;
mod explain;
#[cfg(fuzzing)]
pub mod fuzz;
mod health;
mod here;
mod host_ports;
mod ids;
mod ingest;
mod intercepts;
mod maglev;
mod metrics;
mod owned;
mod problems;
mod reconcile;
mod redirects;
mod reserved;
mod resolve;
mod served;
mod sockets;
mod status;
mod teller;

pub use config::{Config, Dispatch, NoBackend};
pub use ingest::{
    EndpointSlice, HonouredCondition, JudgedRedirect, OwnNode, Port, Problem, Redirect, RedirectFrom, RedirectPort,
    Service, ServicePort, SliceEndpoint, SliceName, ingest_own_node, ingest_redirect, ingest_service,
    ingest_service_to_judge, ingest_slice, ingest_slice_to_judge, judge_redirect,
};
pub use intercepts::{Intercept, InterceptedPort};
pub use metrics::Metrics;
pub use problems::{ServiceProblems, Tables as ProblemTables, problems};
pub use reconcile::{Error, Maps};

use datapath::bpf::Program;
use datapath::{Epochs, Hooks, Kernel, Sockets};
use ids::Ids;
use k8s::{WarningQueue, Warnings};
use maglev::Maglev;
use model::{Frontend, Node, NodeAddress, NodeName, Pod};
use parking_lot::Mutex;
use served::Served;
use statedb::{Derived, Reader, Tasks};
use std::sync::Arc;
use surface::Surface;
use teller::Teller;
use tokio::sync::Notify;

/// What this feature reads, and the kernel that it writes to.
pub struct Inputs {
    /// Services of the cluster, by [`ingest_service`].
    pub services: Reader<Service>,
    /// EndpointSlices of the cluster, by [`ingest_slice`].
    pub slices: Reader<EndpointSlice>,
    /// Local redirect policies, by [`ingest_redirect`].
    pub redirects: Reader<Redirect>,
    /// Services whose requests the node's proxy routes.
    pub intercepts: Reader<Intercept>,
    /// Pods of this node.
    pub pods: Reader<Pod>,
    /// This node among the others.
    pub node: NodeName,
    /// All nodes.
    pub nodes: Reader<Node>,
    /// This node's own object, by [`ingest_own_node`].
    pub own_node: Reader<OwnNode>,
    /// Addresses of this node.
    pub addresses: Reader<NodeAddress>,
    /// Where Services are served before the kernel's stack, by device.
    pub before_stack: status::Accelerated,
    /// Where its maps are; nobody else writes them.
    pub maps: Arc<dyn Kernel>,
    /// Where the translation of sockets is attached.
    pub hooks: Arc<dyn Hooks>,
    /// Connections of the node's programs to Services.
    pub sockets: Arc<dyn Sockets>,
    /// Raised when a decision of the past may be wrong.
    pub epochs: Epochs,
}

impl Inputs {
    fn here(&self) -> here::Sources {
        here::Sources { name: self.node.clone(), nodes: self.nodes.clone(), addresses: self.addresses.clone() }
    }
}

/// What this feature offers to others.
#[derive(Debug)]
pub struct Outputs {
    /// All frontends.
    pub frontends: Reader<Frontend>,
    /// Services for which this node has no room, for their authors.
    pub warnings: WarningQueue,
    /// What it shows of itself.
    pub surface: Surface,
}

/// Starts to keep the maps equal to the cluster's Services.
///
/// # Errors
///
/// The maps cannot be read, or a program cannot be attached or detached.
pub fn start(config: &Config, inputs: Inputs, tasks: &Tasks) -> datapath::Result<Outputs> {
    attach_sockets(config, &*inputs.hooks)?;
    if let Err(error) = reserved::reserve(config) {
        tracing::warn!(%error, "cannot reserve the node ports: connections of the node's own programs may take one");
    }
    let maps = Maps::open(&inputs.maps)?;
    let rows = rows(config, &inputs, maps.numbers()?, tasks);
    let frontends = rows.frontends.rows.clone();
    let (services, slices, nodes) = (inputs.services.clone(), inputs.slices.clone(), inputs.nodes.clone());
    let problems = problems(tasks, config, &ProblemTables { services, slices, nodes }).rows;
    let redirected = api::Redirected::new(&inputs.redirects, &frontends, &inputs.pods);
    let maglev = Maglev { size: config.maglev_size.0, seed: config.maglev_seed.0.clone() };
    let gone = Arc::new(Notify::new());
    let (warnings, queue) = Warnings::channel();
    let (all, pods) = (inputs.services.clone(), inputs.pods.clone());
    let teller = Teller { services: all, pods, node: inputs.node.name.as_str().into(), warnings };
    let target = reconcile::Target::new(maps, inputs.epochs.clone(), maglev, Arc::clone(&gone), teller.clone())?;
    let status = statedb::reconcile(tasks, "services-maps", frontends.clone(), target);
    let checks = health::Checks::new(teller.clone(), status.clone());
    let checks = statedb::reconcile(tasks, "services-health-checks", rows.served.rows.clone(), checks);
    let taken = host_ports::taken::derive(tasks, &rows.host_ports.rows, &frontends).rows;
    let not_taken = statedb::reconcile(tasks, "host-ports", taken.clone(), host_ports::taken::Watch::new(teller));
    let judged = explain::Judged { problems: problems.clone(), maps: status.clone(), checks: checks.clone() };
    let explainer = explain::Explainer::new(config, &inputs, &rows, judged);
    if config.socket_lb() {
        let (sockets, scope) = (inputs.sockets, sockets::scope(config));
        let closer = sockets::Closer { sockets, frontends: frontends.clone(), gone, scope };
        tasks.spawn("services-sockets", closer.run());
    }
    if let Some(address) = config.healthz.filter(|_| config.exposes()) {
        tasks.spawn("services-healthz", health::serve_proxy(address, status.clone(), inputs.own_node));
    }
    let metrics = Metrics::default();
    let surface = Surface::new()
        .table(&frontends)
        .table(&rows.served.rows)
        .table(&rows.host_ports.rows)
        .table(&taken)
        .table(&rows.redirects.rows)
        .table(&rows.intercepts.rows)
        .table(&problems)
        .reconciler(&status)
        .reconciler(&checks)
        .reconciler(&not_taken)
        .routes(api::routes(frontends.clone(), explainer, redirected))
        .status(status::fill(config, inputs.before_stack))
        .metrics(|registry| metrics.register(registry));
    tasks.spawn("services-count", metrics.clone().count(inputs.services));
    tasks.spawn("services-count-slices", metrics.clone().count(inputs.slices));
    tasks.spawn("services-delay", metrics.measure(frontends.clone(), status));
    Ok(Outputs { frontends, warnings: queue, surface })
}

/// The derived tables.
struct Rows {
    served: Derived<Served>,
    host_ports: Derived<Served>,
    redirects: Derived<Served>,
    intercepts: Derived<Served>,
    frontends: Derived<Frontend>,
}

/// Starts to derive them, with the numbers that the maps know.
fn rows(config: &Config, inputs: &Inputs, known: reconcile::Numbers, tasks: &Tasks) -> Rows {
    let backends = Arc::new(Mutex::new(Ids::restore(known.backends)));
    let services = Arc::new(Mutex::new(Ids::restore(known.services)));
    let here = inputs.here();
    let host_ports = host_ports::derive(tasks, config, &inputs.pods, &here, Arc::clone(&backends));
    let tables = served::Tables { services: inputs.services.clone(), slices: inputs.slices.clone(), here };
    let served = served::derive(tasks, config, &tables, Arc::clone(&backends));
    let tables = redirects::Tables {
        redirects: inputs.redirects.clone(),
        pods: inputs.pods.clone(),
        served: served.rows.clone(),
        node: inputs.node.clone(),
    };
    let redirects = redirects::derive(tasks, &tables, Arc::clone(&backends));
    let (served_rows, numbers) = (&served.rows, Arc::clone(&backends));
    let intercepts = intercepts::derive(tasks, &inputs.intercepts, served_rows, &inputs.node, numbers);
    let tables = resolve::Tables {
        services: served.rows.clone(),
        pods: host_ports.rows.clone(),
        redirects: redirects.rows.clone(),
        intercepts: intercepts.rows.clone(),
        slices: inputs.slices.clone(),
        nodes: inputs.nodes.clone(),
        addresses: inputs.addresses.clone(),
    };
    let frontends = resolve::derive(tasks, config, &tables, Arc::clone(&services));
    let rows = frontends.rows.clone();
    tasks.spawn("services-numbers", async move {
        rows.initialized().await;
        services.lock().forget_unclaimed();
        backends.lock().forget_unclaimed();
    });
    Rows { served, host_ports, redirects, intercepts, frontends }
}

/// Attaches the translation of sockets to the control group of the configuration, or, when it is switched off, takes
/// away what an earlier process attached.
fn attach_sockets(config: &Config, hooks: &dyn Hooks) -> datapath::Result<()> {
    Program::sockets().try_for_each(|program| {
        let pin = program.name();
        if config.socket_lb() {
            hooks.attach_cgroup(program, &config.cgroup_root, pin)
        } else {
            hooks.detach(pin).map(drop)
        }
    })
}

#[cfg(test)]
mod tests;
