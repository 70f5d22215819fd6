// SPDX-License-Identifier: Apache-2.0
//! Gateways, asked by curl from a machine that is no node, as the manifests in `examples/gateway` have them.

use super::{LONG, agents_healthy, outside, pool};
use anyhow::{Context as _, Result, ensure};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually, stays};
use lab::product;
use lab::traffic::Requests;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const NAMESPACE: &str = "--namespace=gateway-demo";

/// Applies the manifests once, with certificates, and returns the folder with these and the machine that asks.
fn demo(cluster: &Cluster) -> Result<(PathBuf, Netns)> {
    let folder = std::env::temp_dir().join(format!("cilium-gateway-{}", std::process::id()));
    if !folder.exists() {
        pool(cluster)?;
        std::fs::create_dir_all(&folder)?;
        let _ = cluster.kubectl(&["create", "namespace", "gateway-demo"]);
        certificate(cluster, &folder, "demo-cert", &["shop.example.org", "blog.example.org"])?;
        certificate(cluster, &folder, "nginx-cert", &["nginx.example.org"])?;
        cluster.apply_file(&product::repository("examples/gateway"))?;
        cluster.pods_ready("gateway-demo", "app", LONG)?;
    }
    Ok((folder, outside(cluster)?))
}

fn certificate(cluster: &Cluster, folder: &Path, name: &str, hosts: &[&str]) -> Result<()> {
    let (key, chain) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.crt")));
    let names: Vec<_> = hosts.iter().map(|host| format!("DNS:{host}")).collect();
    let names = format!("subjectAltName={}", names.join(","));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=lab", "-addext", &names, "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&chain)
        .output()?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let (key, chain) = (format!("--key={}", key.display()), format!("--cert={}", chain.display()));
    let _ = cluster.kubectl(&["delete", "secret", NAMESPACE, name, "--ignore-not-found"]);
    cluster.kubectl(&["create", "secret", "tls", NAMESPACE, name, &key, &chain]).map(drop)
}

/// The address of a Gateway that says it is programmed.
fn address(cluster: &Cluster, gateway: &str) -> Result<IpAddr> {
    eventually(LONG, &format!("{gateway} is programmed"), || {
        let object = cluster.get(&["gateway", NAMESPACE, gateway])?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let programmed = conditions.iter().find(|one| one["type"] == "Programmed").cloned().unwrap_or_default();
        ensure!(programmed["status"] == "True", "{}", object["status"]);
        Ok(object["status"]["addresses"][0]["value"].as_str().context("no address")?.parse()?)
    })
}

/// What curl says to a URL whose host is at that address.
fn curl(from: &Netns, folder: &Path, at: IpAddr, url: &str, more: &[&str]) -> Result<String> {
    let (scheme, rest) = url.split_once("://").context("no scheme")?;
    let host = rest.split('/').next().unwrap_or_default();
    let port = if scheme == "https" { 443 } else { 80 };
    let resolve = format!("{host}:{port}:{at}");
    let trust = folder.join(if host.starts_with("nginx") { "nginx-cert.crt" } else { "demo-cert.crt" });
    let trust = trust.display().to_string();
    let words = ["curl", "--silent", "--show-error", "--max-time", "20", "--resolve", &resolve, "--cacert", &trust];
    from.command(&[&words[..], more, &[url]].concat())
}

/// What curl says once it says it.
fn says(from: &Netns, folder: &Path, at: IpAddr, url: &str, wanted: &str) -> Result<()> {
    eventually(LONG, &format!("{url} says {wanted}"), || {
        let said = curl(from, folder, at, url, &["--write-out", " %{http_code}"])?;
        ensure!(said == wanted, "'{said}'");
        Ok(())
    })
}

