// SPDX-License-Identifier: Apache-2.0
//! The wiring of the agent, in start order. A missing input is a compile error; what runs is what stands here.

use crate::addresses::FromPools;
use crate::config::Config;
use crate::status::{self, ApiServer, Sources as StatusSources, StatusSource};
use crate::tables::Tables;
use crate::{api, connectivity, flow_table, healthz, metrics, sources, uninstall};
use anyhow::Context;
use datapath::bpf::{Datapath, Options};
use datapath::{Epochs, Kernel, events, sysctl};
use statedb::{Reader, Tasks};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

/// How often the API server is asked for its version, which also tells whether it answers.
const ASK_API_SERVER: Duration = Duration::from_secs(10);

/// For how long a table may stand still before the agent is not ready.
const WATCH_PATIENCE: Duration = Duration::from_secs(120);

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
    let client = k8s::Client::connect(&config.client()).await.context("connection to the API server")?;
    // First, so that it drains last: what the others still do must be done by then.
    uninstall::start(&config, &namespace(&client), &client, tasks);
    let datapath = Arc::new(load_datapath(&config)?);
    let epochs = Epochs::open(datapath.as_ref())?;
    let mut tables = Tables::default();
    let sources = sources::reflect(&config, &node_name, &client, &mut tables, tasks);
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
    tables.show(&node.local);
    tables.show(&node.problems);
    tables.watch(&node.routes);

    services::attach_sockets(&config.services, &datapath)?;
    let services = services::start(
        services::Inputs {
            services: sources.services.clone(),
            slices: sources.slices.clone(),
            maps: services::Maps::open(datapath.as_ref())?,
            epochs: epochs.clone(),
        },
        tasks,
    )?;
    tables.show(&services.frontends);
    tables.watch(&services.status);

    let (endpoints_writer, endpoints) = statedb::table("endpoints");
    tables.show(&endpoints);
    let kernel: Arc<dyn Kernel> = Arc::<Datapath>::clone(&datapath);
    let (policy_addresses, of_policy) = statedb::table("policy-addresses");
    let ipcache = ipcache::start(
        ipcache::Inputs { kernel: Arc::clone(&kernel), epochs: epochs.clone(), writers: vec![of_policy] },
        tasks,
    )?;
    tables.show(&ipcache.entries);
    tables.watch(&ipcache.status);
    let policy = policy::start(
        config.policy.clone(),
        policy::Inputs {
            kernel,
            epochs: epochs.clone(),
            addresses: policy_addresses,
            ipcache: ipcache.clone(),
            identity_store: policy::ApiStore::new(client.all()),
            endpoints: endpoints.clone(),
            pods: sources.pods.clone(),
            namespaces: sources.namespaces.clone(),
            identities: sources.identities.clone(),
            remote_endpoints: sources.remote_endpoints.clone(),
            nodes: sources.nodes.clone(),
            local_node: node.local.clone(),
            network_policies: sources.network_policies.clone(),
            cilium_policies: sources.cilium_policies.clone(),
            clusterwide_policies: sources.clusterwide_policies.clone(),
            cidr_groups: sources.cidr_groups.clone(),
            api_servers: sources.api_servers.clone(),
        },
        tasks,
    )?;
    tables.show(&policy.endpoint_policies);
    tables.show(&policy.identities);
    tables.show(&policy.provenance);
    tables.show(&policy.compiled);
    tables.show(&policy.problems);
    tables.watch(&policy.policy_status);

    let ipam = ipam::start(ipam::Inputs { local_node: node.local.clone() }, tasks);
    tables.show(&ipam.pools);
    let endpoint = endpoint::start(
        config.endpoint.clone(),
        endpoint::Inputs {
            endpoints: endpoints_writer,
            pods: sources.pods.clone(),
            policies: policy.endpoint_policies.clone(),
            identities: policy.identities.clone(),
            local_node: node.local.clone(),
            nodes: sources.nodes.clone(),
            remote_endpoints: sources.remote_endpoints.clone(),
            addresses: Arc::new(FromPools(ipam.allocator.clone())),
            datapath: Arc::clone(&datapath),
            maps: endpoint::Maps::open(datapath.as_ref())?,
            epochs: epochs.clone(),
            client: client.clone(),
            ready: ready.clone(),
        },
        tasks,
    );
    tables.show(&endpoint.attachments);
    tables.watch(&endpoint.status);
    if let Some(objects) = &endpoint.cilium_endpoints {
        tables.watch(objects);
    }
    let health_netns = connectivity::share(endpoint.health.clone(), health_addresses, tasks);

    let hubble = hubble::start(
        config.hubble.clone(),
        hubble::Inputs {
            node_name: node_name.clone(),
            tables: hubble::Tables {
                ipcache: ipcache.entries.clone(),
                endpoints: endpoints.clone(),
                pods: sources.pods.clone(),
                identities: policy.identities.clone(),
                frontends: services.frontends.clone(),
                provenance: policy.provenance.clone(),
                nodes: sources.nodes.clone(),
            },
        },
        tasks,
    );
    let lost = Arc::new(AtomicUsize::new(0));
    read_events(&config, hubble.sink.clone(), Arc::clone(&lost), tasks)?;
    let flow_count = flow_table::start(Arc::clone(&datapath), ready.clone(), tasks)?;

    let api_server = ApiServer::default();
    tasks.spawn("ask-api-server", ask_api_server(client.clone(), api_server.clone()));
    let seen = hubble.status.clone();
    let (allocator, pools) = (ipam.allocator.clone(), ipam.pools.clone());
    let is_ready = ready.clone();
    let status = Arc::new(StatusSources {
        local_node: node.local.clone(),
        nodes: sources.nodes.clone(),
        node_name: node_name.clone(),
        trouble: node.trouble.clone(),
        allocations: Box::new(move || allocator.owners()),
        pools: Box::new(move || {
            pools.snapshot().iter().map(|pool| (pool.used, pool.capacity, pool.prefix.to_string())).collect()
        }),
        hubble: Box::new(move || status::hubble(seen.figures(), &seen.problems())),
        events_lost: Box::new(move || lost.load(Ordering::Relaxed) as u64),
        attach_mode: datapath.attach_mode(),
        tables: tables.clone(),
        api_server,
        watches: Box::new(move || client.failing_watches(WATCH_PATIENCE)),
        health: endpoint.health.clone(),
        ready: Box::new(move || *is_ready.borrow()),
        config: config.clone(),
    });
    let probe: Arc<dyn healthz::Probe> = Arc::<StatusSources>::clone(&status);
    tasks.spawn_fallible("healthz", healthz::serve(health_listener, probe));
    let source = Arc::clone(&status);
    let health = health::start(
        config.health.clone(),
        health::Inputs {
            node_name: node_name.clone(),
            socket: config.endpoint.runtime.join("health.sock"),
            nodes: sources.nodes.clone(),
            local_node: node.local.clone(),
            endpoint: health_netns,
            agent: Box::new(move || source.status()),
        },
        tasks,
    );
    serve_metrics(
        &config,
        metrics::Sources {
            counters: datapath.per_cpu()?,
            flows: flow_count,
            flow_capacity: datapath.map::<abi::maps::Flows>()?.capacity(),
            endpoints: endpoints.clone(),
            policies: policy.endpoint_policies.clone(),
            identities: policy.identities.clone(),
            provenance: policy.provenance.clone(),
            pools: ipam.pools.clone(),
            tables: tables.clone(),
        },
        &services.metrics,
        &health.metrics,
        tasks,
    )
    .await?;

    let routes = api::router(api::Shared {
        identities: policy.identities,
        ipcache: ipcache.entries,
        nodes: sources.nodes,
        frontends: services.frontends,
        tables,
        status: status as Arc<dyn StatusSource>,
        node_name,
    })
    .merge(endpoint.router);
    let (listening_sender, listening) = oneshot::channel();
    let restored = endpoints.clone();
    tasks.spawn_fallible(
        "api",
        serve_api(config.endpoint.runtime.join("cilium.sock"), routes, restored, listening_sender),
    );

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
    let unknown = config.unknown();
    if !unknown.is_empty() {
        warn!(keys = unknown.join(", "), "configuration keys that this release does not know have no effect");
    }
    if !config.unknown_values.is_empty() {
        warn!(values = config.unknown_values.join(", "), "chart values that this release does not know have no effect");
    }
}

