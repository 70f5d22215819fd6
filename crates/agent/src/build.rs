// SPDX-License-Identifier: Apache-2.0
//! The wiring of the agent, in start order. A missing input is a compile error; what runs is what stands here.

use crate::addresses::FromPools;
use crate::config::Config;
use crate::status::{ApiServer, Sources as Status};
use crate::{api, connectivity, flow_table, healthz, metrics, sources, uninstall};
use anyhow::Context;
use datapath::bpf::{Datapath, Options};
use datapath::{Epochs, Kernel, events, sysctl};
use model::rest;
use statedb::{Reader, Tasks};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use surface::Surface;
use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

/// Starts everything. Returns when all tasks run; whether pods can be attached is another question.
///
/// # Errors
///
/// The kernel refuses a program, a map or a link, or a socket cannot be opened.
pub(crate) async fn build(config: Config, tasks: &Tasks) -> anyhow::Result<()> {
    report_unknown(&config);
    if config.procfs.join("sys/net").is_dir() {
        sysctl::use_procfs(&config.procfs);
    }
    let node_name = node::name();
    // Opened before anything else, so that a second agent ends here and disturbs nothing.
    let health_listener = healthz::bind(config.health_port)
        .await
        .with_context(|| format!("health server on port {}", config.health_port))?;
    let client = k8s::Client::connect(&config.client).await.context("connection to the API server")?;
    // First, so that it drains last: what the others still do must be done by then.
    uninstall::start(&config, &namespace(&client), &client, tasks);
    let datapath = Arc::new(load_datapath(&config)?);
    let epochs = Epochs::open(datapath.as_ref())?;
    let mut surface = Surface::new();
    let sources = sources::reflect(&config, &node_name, &client, tasks);
    surface.add(sources.surface);
    let (ready_sender, ready) = watch::channel(false);
    let (health_addresses, published_health) = watch::channel(None);

    let node = node::start(
        config.node.clone(),
        node::Inputs {
            name: node_name.clone(),
            client: client.clone(),
            nodes: sources.nodes.clone(),
            datapath: Arc::clone(&datapath),
            epochs: epochs.clone(),
            health: published_health,
        },
        tasks,
    )?;
    surface.add(node.surface);

    services::attach_sockets(&config.services, &datapath)?;
    let services = services::start(
        &config.services,
        services::Inputs {
            services: sources.services,
            slices: sources.slices,
            maps: services::Maps::open(datapath.as_ref())?,
            epochs: epochs.clone(),
        },
        tasks,
    )?;
    surface.add(services.surface);

    let (endpoints_writer, endpoints) = statedb::table("endpoints");
    let kernel: Arc<dyn Kernel> = Arc::<Datapath>::clone(&datapath);
    let policy = policy::start(
        config.policy.clone(),
        policy::Inputs {
            kernel,
            epochs: epochs.clone(),
            identity_store: policy::ApiStore::new(client.all()),
            endpoints: endpoints.clone(),
            pods: sources.pods.clone(),
            namespaces: sources.namespaces,
            identities: sources.identities,
            remote_endpoints: sources.remote_endpoints.clone(),
            nodes: sources.nodes.clone(),
            local_node: node.local.clone(),
            network_policies: sources.network_policies,
            cilium_policies: sources.cilium_policies,
            clusterwide_policies: sources.clusterwide_policies,
            cidr_groups: sources.cidr_groups,
            api_servers: sources.api_servers,
        },
        tasks,
    )?;
    surface.add(policy.surface);

    let ipam = ipam::start(ipam::Inputs { local_node: node.local.clone() }, tasks);
    surface.add(ipam.surface);
    let endpoint = endpoint::start(
        config.endpoint.clone(),
        endpoint::Inputs {
            endpoints: endpoints_writer,
            pods: sources.pods.clone(),
            policies: policy.endpoint_policies,
            identities: policy.identities.clone(),
            local_node: node.local.clone(),
            nodes: sources.nodes.clone(),
            remote_endpoints: sources.remote_endpoints,
            addresses: Arc::new(FromPools(ipam.allocator)),
            datapath: Arc::clone(&datapath),
            maps: endpoint::Maps::open(datapath.as_ref())?,
            epochs,
            client: client.clone(),
            ready: ready.clone(),
        },
        tasks,
    );
    surface.add(endpoint.surface);
    let (health_netns, connectivity) =
        connectivity::share(config.health.enabled, endpoint.health, health_addresses, tasks);
    surface.add(connectivity);

    let hubble = hubble::start(
        hubble::Config { node: node_name.clone(), ..config.hubble.clone() },
        hubble::Inputs {
            tables: hubble::Tables {
                ipcache: policy.ipcache,
                endpoints: endpoints.clone(),
                pods: sources.pods,
                identities: policy.identities,
                frontends: services.frontends,
                provenance: policy.provenance,
                nodes: sources.nodes.clone(),
            },
        },
        tasks,
    );
    surface.add(hubble.surface);
    let events_lost = read_events(&config, hubble.sink, tasks)?;
    surface.add(flow_table::start(Arc::clone(&datapath), ready.clone(), tasks)?);
    surface.add(metrics::packets(datapath.per_cpu()?));

    let api_server = ApiServer::default();
    tasks.spawn("ask-api-server", api_server.clone().ask(client.clone()));
    let status = Arc::new(Status {
        config: config.clone(),
        surface: surface.clone(),
        trouble: node.trouble,
        events_lost,
        attach_mode: datapath.attach_mode(),
        api_server,
        client,
        ready,
    });
    let probe = Arc::<Status>::clone(&status);
    tasks.spawn_fallible("healthz", healthz::serve(health_listener, probe));
    let source: api::StatusSource = Arc::new(move || status.status());
    let health = health::start(
        config.health.clone(),
        health::Inputs {
            node_name,
            nodes: sources.nodes,
            local_node: node.local.clone(),
            endpoint: health_netns,
            agent: Arc::clone(&source),
        },
        tasks,
    );
    surface.add(health.surface);
    surface.add(metrics::reconcilers(surface.clone()));
    serve_metrics(&config, &surface, tasks).await?;

    let (listening_sender, listening) = oneshot::channel();
    let socket = config.endpoint.runtime.join("cilium.sock");
    let routes = api::router(&surface, source);
    tasks.spawn_fallible("api", serve_api(socket, routes, endpoints, listening_sender));
    tasks.spawn("ready", async move {
        node.local.initialized().await;
        if listening.await.is_err() {
            return;
        }
        info!("ready: pods can be attached");
        ready_sender.send_replace(true);
        // Its receivers live as long as the agent.
        ready_sender.closed().await;
    });
    Ok(())
}