/// Two Gateways at one address, one certificate for two hosts, a split by weight, and a redirect.
pub(super) fn https_split(cluster: &Cluster) -> Result<()> {
    let (folder, outside) = demo(cluster)?;
    let at = address(cluster, "tls-gateway")?;
    ensure!(address(cluster, "http-gateway")? == at, "they do not share an address");
    eventually(LONG, "the shop answers", || {
        let said = curl(&outside, &folder, at, "https://shop.example.org/hostname", &["--fail"])?;
        ensure!(said.starts_with("shop"), "{said}");
        Ok(())
    })?;
    let answers =
        curl(&outside, &folder, at, "https://shop.example.org/hostname?[1-1000]", &["--fail", "--write-out", "\n"])?;
    let answers: Vec<_> = answers.lines().filter(|line| !line.is_empty()).collect();
    ensure!(answers.len() == 1000, "{} answers", answers.len());
    let next = answers.iter().filter(|line| line.starts_with("shop-next")).count();
    ensure!((60..=140).contains(&next), "{next} of 1,000 went to the next version, and 100 should");
    let redirect = ["--output", "/dev/null", "--write-out", "%{http_code} %{redirect_url}"];
    let said = curl(&outside, &folder, at, "http://blog.example.org/a?b", &redirect)?;
    ensure!(said == "301 https://blog.example.org/a?b", "{said}");
    // The host without a route has the certificate and no answer.
    says(&outside, &folder, at, "https://blog.example.org/", "no route is for this request 404")
}

/// What the tools say of a request is where it goes, by the proxy of each node.
pub(super) fn explained(cluster: &Cluster) -> Result<()> {
    demo(cluster)?;
    address(cluster, "tls-gateway")?;
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let explain =
        ["--kubeconfig", &kubeconfig, "gateway", "explain", "shop.example.org", "/hostname", "--tls", "-o=json"];
    eventually(LONG, "every node says who takes the request", || {
        let said: Value = serde_json::from_str(&product::typed("cilium", &explain)?)?;
        for node in cluster.nodes() {
            let listeners = said["nodes"][&node]["listeners"].as_array().cloned().unwrap_or_default();
            // One for each family.
            let taken: Vec<&Value> = listeners.iter().filter_map(|one| one.get("taken-by")).collect();
            ensure!(!taken.is_empty(), "{node} of {said}");
            for one in taken {
                let backends = one["backends"].as_array().context("no backends")?;
                let weighs = |name: &str| {
                    backends.iter().find(|one| one["backend"].to_string().contains(name)).map(|b| b["weight"].clone())
                };
                let (shop, next) = (weighs("/shop:"), weighs("/shop-next:"));
                ensure!(shop == Some(json!(90)) && next == Some(json!(10)), "{node} of {said}");
            }
        }
        Ok(())
    })?;
    for node in cluster.nodes() {
        for (what, part) in [("listeners", "443"), ("routes", "shop.example.org"), ("clusters", "shop-next")] {
            let said = product::in_agent(cluster, &node, &["cilium-dbg", "proxy", what])?;
            ensure!(said.contains(part), "{what} of {node}:\n{said}");
        }
    }
    Ok(())
}

/// The backend's own certificate is shown.
pub(super) fn passthrough(cluster: &Cluster) -> Result<()> {
    let (folder, outside) = demo(cluster)?;
    let at = address(cluster, "passthrough-gateway")?;
    says(&outside, &folder, at, "https://nginx.example.org/hostname", "nginx 200")
}

/// Requests of the proxy are nobody's but `reserved:ingress`.
pub(super) fn policy(cluster: &Cluster) -> Result<()> {
    let (folder, outside) = demo(cluster)?;
    let at = address(cluster, "tls-gateway")?;
    let policy = |from: Value| {
        json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "shops", "namespace": "gateway-demo"},
            "spec": {"endpointSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["shop", "shop-next"]}]},
                     "ingress": [from]}})
    };
    let url = "https://shop.example.org/hostname";
    // The proxy keeps the connection of this request, and the next one is on it: its packets are dropped without an answer.
    curl(&outside, &folder, at, url, &["--fail"])?;
    // The client is of the world, and the node is a node; the proxy is neither.
    cluster.apply(&policy(json!({"fromEntities": ["world", "remote-node"]})).to_string())?;
    eventually(LONG, "the proxy is refused", || {
        let said = curl(&outside, &folder, at, url, &["--output", "/dev/null", "--write-out", "%{http_code}"])?;
        ensure!(said.starts_with("50"), "{said}");
        Ok(())
    })?;
    cluster.apply(&policy(json!({"fromEntities": ["ingress"]})).to_string())?;
    eventually(LONG, "the proxy is let in", || curl(&outside, &folder, at, url, &["--fail"]).map(drop))?;
    cluster.kubectl(&["delete", "cnp", NAMESPACE, "shops"]).map(drop)
}

