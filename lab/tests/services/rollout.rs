// SPDX-License-Identifier: Apache-2.0
//! A Deployment behind a Service is rolled out: its pods are replaced one by one, and end some time after they are told to.

use super::{LONG, apply, delete, ingress, node, outside, pool, port, under_requests};
use anyhow::{Context as _, Result, ensure};
use lab::netns::Netns;
use lab::probe::{Cluster, eventually};
use lab::traffic::{Kept, get};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Long connections at a time from one machine to one address.
const EACH: usize = 4;
/// What a process may take to end, far less than it goes on after it was told to.
const MOMENT: Duration = Duration::from_secs(1);

fn labels(name: &str) -> Value {
    json!({"app": name})
}

fn deploy(cluster: &Cluster, name: &str) -> Result<()> {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "net"},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": labels(name)},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": labels(name)},
                "spec": {
                    "terminationGracePeriodSeconds": 10,
                    "containers": [{
                        "name": "server", "image": "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
                        "args": ["netexec", "--http-port=8080", "--udp-port=8081", "--delay-shutdown=3"],
                        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
                    }],
                },
            },
        },
    });
    cluster.apply(&deployment.to_string())?;
    rolled_out(cluster, name)
}

fn rolled_out(cluster: &Cluster, name: &str) -> Result<()> {
    let what = format!("deployment/{name}");
    cluster.kubectl(&["rollout", "status", "--namespace=net", &what, "--timeout=120s"]).map(drop)
}

fn roll_out(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.kubectl(&["rollout", "restart", "--namespace=net", &format!("deployment/{name}")])?;
    rolled_out(cluster, name)
}

fn end(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.kubectl(&["delete", "deployment", "--namespace=net", name])?;
    delete(cluster, name)
}

pub(super) fn requests(cluster: &Cluster) -> Result<()> {
    deploy(cluster, "rolled")?;
    apply(cluster, "rolled", &json!({}), &json!({"type": "NodePort", "selector": labels("rolled")}))?;
    under_requests(cluster, "rolled", || roll_out(cluster, "rolled"))?;
    end(cluster, "rolled")
}

/// IPv4 addresses by the names of pods.
type Pods = BTreeMap<String, IpAddr>;

fn pods(cluster: &Cluster, name: &str) -> Result<Pods> {
    let list = cluster.get(&["pods", "--namespace=net", "--selector", &format!("app={name}")])?;
    let pods = list["items"].as_array().cloned().unwrap_or_default();
    let text = |pod: &Value, path: &str| pod.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let of = |pod: &Value| Some((text(pod, "/metadata/name")?, text(pod, "/status/podIPs/0/ip")?.parse().ok()?));
    Ok(pods.iter().filter_map(of).collect())
}

/// From where, and to which address of the Service.
fn targets(cluster: &Cluster, name: &str) -> Result<Vec<(Netns, SocketAddr)>> {
    let (client, outside, http) =
        (Netns::of_pod(cluster, "net", "client")?, outside(cluster)?, port(cluster, name, 0)?);
    let mut targets = Vec::new();
    for ip in cluster.service_addresses("net", name)? {
        targets.push((client.try_clone()?, SocketAddr::new(ip, 80)));
    }
    for ip in ingress(cluster, name, 2)? {
        targets.push((outside.try_clone()?, SocketAddr::new(ip, 80)));
    }
    for ip in node(1).into_iter().chain(node(2)) {
        targets.push((outside.try_clone()?, SocketAddr::new(ip, http)));
    }
    for (from, to) in &targets {
        eventually(LONG, &format!("{to} answers"), || from.run(|| get(*to, "/hostname")))?;
    }
    Ok(targets)
}

/// Connections of the pod's own processes, which socket programs translate: one that ends before its pod, and one that is not made, is written down.
struct Sockets<'a>(&'a Cluster);

