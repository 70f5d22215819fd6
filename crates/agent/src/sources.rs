// SPDX-License-Identifier: Apache-2.0
//! The tables that mirror the API server.

use crate::config::Config;
use k8s::cilium::{
    CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumEndpoint, CiliumIdentity, CiliumLocalRedirectPolicy,
    CiliumNetworkPolicy, CiliumNode,
};
use k8s::field::FieldError;
use k8s::k8s_openapi::api::core::v1 as core;
use k8s::k8s_openapi::api::discovery::v1 as discovery;
use k8s::k8s_openapi::api::networking::v1 as networking;
use k8s::{Client, Feed, WatchConfig};
use model::{Identity, Namespace, Node, Pod, RemoteEndpoint};
use statedb::{Reader, Tasks};
use std::sync::Arc;
use surface::Surface;

/// All of them.
#[derive(Debug)]
pub(crate) struct Sources {
    /// The tables, exposed.
    pub(crate) surface: Surface,
    /// Pods of this node.
    pub(crate) pods: Reader<Pod>,
    /// Namespaces.
    pub(crate) namespaces: Reader<Namespace>,
    /// Nodes.
    pub(crate) nodes: Reader<Node>,
    /// This node's own object, for load balancers; none if they are not answered.
    pub(crate) own_node: Reader<services::OwnNode>,
    /// Pods of the cluster.
    pub(crate) remote_endpoints: Reader<RemoteEndpoint>,
    /// Identities.
    pub(crate) identities: Reader<Identity>,
    /// Services.
    pub(crate) services: Reader<services::Service>,
    /// The same Services, as far as they may be announced on links; none if nothing is.
    pub(crate) l2_services: Option<Reader<l2::Service>>,
    /// Local redirect policies; none if they are not enabled.
    pub(crate) redirects: Reader<services::Redirect>,
    /// EndpointSlices.
    pub(crate) slices: Reader<services::EndpointSlice>,
    /// NetworkPolicies, if they are enabled.
    pub(crate) network_policies: Option<Reader<policy::Policy>>,
    /// CiliumNetworkPolicies.
    pub(crate) cilium_policies: Reader<policy::Policy>,
    /// CiliumClusterwideNetworkPolicies.
    pub(crate) clusterwide_policies: Reader<policy::Policy>,
    /// CiliumCIDRGroups.
    pub(crate) cidr_groups: Reader<policy::CidrGroup>,
    /// EndpointSlices of the Service `kubernetes`.
    pub(crate) api_servers: Reader<policy::ApiServers>,
}

/// Starts reflecting everything that the features read.
pub(crate) fn reflect(config: &Config, node: &str, client: &Client, tasks: &Tasks) -> Sources {
    let mut surface = Surface::new();
    macro_rules! mirror {
        ($table:literal, $kind:ty, $ingest:expr) => {{
            let (writer, reader) = statedb::table($table);
            tasks.spawn(concat!("reflect-", $table), client.reflect(client.all::<$kind>(), writer, $ingest));
            surface.add(Surface::new().table(&reader));
            reader
        }};
    }
    let (pods_writer, pods) = statedb::table("k8s-pods");
    let here = WatchConfig::default().fields(&format!("spec.nodeName={node}"));
    let pods_api = client.all::<core::Pod>();
    tasks.spawn("reflect-k8s-pods", client.reflect_with(pods_api, here, pods_writer, endpoint::ingest_pod));
    surface = surface.table(&pods);

    let (api_servers_writer, api_servers) = statedb::table("api-servers");
    let of_kubernetes = WatchConfig::default().labels("kubernetes.io/service-name=kubernetes");
    let slices_api = client.all::<discovery::EndpointSlice>();
    let reflect_api_servers =
        client.reflect_with(slices_api, of_kubernetes, api_servers_writer, policy::ingest_api_servers);
    tasks.spawn("reflect-api-servers", reflect_api_servers);
    surface = surface.table(&api_servers);

    let context = config.policy.context();
    let (for_cilium, for_clusterwide) = (context.clone(), context.clone());
    let own_cluster = Arc::from(config.node.cluster.as_str());
    let (cluster, local) = (config.node.cluster.clone(), node.to_owned());
    let for_slices = config.services.clone();
    let (services, l2_services) = services(config, client, tasks, &mut surface);
    let redirects = redirects(config, client, tasks, &mut surface);
    let own_node = own_node(config, node, client, tasks, &mut surface);
    Sources {
        pods,
        namespaces: mirror!("k8s-namespaces", core::Namespace, policy::ingest_namespace),
        nodes: mirror!("nodes", CiliumNode, move |object: &CiliumNode| node::ingest_node(&cluster, &local, object)),
        remote_endpoints: mirror!("remote-endpoints", CiliumEndpoint, move |object: &CiliumEndpoint| {
            policy::ingest_endpoint(&own_cluster, object)
        }),
        identities: mirror!("cilium-identities", CiliumIdentity, policy::ingest_identity),
        services,
        l2_services,
        redirects,
        own_node,
        slices: mirror!("k8s-endpoint-slices", discovery::EndpointSlice, move |object: &discovery::EndpointSlice| {
            services::ingest_slice(&for_slices, object)
        }),
        network_policies: config.policy.network_policies.then(|| {
            mirror!("k8s-network-policies", networking::NetworkPolicy, move |object: &networking::NetworkPolicy| {
                policy::ingest_network_policy(&context, object)
            })
        }),
        cilium_policies: mirror!(
            "cilium-network-policies",
            CiliumNetworkPolicy,
            move |object: &CiliumNetworkPolicy| { policy::ingest_cilium_policy(&for_cilium, object) }
        ),
        clusterwide_policies: mirror!(
            "cilium-clusterwide-network-policies",
            CiliumClusterwideNetworkPolicy,
            move |object: &CiliumClusterwideNetworkPolicy| policy::ingest_clusterwide_policy(&for_clusterwide, object)
        ),
        cidr_groups: mirror!("cilium-cidr-groups", CiliumCIDRGroup, policy::ingest_cidr_group),
        api_servers,
        // Last, once all have been added.
        surface,
    }
}