/// A request is two flows, and what its client says in secret is in neither.
pub(super) fn seen(cluster: &Cluster) -> Result<()> {
    let (folder, outside) = demo(cluster)?;
    let at = address(cluster, "tls-gateway")?;
    let url = "https://shop.example.org/hostname?seen=1";
    eventually(LONG, "the request is seen", || {
        curl(&outside, &folder, at, url, &["--fail", "--header", "authorization: Bearer hush"])?;
        let words = [
            "hubble",
            "observe",
            "--last=20",
            "--protocol=http",
            "--http-method=GET",
            "--http-path=/hostname",
            "-o=jsonpb",
        ];
        let said: Vec<_> =
            cluster.nodes().iter().map(|node| product::in_agent(cluster, node, &words)).collect::<Result<_>>()?;
        let said = said.concat();
        ensure!(!said.contains("hush"), "{said}");
        let responses = said.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
        let flows: Vec<_> = responses.iter().map(|response| &response["flow"]).collect();
        let seen = flows.iter().filter(|flow| flow["l7"]["http"]["url"] == url);
        let (answers, requests): (Vec<&&Value>, Vec<&&Value>) = seen.partition(|flow| flow["is_reply"] == true);
        let request = requests.first().context("no request")?;
        ensure!(request["destination"]["namespace"] == "gateway-demo", "{request}");
        ensure!(request["destination"]["pod_name"].as_str().is_some_and(|name| name.starts_with("shop")), "{request}");
        ensure!(answers.iter().any(|flow| flow["l7"]["http"]["code"] == 200), "{said}");
        Ok(())
    })
}

/// Clears the way of requests that [`Requests`] makes, by a route that is changed while they go on.
fn plain(cluster: &Cluster, at: IpAddr, number: usize) -> Result<()> {
    let backend = if number.is_multiple_of(2) { "shop" } else { "shop-next" };
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "plain", "namespace": "gateway-demo"},
        "spec": {"parentRefs": [{"name": "http-gateway"}], "hostnames": ["lab"],
                 "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                            "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "number", "value": number.to_string()}]}}],
                            "backendRefs": [{"name": backend, "port": 8080}]}]},
    });
    cluster.apply(&route.to_string())?;
    let outside = outside(cluster)?;
    eventually(LONG, &format!("change {number} is in force"), || {
        let said = outside.command(&[
            "curl",
            "--silent",
            "--include",
            "--max-time",
            "5",
            "--header",
            "host: lab",
            &format!("http://{at}/hostname"),
        ])?;
        ensure!(said.contains(&format!("number: {number}\r\n")), "{said}");
        Ok(())
    })
}

/// A route that is changed twenty times, agents that are killed, and proxies that are replaced or killed: no request fails.
pub(super) fn under_load(cluster: &Cluster) -> Result<()> {
    demo(cluster)?;
    let at = address(cluster, "http-gateway")?;
    plain(cluster, at, 0)?;
    let asking = Netns::of_stranger(cluster, "asking", &[52])?;
    let load = Requests::start(asking, SocketAddr::new(at, 80), "/hostname");
    for number in 1..=20 {
        plain(cluster, at, number)?;
    }
    load.goes_on(50)?;
    for node in cluster.nodes() {
        cluster.fault("kill", &format!("{node}/cilium-agent"))?;
    }
    load.goes_on(50)?;
    agents_healthy(cluster)?;
    product::ready(cluster)?;
    plain(cluster, at, 21)?;
    cluster.kubectl(&["rollout", "restart", "--namespace=kube-system", "daemonset/cilium-envoy"])?;
    cluster.kubectl(&["rollout", "status", "--namespace=kube-system", "daemonset/cilium-envoy", "--timeout=120s"])?;
    plain(cluster, at, 22)?;
    load.goes_on(50)?;
    load.finish()?;
    proxies_killed(cluster, at)
}