fn load_datapath(config: &Config) -> anyhow::Result<Datapath> {
    let options = Options {
        bpffs: config.bpf_root.clone(),
        config: config.programs(),
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

fn read_events(config: &Config, sink: hubble::Sink, lost: Arc<AtomicUsize>, tasks: &Tasks) -> anyhow::Result<()> {
    let mut reader = events::Reader::open(&config.bpf_root).context("open the event ring")?;
    tasks.spawn_fallible("events", async move {
        loop {
            reader.read(|event| sink.push(event)).await?;
            let missed = reader.lost()?;
            lost.fetch_add(usize::try_from(missed).unwrap_or(usize::MAX), Ordering::Relaxed);
            sink.lost(missed);
        }
        #[expect(unreachable_code, reason = "names the error type of the loop")]
        Ok::<(), datapath::Error>(())
    });
    Ok(())
}

async fn ask_api_server(client: k8s::Client, answer: ApiServer) {
    loop {
        let asked = tokio::time::timeout(ASK_API_SERVER, client.kube().apiserver_version()).await;
        answer.note(match asked {
            Ok(Ok(info)) => Ok(format!("{}.{} ({}) [{}]", info.major, info.minor, info.git_version, info.platform)),
            Ok(Err(error)) => Err(format!("the API server does not answer: {error}")),
            Err(_) => Err(format!("the API server has not answered for {} s", ASK_API_SERVER.as_secs())),
        });
        tokio::time::sleep(ASK_API_SERVER).await;
    }
}

async fn serve_metrics(
    config: &Config,
    sources: metrics::Sources,
    services: &services::Metrics,
    health: &health::Metrics,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let Some(address) = config.metrics else { return Ok(()) };
    let registry = metrics::registry(sources, services, health);
    let listener =
        tokio::net::TcpListener::bind(address).await.with_context(|| format!("metrics server on {address}"))?;
    tasks.spawn_fallible("metrics", async move { axum::serve(listener, metrics::router(registry)).await });
    Ok(())
}
