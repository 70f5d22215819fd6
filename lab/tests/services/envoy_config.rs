// SPDX-License-Identifier: Apache-2.0
//! CiliumEnvoyConfigs, as the manifests in `examples/envoy-config` have them, asked by a pod.

use super::{LONG, addresses};
use anyhow::{Result, ensure};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually};
use lab::product;
use serde_json::json;
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
