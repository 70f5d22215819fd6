// SPDX-License-Identifier: Apache-2.0
//! Services get addresses out of pools, as users see it. Needs root, `make kube` and `make image`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::probe::{Cluster, eventually, stays};
use lab::product;
use lab::suite::Suite;
use serde_json::Value;

const SUITE: Suite = Suite {
    name: "lb-ipam",
    command: env!("CARGO_BIN_EXE_cilium-lab"),
    options: &[],
    values: &[],
    manifest: Some("examples/lb-ipam/pool.yaml"),
    cases: &[
        ("two_services_with_one_key_have_one_address_of_the_pool", shared),
        ("a_service_gets_the_address_that_it_asks_for_of_its_namespaces_pool", requested),
        ("the_columns_of_kubectl_get_ippools_say_how_the_pools_are", columns),
        ("a_service_that_is_made_again_has_its_address_again", made_again),
        ("pools_that_overlap_and_requests_that_are_nonsense_are_named_and_change_nothing", bad_input),
        ("operators_that_are_killed_take_no_address_away_and_give_none_twice", killed),
    ],
};

fn main() -> ExitCode {
    SUITE.main()
}

const PATIENCE: Duration = Duration::from_secs(60);

fn example(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.apply_file(&product::repository(&format!("examples/lb-ipam/{name}")))
}

/// The addresses of a Service.
fn addresses(cluster: &Cluster, namespace: &str, name: &str) -> Result<Vec<String>> {
    let service = cluster.get(&["service", "--namespace", namespace, name])?;
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    Ok(ingress.iter().filter_map(|entry| entry["ip"].as_str().map(str::to_owned)).collect())
}

fn has(cluster: &Cluster, namespace: &str, name: &str, address: &str) -> Result<()> {
    eventually(PATIENCE, &format!("{namespace}/{name} has {address}"), || {
        let all = addresses(cluster, namespace, name)?;
        ensure!(all == [address], "{all:?}");
        Ok(())
    })
}

/// A condition of an object: status and message.
fn condition(object: &Value, kind: &str) -> Result<(String, String)> {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let condition = conditions.iter().find(|c| c["type"] == kind).with_context(|| format!("{kind}: {conditions:?}"))?;
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    Ok((text("status"), text("message")))
}

fn shared(cluster: &Cluster) -> Result<()> {
    example(cluster, "shared.yaml")?;
    for name in ["http-gateway", "tls-gateway"] {
        has(cluster, "gateway", name, "192.168.77.200")?;
    }
    Ok(())
}

fn requested(cluster: &Cluster) -> Result<()> {
    example(cluster, "tenant.yaml")?;
    has(cluster, "shop", "cart", "192.168.77.243")
}

fn columns(cluster: &Cluster) -> Result<()> {
    eventually(PATIENCE, "the columns", || {
        let text = cluster.kubectl(&["get", "ippools"])?;
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        ensure!(rows[0] == ["NAME", "DISABLED", "CONFLICTING", "IPS", "AVAILABLE", "AGE"], "{text}");
        ensure!(
            rows[1][..4] == ["lan", "false", "False", "20"] && rows[2][..4] == ["shop", "false", "False", "5"],
            "{text}"
        );
        Ok(())
    })
}

fn made_again(cluster: &Cluster) -> Result<()> {
    let service = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: gateway }}\n\
             spec: {{ type: LoadBalancer, ports: [{{ port: 80 }}] }}\n"
        )
    };
    cluster.apply(&service("again"))?;
    has(cluster, "gateway", "again", "192.168.77.201")?;
    cluster.kubectl(&["delete", "service", "--namespace=gateway", "again"])?;
    cluster.apply(&service("other"))?;
    has(cluster, "gateway", "other", "192.168.77.202")?;
    cluster.apply(&service("again"))?;
    has(cluster, "gateway", "again", "192.168.77.201")
}

fn bad_input(cluster: &Cluster) -> Result<()> {
    cluster.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumLoadBalancerIPPool\nmetadata: { name: twin }\n\
         spec: { blocks: [{ cidr: 192.168.77.192/27 }, { start: 10.0.0.9, stop: nonsense }] }\n---\n\
         apiVersion: v1\nkind: Service\n\
         metadata: { name: banana, namespace: gateway, annotations: { lbipam.cilium.io/ips: banana } }\n\
         spec: { type: LoadBalancer, ports: [{ port: 80 }] }\n",
    )?;
    eventually(PATIENCE, "what is wrong is said", || {
        let pool = cluster.get(&["ippool", "twin"])?;
        let (conflict, overlap) = condition(&pool, "cilium.io/PoolConflict")?;
        let (valid, fault) = condition(&pool, "cilium.io/PoolValid")?;
        ensure!(conflict == "True" && overlap.contains("CiliumLoadBalancerIPPool lan"), "{conflict} {overlap}");
        ensure!(valid == "False" && fault.contains("spec.blocks[1].stop: \"nonsense\""), "{valid} {fault}");
        let service = cluster.get(&["service", "--namespace=gateway", "banana"])?;
        let (satisfied, message) = condition(&service, "cilium.io/IPAMRequestSatisfied")?;
        ensure!(satisfied == "False" && message.contains("lbipam.cilium.io/ips: \"banana\""), "{satisfied} {message}");
        let events = cluster.kubectl(&["get", "events", "--namespace=gateway", "-o=jsonpath={..message}"])?;
        ensure!(events.contains("\"banana\" is not an IP address"), "{events}");
        Ok(())
    })?;
    has(cluster, "gateway", "http-gateway", "192.168.77.200")?;
    cluster.kubectl(&["delete", "ippool", "twin"])?;
    cluster.kubectl(&["delete", "service", "--namespace=gateway", "banana"]).map(drop)
}

/// Of each Service of type LoadBalancer, its name and addresses.
fn all(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let services = cluster.get(&["services", "--all-namespaces"])?;
    let items = services["items"].as_array().cloned().unwrap_or_default();
    let ours = items.iter().filter(|service| service["spec"]["type"] == "LoadBalancer");
    Ok(ours.map(|s| (s["metadata"]["name"].to_string(), s["status"]["loadBalancer"]["ingress"].to_string())).collect())
}

fn killed(cluster: &Cluster) -> Result<()> {
    let before = all(cluster)?;
    let crowd: Vec<String> = (0..10)
        .map(|n| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{ name: crowd-{n}, namespace: gateway }}\n\
                 spec: {{ type: LoadBalancer, ports: [{{ port: 80 }}] }}\n"
            )
        })
        .collect();
    cluster.apply(&crowd.join("---\n"))?;
    let kill = ["delete", "pod", "--namespace=kube-system", "--selector=name=cilium-operator", "--now", "--wait=false"];
    cluster.kubectl(&kill)?;
    eventually(2 * PATIENCE, "all have an address of their own", || {
        let now = all(cluster)?;
        let kept = before.iter().all(|one| now.contains(one));
        let mut crowd: Vec<&String> = now.iter().filter(|(name, _)| name.contains("crowd")).map(|(_, ip)| ip).collect();
        crowd.sort();
        crowd.dedup();
        let others: Vec<&String> = before.iter().map(|(_, ip)| ip).collect();
        let apart = crowd.len() == 10 && crowd.iter().all(|ip| ip.as_str() != "null" && !others.contains(ip));
        ensure!(kept && apart, "{now:?}");
        Ok(())
    })?;
    let settled = all(cluster)?;
    stays(Duration::from_secs(5), "the addresses", || {
        ensure!(all(cluster)? == settled, "they changed");
        Ok(())
    })
}
