// SPDX-License-Identifier: Apache-2.0
//! Short connections through Services, with more and more Services: ours, and kube-proxy in both modes on the bridge plugin.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::clock;
use crate::cluster::{Cluster, LabCommand, NAMESPACE, pause};
use crate::load::PORT;
use crate::place::Place;
use crate::report::Figure;
use crate::traffic::{self, Arm, Plan, Shape};

/// Pods and their nodes.
const PODS: [(&str, &str); 3] = [("service-client", "node1"), ("service-near", "node1"), ("service-far", "node2")];
/// How long a proxy may take to serve a Service; with very many, kube-proxy takes minutes.
const PATIENCE: Duration = Duration::from_secs(600);
/// Services created at a time.
const BATCH: usize = 2000;

/// A cluster with a proxy for Services.
struct Served<'a> {
    name: &'static str,
    cluster: &'a Cluster,
    client: (Place, [IpAddr; 2]),
    near: (Place, [IpAddr; 2]),
    far: (Place, [IpAddr; 2]),
    outside: Place,
    /// Number of Services created.
    count: usize,
}

/// Measures with each number of Services.
pub(crate) fn measure(
    ours: &Cluster,
    lab: &LabCommand,
    counts: &[usize],
    ahead: bool,
    plan: &Plan,
) -> Result<Vec<Figure>> {
    let bridge = |name, mode| Cluster::up(lab.clone(), name, &["--cni", "bridge", mode]);
    let iptables = bridge("bench-iptables", "--kube-proxy=iptables")?;
    let nftables = bridge("bench-nftables", "--kube-proxy=nftables")?;
    let mut all = [("ours", ours), ("iptables", &iptables), ("nftables", &nftables)]
        .into_iter()
        .map(|(name, cluster)| Served::new(name, cluster))
        .collect::<Result<Vec<_>>>()?;
    let mut figures = Vec::new();
    for count in counts {
        for served in &mut all {
            figures.push(served.grow(*count)?);
        }
        let plain = all.iter().take(1).map(|ours| Ok(ours.arm("plain")));
        let arms = plain.chain(all.iter().map(Served::by_cluster_ip)).map(|arm| Ok(arm?.ahead(ahead)));
        let arms = arms.collect::<Result<Vec<Arm>>>()?;
        figures.extend(named(traffic::compare(&arms, 0, plan)?, &format!("ClusterIP, {count} Services")));
    }
    for (what, shape) in [("node port, same node", Shape::OneNode), ("node port, other node", Shape::TwoNodes)] {
        let arms = all.iter().map(|served| Ok(served.by_node_port(shape)?.ahead(ahead)));
        let arms = arms.collect::<Result<Vec<Arm>>>()?;
        figures.extend(named(traffic::compare(&arms, 0, plan)?, what));
    }
    Ok(figures)
}

fn named(figures: Vec<Figure>, what: &str) -> Vec<Figure> {
    figures.into_iter().map(|figure| Figure { what: format!("CRR {what}"), target: None, ..figure }).collect()
}

impl<'a> Served<'a> {
    fn new(name: &'static str, cluster: &'a Cluster) -> Result<Self> {
        cluster.namespace()?;
        let labels = json!({"bench": "services"});
        cluster.apply(&PODS.map(|(pod, node)| pause(pod, node, &labels)))?;
        let ready = ["wait", "pod", "-l", "bench=services", "--for=condition=Ready", "--timeout=90s"];
        cluster.kubectl(&[&["-n", NAMESPACE][..], &ready].concat())?;
        let [client, near, far] = PODS.map(|(pod, node)| cluster.pod(pod, node));
        let outside = format!("/proc/{}/ns/net", cluster.first_process("control")?);
        let outside = Place { netns: Some(outside.into()), ..Place::default() };
        Ok(Self { name, cluster, client: client?, near: near?, far: far?, outside, count: 0 })
    }

    /// Client and server without a Service.
    fn arm(&self, name: &str) -> Arm {
        Arm::new(Shape::OneNode, name, self.client.clone(), self.near.clone())
    }

    /// By the latest Service: the worst case for a proxy that searches a list.
    fn by_cluster_ip(&self) -> Result<Arm> {
        Ok(self.arm(self.name).asking([self.address(self.count - 1)?; 2]))
    }

    /// Creates more Services, and returns how long the last one took to be served.
    fn grow(&mut self, count: usize) -> Result<Figure> {
        let server = self.arm(self.name).serve(self.near.1[0])?;
        while self.count < count {
            let next = self.count..count.min(self.count + BATCH);
            self.count = next.end;
            self.cluster.create(&objects(next, self.near.1[0]))?;
            eprint!("\r\x1b[K  {}: {} Services", self.name, self.count);
        }
        eprint!("\r\x1b[K");
        let begin = clock::now();
        let address = self.address(self.count - 1)?;
        clock::poll(PATIENCE, Duration::from_millis(1), || match self.arm(self.name).connect(address, PORT)? {
            seen if seen == "connected" => Ok(()),
            seen => bail!("the last of {count} Services is {seen}"),
        })?;
        drop(server);
        let took = clock::milliseconds(begin.elapsed());
        Ok(Figure::new(format!("the last of {count} Services served after"), self.name, took, "ms"))
    }

    fn address(&self, number: usize) -> Result<IpAddr> {
        let path = "-o=jsonpath={.spec.clusterIP}";
        let said = self.cluster.kubectl(&["-n", NAMESPACE, "get", "service", &service_name(number), path])?;
        said.trim().parse().with_context(|| format!("Service {number} has the address '{said}'"))
    }

    /// A machine outside the cluster connects to a port of node1; the server is on that node or on the other one.
    fn by_node_port(&self, shape: Shape) -> Result<Arm> {
        let server = if shape == Shape::OneNode { &self.near } else { &self.far };
        let ports = json!([{"port": PORT, "nodePort": PORT, "protocol": "TCP"}]);
        let service = service(NODE_PORT, &json!({"type": "NodePort", "ports": ports}));
        self.cluster.apply(&[service, slice(NODE_PORT, server.1[0])])?;
        let path = "-o=jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
        let said = self.cluster.kubectl(&["get", "node", "node1", path])?;
        let node: IpAddr = said.split_whitespace().next().unwrap_or_default().parse().context("node1's address")?;
        let arm = Arm::new(shape, self.name, (self.outside.clone(), [node; 2]), server.clone()).asking([node; 2]);
        let server = arm.serve(arm.addresses[0])?;
        clock::poll(PATIENCE, Duration::from_millis(50), || match arm.connect(node, PORT)? {
            seen if seen == "connected" => Ok(()),
            seen => bail!("{}: the node port is {seen}", self.name),
        })?;
        drop(server);
        Ok(arm)
    }
}

/// The Service with a node port, in addition to the numbered ones.
const NODE_PORT: usize = 999_999;

fn service_name(number: usize) -> String {
    format!("s{number:06}")
}

/// Services without a selector, each with one endpoint.
fn objects(numbers: Range<usize>, backend: IpAddr) -> Vec<Value> {
    let spec = json!({"ports": [{"port": PORT, "protocol": "TCP"}]});
    numbers.flat_map(|number| [service(number, &spec), slice(number, backend)]).collect()
}

fn service(number: usize, spec: &Value) -> Value {
    let name = service_name(number);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
    })
}

fn slice(number: usize, backend: IpAddr) -> Value {
    let name = service_name(number);
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"port": PORT, "protocol": "TCP"}],
        "endpoints": [{"addresses": [backend.to_string()], "conditions": {"ready": true}}],
    })
}