impl<'a> Sockets<'a> {
    fn start(cluster: &'a Cluster, to: SocketAddr, pods: &Pods) -> Result<Self> {
        let known: String = pods.iter().map(|(name, ip)| format!("{name} {ip}\n")).collect();
        let script = format!(
            r#"rm -f /tmp/long*; touch /tmp/long; printf '{known}' >/tmp/long-pods
            long() {{
                while [ -e /tmp/long ]; do
                    : >/tmp/long-$1
                    while [ -e /tmp/long ] && printf 'GET /hostname HTTP/1.1\r\nHost: lab\r\n\r\n'; do sleep 0.05; done |
                        nc {} {} >>/tmp/long-$1
                    [ -e /tmp/long ] || return
                    pod=$(grep -om1 'kept-[a-z0-9-]*' /tmp/long-$1)
                    ip=$(sed -n "s/^$pod //p" /tmp/long-pods)
                    for try in 1 2 3 4 5; do
                        [ -n "$ip" ] && ! curl -s -m 2 -o /dev/null http://$ip:8080/ && break
                        [ $try = 5 ] && echo "to '$pod'" >>/tmp/long-cut
                        sleep 0.2
                    done
                    echo "$pod" >>/tmp/long-ended
                done
            }}
            for number in $(seq 8); do (long $number) >/dev/null 2>&1 & done"#,
            to.ip(),
            to.port()
        );
        cluster.exec("net", "client", &["sh", "-c", &script])?;
        Ok(Self(cluster))
    }

    /// Waits until each of them is answered.
    fn go_on(&self) -> Result<()> {
        eventually(LONG, "long connections of sockets", || {
            let count = "for one in $(seq 8); do : >/tmp/long-$one; done; sleep 0.5; grep -lr kept- /tmp | grep -c 'long-[0-9]'";
            let said = self.0.exec("net", "client", &["sh", "-c", count])?;
            ensure!(said.trim() == "8", "{said}");
            Ok(())
        })
    }

    /// Stops them.
    fn finish(self) -> Result<()> {
        let end = "rm -f /tmp/long; killall nc; touch /tmp/long-cut /tmp/long-ended; cat /tmp/long-cut; wc -l </tmp/long-ended";
        let said = self.0.exec("net", "client", &["sh", "-c", end])?;
        let (cut, ended) = said.trim().rsplit_once('\n').unwrap_or(("", said.trim()));
        ensure!(cut.is_empty(), "ended before their pods, or not made: {cut}");
        ensure!(ended.parse::<u32>()? >= 8, "all pods ended, and only {ended} connections");
        Ok(())
    }
}

/// Whether a server does no longer take connections. A process that ends closes its newest sockets first, its listener a moment after them.
fn serves_no_more(client: &Netns, ip: IpAddr) -> bool {
    let refused = || {
        ensure!(client.connect(SocketAddr::new(ip, 8080)).is_err(), "it serves");
        Ok(())
    };
    eventually(MOMENT, "the end of a server", refused).is_ok()
}

pub(super) fn connections(cluster: &Cluster) -> Result<()> {
    pool(cluster)?;
    deploy(cluster, "kept")?;
    apply(cluster, "kept", &json!({}), &json!({"type": "LoadBalancer", "selector": labels("kept")}))?;
    let (old, client) = (Arc::new(pods(cluster, "kept")?), Arc::new(Netns::of_pod(cluster, "net", "client")?));
    ensure!(old.len() == 3, "{old:?}");
    let mut kept = Vec::new();
    let targets = targets(cluster, "kept")?;
    for (from, to) in &targets {
        for _ in 0..EACH {
            let (old, client) = (Arc::clone(&old), Arc::clone(&client));
            let has_ended = move |pod: &str| old.get(pod).is_some_and(|ip| serves_no_more(&client, *ip));
            kept.push(Kept::start(from.try_clone()?, *to, has_ended));
        }
    }
    let to = targets.iter().map(|(_, to)| *to).find(SocketAddr::is_ipv4).context("no IPv4 address")?;
    let sockets = Sockets::start(cluster, to, &old)?;
    sockets.go_on()?;
    kept.iter().try_for_each(|one| one.goes_on(5))?;
    roll_out(cluster, "kept")?;
    eventually(LONG, "the old pods are gone", || {
        let now = pods(cluster, "kept")?;
        ensure!(now.keys().all(|name| !old.contains_key(name)), "{now:?}");
        Ok(())
    })?;
    kept.iter().try_for_each(|one| one.goes_on(5))?;
    sockets.go_on()?;
    sockets.finish()?;
    for one in kept {
        let count = one.finish()?;
        ensure!(count > 1, "a connection outlived all pods");
    }
    end(cluster, "kept")
}