/// Both tables of Services, by one watch.
fn services(
    config: &Config,
    client: &Client,
    tasks: &Tasks,
    surface: &mut Surface,
) -> (Reader<services::Service>, Option<Reader<l2::Service>>) {
    let (writer, services) = statedb::table("k8s-services");
    let for_services = config.services.clone();
    let ingest = move |object: &core::Service| services::ingest_service(&for_services, object);
    let mut feeds = vec![Feed::new(writer, ingest)];
    surface.add(Surface::new().table(&services));
    let l2_services = config.l2.enabled.then(|| {
        let (writer, services) = statedb::table("l2-services");
        let for_l2 = config.services.clone();
        feeds.push(Feed::new(writer, move |object: &core::Service| announceable(&for_l2, object)));
        surface.add(Surface::new().table(&services));
        services
    });
    tasks.spawn("reflect-k8s-services", client.reflect_into(client.all(), feeds));
    (services, l2_services)
}

/// A Service is announced as far as it is served: an address of it at which nobody here serves is another machine's.
fn announceable(config: &services::Config, object: &core::Service) -> Result<Option<l2::Service>, FieldError> {
    let Some(served) = services::ingest_service(config, object)? else { return Ok(None) };
    let (addresses, row) = (served.outside(), l2::ingest_service(object)?);
    Ok(row.and_then(|row| row.as_served(&addresses, served.nodes)))
}

/// What load balancers ask of the node follows from its object.
fn own_node(
    config: &Config,
    node: &str,
    client: &Client,
    tasks: &Tasks,
    surface: &mut Surface,
) -> Reader<services::OwnNode> {
    let (mut writer, own_node) = statedb::table("own-node");
    if config.services.healthz.is_some() {
        let here = WatchConfig::default().fields(&format!("metadata.name={node}"));
        let reflect = client.reflect_with(client.all::<core::Node>(), here, writer, services::ingest_own_node);
        tasks.spawn("reflect-own-node", reflect);
        surface.add(Surface::new().table(&own_node));
    } else {
        writer.mark_initialized();
    }
    own_node
}

fn redirects(config: &Config, client: &Client, tasks: &Tasks, surface: &mut Surface) -> Reader<services::Redirect> {
    let (mut writer, redirects) = statedb::table("local-redirect-policies");
    if config.services.redirects {
        let config = config.services.clone();
        let ingest = move |object: &CiliumLocalRedirectPolicy| services::ingest_redirect(&config, object);
        tasks.spawn("reflect-local-redirect-policies", client.reflect(client.all(), writer, ingest));
        surface.add(Surface::new().table(&redirects));
    } else {
        writer.mark_initialized();
    }
    redirects
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s::kube::core::SelectorExt as _;
    use serde_json::{Value, json};
    use std::net::IpAddr;

    /// What is announced of a load balancer with an address, an external one, and these changes.
    fn announced(metadata: &Value, ingress: &Value) -> Option<l2::Service> {
        let mut object = json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "externalIPs": ["192.0.2.7"],
                     "ports": [{"port": 80, "protocol": "TCP"}]},
            "status": {"loadBalancer": {"ingress": [ingress]}},
        });
        for (key, value) in metadata.as_object().into_iter().flatten() {
            object["metadata"][key] = value.clone();
        }
        announceable(&services::Config::default(), &serde_json::from_value(object).unwrap()).unwrap()
    }

    fn addresses(metadata: &Value, ingress: &Value) -> Vec<IpAddr> {
        announced(metadata, ingress).map_or(Vec::new(), |row| [row.load_balancer_ips, row.external_ips].concat())
    }

    #[test]
    fn a_service_is_announced_at_the_addresses_at_which_it_is_served() {
        let ips = |texts: &[&str]| texts.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        let own = json!({"ip": "192.0.2.240"});
        assert_eq!(addresses(&json!({}), &own), ips(&["192.0.2.240", "192.0.2.7"]));
        let of_proxy = json!({"ip": "192.0.2.240", "ipMode": "Proxy"});
        assert_eq!(addresses(&json!({}), &of_proxy), ips(&["192.0.2.7"]), "the proxy has it");
        let other_family = json!({"ip": "2001:db8::f0"});
        assert_eq!(addresses(&json!({}), &other_family), ips(&["192.0.2.7"]));
        let of_another = json!({"labels": {"service.kubernetes.io/service-proxy-name": "other"}});
        assert_eq!(addresses(&of_another, &own), ips(&[]));
        let only = |kind: &str| json!({"annotations": {"service.cilium.io/type": kind}});
        assert_eq!(addresses(&only("ClusterIP"), &own), ips(&[]));
        assert_eq!(addresses(&only("LoadBalancer"), &own), ips(&["192.0.2.240"]));
    }

    #[test]
    fn a_service_is_announced_by_the_nodes_at_which_it_is_served() {
        let annotations = json!({"annotations": {"service.cilium.io/node-selector": "edge"}});
        let row = announced(&annotations, &json!({"ip": "192.0.2.240"})).unwrap();
        assert!(row.nodes.matches(&[("edge".to_owned(), String::new())].into()));
        assert!(!row.nodes.matches(&[("core".to_owned(), String::new())].into()));
    }
}
