// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod announcement;
mod api;
mod campaign;
mod config;
#[cfg(fuzzing)]
pub mod fuzz;
mod gratuitous;
mod moves;
mod policy;
mod reconcile;
mod run;
mod select;
mod service;

pub use announcement::{Announcement, AnnouncementKey};
pub use config::Config;
pub use policy::{Fault, Policy, Rule, ingest_policy};
pub use service::{Endpoints, Service, ingest_service};

use announcement::Tenures;
use campaign::{Electorate, Timing};
use datapath::{Kernel, Wire};
use k8s::k8s_openapi::api::coordination::v1::Lease;
use model::{Device, Node};
use statedb::{Reader, Tasks};
use std::sync::Arc;
use surface::Surface;

/// What this feature reads, and the kernel it writes to.
pub struct Inputs {
    /// Name of this node, as the holder of Leases.
    pub node_name: String,
    /// The API server, where the Leases are.
    pub client: k8s::Client,
    /// CiliumL2AnnouncementPolicies, by [`ingest_policy`].
    pub policies: Reader<Policy>,
    /// Services of the cluster, by [`ingest_service`].
    pub services: Reader<Service>,
    /// Where the endpoints of these Services are.
    pub endpoints: Reader<Endpoints>,
    /// Nodes of the cluster, this one among them.
    pub nodes: Reader<Node>,
    /// Devices of this node.
    pub devices: Reader<Device>,
    /// The map of answered addresses; nobody else writes it.
    pub maps: Arc<dyn Kernel>,
    /// The links to announce on.
    pub wire: Arc<dyn Wire>,
}

/// Outputs for other features.
#[derive(Debug)]
pub struct Outputs {
    /// What this node currently announces.
    pub announcements: Reader<Announcement>,
    /// Tables, status and metrics.
    pub surface: Surface,
}

/// Starts announcing.
///
/// # Errors
///
/// The map cannot be opened.
pub fn start(config: Config, inputs: Inputs, tasks: &Tasks) -> datapath::Result<Outputs> {
    let (leases_writer, leases) = statedb::table("l2-leases");
    let api = inputs.client.namespaced::<Lease>(inputs.client.default_namespace());
    tasks.spawn("l2-leases", inputs.client.reflect(api.clone(), leases_writer, campaign::ingest_lease));

    let (tenures, announcements) = Tenures::new();
    let target = reconcile::Target::new(&inputs.maps, Arc::clone(&inputs.wire))?;
    let answered = statedb::reconcile(tasks, "l2-responder", announcements.clone(), target);
    let told = gratuitous::tell(announcements.clone(), answered.clone(), Arc::clone(&inputs.wire));
    tasks.spawn("l2-gratuitous", told);

    let surface = Surface::new()
        .table(&leases)
        .table(&announcements)
        .reconciler(&answered)
        .routes(api::routes(announcements.clone()));
    let tables = run::Tables {
        policies: inputs.policies,
        services: inputs.services,
        endpoints: inputs.endpoints,
        nodes: inputs.nodes,
        devices: inputs.devices,
        leases,
    };
    let electorate = Electorate {
        node: inputs.node_name,
        api,
        timing: Timing { lease: config.lease, renew: config.renew, retry: config.retry },
        tenures,
        answered,
        wire: inputs.wire,
        started: tokio::time::Instant::now(),
    };
    // Last, so that it ends first: what it releases must still be removed from the kernel.
    tasks.spawn_draining("l2-announce", |stop| run::run(config, tables, electorate, stop));
    Ok(Outputs { announcements, surface })
}