/// Changes are in force while there is no operator. The next one says so of this very state of the route, and then says no more.
pub(super) fn operators_killed(cluster: &Cluster) -> Result<()> {
    demo(cluster)?;
    let at = address(cluster, "http-gateway")?;
    plain(cluster, at, 30)?;
    let load = Requests::start(Netns::of_stranger(cluster, "asking", &[53])?, SocketAddr::new(at, 80), "/hostname");
    for number in 31..=33 {
        let kill =
            ["delete", "pod", "--namespace=kube-system", "--selector=name=cilium-operator", "--now", "--wait=false"];
        cluster.kubectl(&kill)?;
        plain(cluster, at, number)?;
    }
    load.goes_on(50)?;
    let told = || cluster.get(&["httproute", NAMESPACE, "plain"]);
    let gateway = || cluster.get(&["gateway", NAMESPACE, "http-gateway"]);
    eventually(2 * LONG, "the route's status is about its last state", || {
        let route = told()?;
        let generation = &route["metadata"]["generation"];
        let conditions = route["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
        let current = conditions.iter().all(|one| one["observedGeneration"] == *generation && one["status"] == "True");
        ensure!(!conditions.is_empty() && current, "{route}");
        Ok(())
    })?;
    let versions =
        || Ok::<_, anyhow::Error>([told()?, gateway()?].map(|one| one["metadata"]["resourceVersion"].clone()));
    let rested = versions()?;
    stays(Duration::from_secs(5), "the statuses", || {
        ensure!(versions()? == rested, "they are written again: {} {}", told()?["status"], gateway()?["status"]);
        Ok(())
    })?;
    ensure!(address(cluster, "http-gateway")? == at, "the Gateway has moved");
    load.finish()
}

/// Who connects just after the proxies were killed is not refused.
fn proxies_killed(cluster: &Cluster, at: IpAddr) -> Result<()> {
    let (outside, url) = (outside(cluster)?, format!("http://{at}/hostname"));
    for _ in 0..3 {
        for node in cluster.nodes() {
            cluster.fault("kill", &format!("{node}/cilium-proxy"))?;
        }
        outside.command(&["curl", "--silent", "--fail", "--max-time", "5", "--header", "host: lab", &url])?;
    }
    Ok(())
}

/// An Ingress with a load balancer of its own, and one that shares one.
pub(super) fn ingress(cluster: &Cluster) -> Result<()> {
    pool(cluster)?;
    cluster.apply_file(&product::repository("examples/ingress"))?;
    cluster.pods_ready("ingress-demo", "app", LONG)?;
    let outside = outside(cluster)?;
    for (name, host) in [("app", "app.example.org"), ("shared", "shared.example.org")] {
        let at = eventually(LONG, &format!("the address of {name}"), || {
            let object = cluster.get(&["ingress", "--namespace=ingress-demo", name])?;
            let ingress = &object["status"]["loadBalancer"]["ingress"][0]["ip"];
            Ok(ingress.as_str().with_context(|| object["status"].to_string())?.parse::<IpAddr>()?)
        })?;
        let asks = |host: &str| {
            let header = format!("host: {host}");
            let url = format!("http://{at}/hostname");
            outside.command(&[
                "curl",
                "--silent",
                "--max-time",
                "5",
                "--write-out",
                " %{http_code}",
                "--header",
                &header,
                &url,
            ])
        };
        eventually(LONG, &format!("{host} answers at {at}"), || {
            let said = asks(host)?;
            ensure!(said.starts_with("app-") && said.ends_with(" 200"), "{said}");
            Ok(())
        })?;
        let said = asks("other.example.org")?;
        ensure!(said.ends_with(" 404"), "a host without a rule: {said}");
    }
    Ok(())
}
