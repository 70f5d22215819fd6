// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod api;
mod config;
pub mod dump;
mod encode;
#[cfg(fuzzing)]
pub mod fuzz;
mod ids;
mod ingest;
mod metrics;
mod reconcile;
mod resolve;
mod status;

pub use config::Config;
pub use ingest::{EndpointSlice, Port, Service, SliceEndpoint, SliceName, ingest_service, ingest_slice};
pub use metrics::Metrics;
pub use reconcile::{Error, Maps};

use datapath::bpf::Program;
use datapath::{Epochs, Hooks, Kernel};
use model::Frontend;
use resolve::Numbers;
use statedb::{Reader, Tasks};
use std::sync::Arc;
use surface::Surface;

/// What this feature reads, and the kernel that it writes to.
pub struct Inputs {
    /// Services of the cluster, by [`ingest_service`].
    pub services: Reader<Service>,
    /// EndpointSlices of the cluster, by [`ingest_slice`].
    pub slices: Reader<EndpointSlice>,
    /// Where its maps are; nobody else writes them.
    pub maps: Arc<dyn Kernel>,
    /// Where the translation of sockets is attached.
    pub hooks: Arc<dyn Hooks>,
    /// Raised when a decision of the past may be wrong.
    pub epochs: Epochs,
}

/// What this feature offers to others.
#[derive(Debug)]
pub struct Outputs {
    /// All frontends.
    pub frontends: Reader<Frontend>,
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
    let maps = Maps::open(&inputs.maps)?;
    let numbers = maps.numbers()?;
    let numbers = Numbers::new(numbers.services, numbers.backends);
    let frontends = resolve::derive(tasks, &inputs.services, &inputs.slices, numbers).rows;
    let target = reconcile::Target::new(maps, inputs.epochs);
    let status = statedb::reconcile(tasks, "services-maps", frontends.clone(), target);
    let metrics = Metrics::default();
    let surface = Surface::new()
        .table(&frontends)
        .reconciler(&status)
        .routes(api::routes(frontends.clone()))
        .status(status::fill(config))
        .metrics(|registry| metrics.register(registry));
    tasks.spawn("services-count", metrics.clone().count(inputs.services));
    tasks.spawn("services-count-slices", metrics.clone().count(inputs.slices));
    tasks.spawn("services-delay", metrics.measure(frontends.clone(), status));
    Ok(Outputs { frontends, surface })
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
