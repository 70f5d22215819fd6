// SPDX-License-Identifier: Apache-2.0
//! CiliumEnvoyConfigs, as the manifests in `examples/envoy-config` have them, asked by a pod.

use super::{LONG, addresses};
use anyhow::{Context as _, Result, ensure};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually};
use lab::product;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

const NAMESPACE: &str = "--namespace=envoy-demo";

/// What curl says to paths of a Service, each in a line.
fn curl(from: &Netns, at: IpAddr, path: &str) -> Result<String> {
    let url = format!("http://{}{path}", SocketAddr::new(at, 80));
    from.command(&["curl", "--silent", "--show-error", "--max-time", "60", "--write-out", " %{http_code}\\n", &url])
}

/// One request in ten goes to another Service, under another path, as long as the object is there.
pub(super) fn canary(cluster: &Cluster) -> Result<()> {
    cluster.apply_file(&product::repository("examples/envoy-config"))?;
    cluster.pods_ready("envoy-demo", "app", LONG)?;
    let client = Netns::of_pod(cluster, "envoy-demo", "client")?;
    let service = cluster.get(&["service", NAMESPACE, "shop"])?;
    for at in addresses(&service["spec"]["clusterIPs"])? {
        let says = |path: &str, wanted: &str| {
            eventually(LONG, &format!("{at}{path} says {wanted}"), || {
                let said = curl(&client, at, path)?;
                ensure!(said == format!("{wanted}\n"), "'{said}'");
                Ok(())
            })
        };
        says("/teapot", "short and stout 418")?;
        let said = curl(&client, at, "/api/hostname?[1-1000]")?;
        let count = |wanted: &str| said.lines().filter(|line| *line == wanted).count();
        let (shop, next) = (count("shop 200"), count("shop-next 200"));
        ensure!(shop + next == 1000 && (50..=150).contains(&next), "{shop} and {next} of 1000");
        refused(cluster, at, &client)?;
    }
    cluster.kubectl(&["delete", "cec", NAMESPACE, "canary"])?;
    for at in addresses(&service["spec"]["clusterIPs"])? {
        eventually(LONG, "without the object the Service is as it was", || {
            let said = curl(&client, at, "/hostname")?;
            let teapot = curl(&client, at, "/teapot")?;
            ensure!(said == "shop 200\n" && teapot.ends_with(" 200\n"), "'{said}', '{teapot}'");
            Ok(())
        })?;
    }
    cluster.apply_file(&product::repository("examples/envoy-config"))
}

/// Connections for one Service go to another and to an address of its pod, as long as policy lets the client go there itself.
pub(super) fn connections(cluster: &Cluster) -> Result<()> {
    cluster.apply_file(&product::repository("examples/envoy-config"))?;
    cluster.pods_ready("envoy-demo", "app", LONG)?;
    let client = Netns::of_pod(cluster, "envoy-demo", "client")?;
    let address = cluster.get(&["pod", NAMESPACE, "shop"])?["status"]["podIP"].clone();
    cluster.apply(&tcp_proxy(&address).to_string())?;
    let service = cluster.get(&["service", NAMESPACE, "shop-next"])?;
    let at = *addresses(&service["spec"]["clusterIPs"])?.first().context("the Service has an address")?;
    let is_led = || {
        eventually(LONG, "connections for shop-next go to shop", || {
            let said = (0..10).map(|_| curl(&client, at, "/hostname")).collect::<Result<String>>()?;
            ensure!(said == "shop 200\n".repeat(10), "'{said}'");
            Ok(())
        })
    };
    is_led()?;
    // The proxy may go there, and the client may not.
    let policy = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "shop", "namespace": "envoy-demo"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "shop"}}, "ingress": [{"fromEntities": ["ingress", "host"]}]}});
    cluster.apply(&policy.to_string())?;
    eventually(LONG, "what policy refuses the client is closed", || {
        let said = curl(&client, at, "/hostname");
        ensure!(said.is_err(), "{said:?}");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "cnp", NAMESPACE, "shop"])?;
    is_led()?;
    cluster.kubectl(&["delete", "cec", NAMESPACE, "bytes"]).map(drop)
}

fn tcp_proxy(address: &Value) -> Value {
    let kind = |kind: &str| format!("type.googleapis.com/envoy.{kind}");
    let clusters = json!([{"name": "envoy-demo/shop", "weight": 1}, {"name": "written", "weight": 1}]);
    let proxy = json!({"@type": kind("extensions.filters.network.tcp_proxy.v3.TcpProxy"), "stat_prefix": "bytes",
        "weighted_clusters": {"clusters": clusters}});
    let endpoint = json!({"address": {"socket_address": {"address": address, "port_value": 8080}}});
    let assignment = json!({"cluster_name": "written", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]});
    let resources = json!([
        {"@type": kind("config.listener.v3.Listener"), "name": "bytes",
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}]},
        {"@type": kind("config.cluster.v3.Cluster"), "name": "envoy-demo/shop", "type": "EDS"},
        {"@type": kind("config.cluster.v3.Cluster"), "name": "written", "type": "STATIC", "load_assignment": assignment},
    ]);
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumEnvoyConfig",
        "metadata": {"name": "bytes", "namespace": "envoy-demo"},
        "spec": {"services": [{"name": "shop-next"}], "resources": resources}})
}

/// An object with a filter that nobody knows refuses everybody, and says so.
fn refused(cluster: &Cluster, at: IpAddr, client: &Netns) -> Result<()> {
    let filter = json!([{"op": "add", "path": "/spec/resources/0/filter_chains/0/filters/0/typed_config/http_filters/0",
        "value": {"name": "guard", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"}}}]);
    cluster.kubectl(&["patch", "cec", NAMESPACE, "canary", "--type=json", "--patch", &filter.to_string()])?;
    eventually(LONG, "everybody is refused", || {
        let said = curl(client, at, "/hostname")?;
        ensure!(said.ends_with(" 500\n"), "'{said}'");
        let events =
            cluster.kubectl(&["get", "events", NAMESPACE, "--field-selector=reason=EnvoyConfigNotHonoured"])?;
        ensure!(events.contains("RBAC is not supported"), "{events}");
        let dump = [
            "exec",
            "--namespace=kube-system",
            "ds/cilium",
            "--",
            "cilium-dbg",
            "statedb",
            "dump",
            "envoy-config-problems",
        ];
        let table = cluster.kubectl(&dump)?;
        ensure!(table.contains("RBAC is not supported"), "{table}");
        Ok(())
    })?;
    cluster.apply_file(&product::repository("examples/envoy-config"))
}
