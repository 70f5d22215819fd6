// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

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

pub use config::Config;
pub use ingest::{EndpointSlice, Port, Service, SliceEndpoint, SliceName, ingest_service, ingest_slice};
pub use metrics::Metrics;
pub use reconcile::{Error, Maps};

use datapath::Epochs;
use datapath::bpf::{Datapath, Program};
use model::Frontend;
use resolve::Numbers;
use statedb::{Reader, StatusReader, Tasks};

/// What this feature reads, and the maps that it writes.
#[derive(Debug)]
pub struct Inputs {
    /// Services of the cluster, by [`ingest_service`].
    pub services: Reader<Service>,
    /// EndpointSlices of the cluster, by [`ingest_slice`].
    pub slices: Reader<EndpointSlice>,
    /// The maps; nobody else writes them.
    pub maps: Maps,
    /// Raised when a decision of the past may be wrong.
    pub epochs: Epochs,
}

/// What this feature offers to others.
#[derive(Debug)]
pub struct Outputs {
    /// All frontends.
    pub frontends: Reader<Frontend>,
    /// How far each frontend is in the maps.
    pub status: StatusReader<Frontend>,
    /// Counters, to be registered by whoever exports them.
    pub metrics: Metrics,
}

/// Starts to keep the maps equal to the cluster's Services.
///
/// # Errors
///
/// The pinned maps cannot be read.
pub fn start(inputs: Inputs, tasks: &Tasks) -> datapath::Result<Outputs> {
    let numbers = inputs.maps.numbers()?;
    let numbers = Numbers::new(numbers.services, numbers.backends);
    let frontends = resolve::derive(tasks, &inputs.services, &inputs.slices, numbers).rows;
    let target = reconcile::Target::new(inputs.maps, inputs.epochs);
    let status = statedb::reconcile(tasks, "services-maps", frontends.clone(), target);
    let metrics = Metrics::default();
    tasks.spawn("services-count", metrics.clone().count(inputs.services));
    tasks.spawn("services-count-slices", metrics.clone().count(inputs.slices));
    tasks.spawn("services-delay", metrics.clone().measure(frontends.clone(), status.clone()));
    Ok(Outputs { frontends, status, metrics })
}

/// Attaches the translation of sockets to the control group of the configuration, or, when it is switched off, takes
/// away what an earlier process attached.
///
/// # Errors
///
/// A program cannot be attached or detached; the error names it and the control group.
pub fn attach_sockets(config: &Config, datapath: &Datapath) -> datapath::Result<()> {
    Program::sockets().try_for_each(|program| {
        let pin = program.name();
        if config.socket_lb() {
            datapath.attach_cgroup(program, &config.cgroup_root, pin)
        } else {
            datapath.detach(pin).map(drop)
        }
    })
}
