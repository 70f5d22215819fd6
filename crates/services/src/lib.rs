// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod config;
pub mod dump;
mod encode;
mod ids;
mod ingest;
mod metrics;
mod reconcile;
mod resolve;
mod rest;
mod status;

pub use config::{Config, ConfigError};
pub use ingest::{EndpointSlice, Port, Service, SliceEndpoint, SliceName, ingest_service, ingest_slice};
pub use metrics::Metrics;
pub use reconcile::{Error, Maps};

use datapath::bpf::Program;
use datapath::{Epochs, Hooks, Kernel};
use metrics::Delay;
use model::Frontend;
use resolve::{Delta, Resolver};
use statedb::{Batch, Changes, Reader, Tasks, Writer};
use std::sync::Arc;
use surface::Surface;
use tracing::warn;

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
    let (writer, frontends) = statedb::table("frontends");
    let target = reconcile::Target::new(maps, inputs.epochs);
    let status = statedb::reconcile(tasks, "services-maps", frontends.clone(), target);
    let metrics = Metrics::default();
    let delay = Delay::start(&metrics, status.clone(), tasks);
    let surface = Surface::new()
        .table(&frontends)
        .reconciler(&status)
        .routes(rest::routes(frontends.clone()))
        .status(status::fill(config))
        .metrics(|registry| metrics.register(registry));
    let run = Run {
        services: inputs.services.subscribe(),
        slices: inputs.slices.subscribe(),
        resolver: Resolver::new(numbers.services, numbers.backends),
        writer,
        metrics,
        delay,
    };
    tasks.spawn("services-resolve", run.run());
    Ok(Outputs { frontends, surface })
}

/// Attaches the translation of sockets to the control group of the configuration, or, when it is switched off, takes
/// away what an earlier process attached.
fn attach_sockets(config: &Config, hooks: &dyn Hooks) -> datapath::Result<()> {
    Program::sockets().try_for_each(|program| {
        let pin = program.name();
        if config.socket_lb {
            hooks.attach_cgroup(program, &config.cgroup_root, pin)
        } else {
            hooks.detach(pin).map(drop)
        }
    })
}

/// The loop from source rows to frontends.
struct Run {
    services: Changes<Service>,
    slices: Changes<EndpointSlice>,
    resolver: Resolver,
    writer: Writer<Frontend>,
    metrics: Metrics,
    delay: Delay,
}

impl Run {
    /// Publishes nothing before both sources are complete: a Service without its slices would look like one without
    /// backends, and the pinned maps, which are still right, would be emptied.
    async fn run(mut self) {
        let (mut services, mut slices, mut published) = (false, false, false);
        loop {
            tokio::select! {
                batch = self.services.next() => services = self.note(&batch, Resolver::service),
                batch = self.slices.next() => slices = self.note(&batch, Resolver::slice),
            }
            if services && slices {
                let delta = self.resolver.resolve();
                self.publish(delta);
                if !published {
                    self.resolver.forget_unclaimed();
                    self.writer.mark_initialized();
                    published = true;
                }
            }
        }
    }

    fn note<R>(&mut self, batch: &Batch<R>, apply: impl Fn(&mut Resolver, &statedb::Change<R>)) -> bool {
        self.metrics.events(batch.changes.len());
        batch.changes.iter().for_each(|change| apply(&mut self.resolver, change));
        batch.initialized
    }

    fn publish(&mut self, delta: Delta) {
        for (addr, owners) in &delta.conflicts {
            let names: Vec<_> = owners.iter().map(ToString::to_string).collect();
            warn!(frontend = %addr, services = names.join(", "), "services claim one address, the first has it");
        }
        let (upserted, deleted) = (!delta.upserts.is_empty(), !delta.deletes.is_empty());
        delta.upserts.into_iter().for_each(|row| self.writer.insert(row));
        delta.deletes.iter().for_each(|addr| self.writer.remove(addr));
        let revision = self.writer.commit();
        if upserted || deleted {
            self.delay.expect(revision, upserted);
        }
    }
}
