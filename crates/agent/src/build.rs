// SPDX-License-Identifier: Apache-2.0
//! The wiring of the agent, in start order. A missing input is a compile error; what runs is what is written here.
//! Kernel and API server are parameters, so that the same wiring runs on a node and in memory.

use crate::addresses::FromPools;
use crate::config::Config;
use crate::running::{self, Agent};
use crate::status::{ApiServer, Sources as Status};
use crate::{announcing, api, connectivity, dropped, events, flow_table, healthz, metrics, proxy, sources};
use datapath::{Epochs, Host, Kernel};
use k8s::{Client, Events, Warnings};
use model::NodeName;
use statedb::Tasks;
use std::sync::Arc;
use surface::Surface;
use tokio::sync::watch;

/// Starts everything on the named node. Returns once all tasks are running, before pods can be attached.
///
/// # Errors
///
/// The kernel rejects a program or a map.
pub fn build(config: &Config, node_name: &str, host: Host, client: &Client, tasks: &Tasks) -> datapath::Result<Agent> {
    let Host { maps, hooks, netlink, wire, sockets, events } = host;
    let epochs = Epochs::open(&maps)?;
    let mut surface = Surface::new();
    let sources = sources::reflect(config, node_name, client, tasks);
    surface.add(sources.surface);
    let namespace: Arc<str> = client.own_namespace().into();
    let (policy_addresses, of_policy) = statedb::table("policy-addresses");
    let ipcache = ipcache::start(
        ipcache::Inputs { kernel: Arc::clone(&maps), epochs: epochs.clone(), writers: vec![of_policy] },
        tasks,
    )?;
    surface.add(ipcache.surface.clone());
    let (permissions, permitted) = statedb::table("proxy-permissions");
    surface = surface.table(&permitted);
    let proxies = proxy::start(
        &config.gateway,
        proxy::Shared {
            node: node_name.to_owned(),
            namespace: Arc::clone(&namespace),
            runtime: config.endpoint.runtime.clone(),
            client: client.clone(),
            pods: sources.pods.clone(),
            nodes: sources.nodes.clone(),
            slices: sources.slices,
            addresses: ipcache.entries.clone(),
            permissions: permitted,
        },
        tasks,
    );
    surface.add(proxies.surface);
    let (warnings, warning_queue) = Warnings::channel();
    tasks.spawn("events", warning_queue.publish(Events::new(client, "cilium-agent")));
    let (ready_sender, ready) = watch::channel(false);
    let (health_addresses, published_health) = watch::channel(None);

    let node = node::start(
        config.node.clone(),
        node::Inputs {
            name: node_name.to_owned(),
            client: client.clone(),
            nodes: sources.nodes.clone(),
            maps: Arc::clone(&maps),
            hooks: Arc::clone(&hooks),
            exposed: config.services.exposes(),
            before_stack: config.services.before_stack(),
            netlink: netlink.another()?,
            epochs: epochs.clone(),
            health: published_health,
        },
        tasks,
    )?;
    surface.add(node.surface);

    let services = services::start(
        &config.services,
        services::Inputs {
            services: sources.services,
            slices: proxies.slices.clone(),
            redirects: sources.redirects,
            intercepts: proxies.intercepts,
            pods: sources.pods.clone(),
            node: NodeName { cluster: config.node.cluster.clone(), name: node_name.to_owned() },
            nodes: sources.nodes.clone(),
            own_node: sources.own_node,
            addresses: node.addresses,
            before_stack: node.before_stack,
            maps: Arc::clone(&maps),
            hooks: Arc::clone(&hooks),
            sockets,
            epochs: epochs.clone(),
        },
        tasks,
    )?;
    surface.add(services.surface);
    tasks.spawn("service-events", services.warnings.publish(Events::shared(client, "cilium-agent")));
    let shared = announcing::Shared {
        services: sources.l2_services,
        slices: proxies.slices,
        nodes: sources.nodes.clone(),
        devices: node.devices,
        maps: Arc::clone(&maps),
        wire,
    };
    surface.add(announcing::start(config, node_name, client, shared, tasks)?);

    let (endpoints_writer, endpoints) = statedb::table("endpoints");
    let policy = policy::start(
        config.policy.clone(),
        policy::Inputs {
            kernel: Arc::clone(&maps),
            epochs: epochs.clone(),
            addresses: policy_addresses,
            ipcache: ipcache.clone(),
            identity_store: policy::ApiStore::new(client.all()),
            warnings: warnings.clone(),
            endpoints: endpoints.clone(),
            pods: sources.pods.clone(),
            namespaces: sources.namespaces,
            cilium_namespace: namespace,
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
    let (remote_endpoints, proxied) = (sources.remote_endpoints.clone(), proxies.proxied);
    policy.permit(&config.policy, policy::Proxying { remote_endpoints, proxied, permissions }, tasks);
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
            maps: Arc::clone(&maps),
            hooks: Arc::clone(&hooks),
            netlink,
            epochs,
            client: client.clone(),
            warnings,
            ready: ready.clone(),
        },
        tasks,
    )?;
    surface.add(endpoint.surface);
    let (health_netns, connectivity) =
        connectivity::share(config.health.enabled, endpoint.health, health_addresses, tasks);
    surface.add(connectivity);

    let tables = hubble::Tables {
        ipcache: ipcache.entries,
        endpoints,
        pods: sources.pods,
        identities: policy.identities,
        frontends: services.frontends,
        provenance: policy.provenance,
        nodes: sources.nodes.clone(),
    };
    let inputs = hubble::Inputs { node_name: node_name.to_owned(), tables: tables.clone() };
    let hubble = hubble::start(config.hubble.clone(), inputs, tasks);
    if let Some(drops) = hubble.drops.clone() {
        dropped::tell(drops, tables.pods.clone(), Events::new(client, "cilium-agent"), tasks);
    }
    hubble::tell_agent_events(&hubble, tables, tasks);
    surface.add(hubble.surface);
    proxy::observe(&config.gateway, &config.endpoint.runtime, hubble.sink.clone(), tasks);
    surface.add(events::start(events, hubble.sink, tasks));
    surface.add(flow_table::start(maps.map()?, Arc::clone(&hooks), ready.clone(), tasks));
    surface.add(metrics::packets(maps.per_cpu()?));

    let api_server = ApiServer::default();
    tasks.spawn("ask-api-server", api_server.clone().ask(client.clone()));
    let status = Arc::new(Status {
        config: config.clone(),
        surface: surface.clone(),
        not_ready: node.not_ready,
        attach_mode: hooks.attach_mode(),
        api_server,
        client: client.clone(),
        ready,
    });
    let probe = Arc::<Status>::clone(&status);
    let source: api::StatusSource = Arc::new(move || status.status());
    let health = health::start(
        config.health.clone(),
        health::Inputs {
            node_name: node_name.to_owned(),
            socket: config.endpoint.runtime.join("health.sock"),
            nodes: sources.nodes,
            local_node: node.local.clone(),
            endpoint: health_netns,
            agent: Arc::clone(&source),
        },
        tasks,
    );
    surface.add(health.surface);
    surface.add(metrics::reconcilers(surface.clone()));

    let serving = running::when_served(node.local, ready_sender, tasks);
    Ok(Agent {
        api: api::router(&surface, source),
        healthz: healthz::router(probe),
        metrics: surface.metrics_router(),
        restored: endpoint.restored,
        serving,
    })
}