/// Serves the API once the endpoints of the process before are restored and queued deletions are carried out: a plugin that
/// comes earlier finds nobody, and queues or waits on its side.
async fn serve_api(
    socket: PathBuf,
    routes: axum::Router,
    endpoints: Reader<model::Endpoint>,
    listening: oneshot::Sender<()>,
) -> Result<(), String> {
    endpoints.initialized().await;
    let listener = rest::listen(&socket).and_then(UnixListener::from_std);
    let listener = listener.map_err(|error| format!("API socket {}: {error}", socket.display()))?;
    // Who waits for it may have ended.
    let _ = listening.send(());
    axum::serve(listener, routes).await.map_err(|error| error.to_string())
}

/// The namespace of the agent's own objects.
fn namespace(client: &k8s::Client) -> String {
    std::env::var("CILIUM_K8S_NAMESPACE").unwrap_or_else(|_| client.default_namespace().to_owned())
}

fn report_unknown(config: &Config) {
    if !config.unknown.is_empty() {
        warn!(keys = config.unknown.join(", "), "configuration keys that this release does not know have no effect");
    }
    if !config.unknown_values.is_empty() {
        warn!(values = config.unknown_values.join(", "), "chart values that this release does not know have no effect");
    }
}

fn load_datapath(config: &Config) -> anyhow::Result<Datapath> {
    let options = Options {
        bpffs: config.bpf_root.clone(),
        config: config.programs,
        flows: flow_capacity(config.map_ratio),
        ..Options::default()
    };
    Datapath::load(&options).context("load the kernel programs")
}

/// The flow table's share of the node's memory, within the bounds of the field.
fn flow_capacity(ratio: f64) -> u32 {
    /// Key, value, what the kernel adds, and the entry's share of the rings.
    const ENTRY_BYTES: f64 = 344.0;
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    let entries = total.map_or(0.0, |kib: f64| kib * 1024.0 * ratio / ENTRY_BYTES);
    entries.clamp(131_072.0, 8_388_608.0) as u32
}

/// Hands the kernel's events on. Returns how many it could not deliver.
fn read_events(config: &Config, sink: hubble::Sink, tasks: &Tasks) -> anyhow::Result<Arc<AtomicU64>> {
    let mut reader = events::Reader::open(&config.bpf_root).context("open the event ring")?;
    let lost = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&lost);
    tasks.spawn_fallible("events", async move {
        loop {
            reader.read(|event| sink.push(event)).await?;
            let missed = reader.lost()?;
            count.fetch_add(missed, Ordering::Relaxed);
            sink.lost(missed);
        }
        #[expect(unreachable_code, reason = "names the error type of the loop")]
        Ok::<(), datapath::Error>(())
    });
    Ok(lost)
}

async fn serve_metrics(config: &Config, surface: &Surface, tasks: &Tasks) -> anyhow::Result<()> {
    let Some(address) = config.metrics else { return Ok(()) };
    let routes = surface.metrics_router();
    let listener =
        tokio::net::TcpListener::bind(address).await.with_context(|| format!("metrics server on {address}"))?;
    tasks.spawn_fallible("metrics", async move { axum::serve(listener, routes).await });
    Ok(())
}
