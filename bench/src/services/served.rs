// SPDX-License-Identifier: Apache-2.0
//! A cluster with something that serves Services, and the ways to its pods.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::objects::{self, Block};
use crate::clock;
use crate::cluster::{Cluster, NAMESPACE, pause};
use crate::etcd::Etcd;
use crate::load::PORT;
use crate::place::Place;
use crate::report::Figure;
use crate::traffic::{Arm, Shape};

/// Pods and their nodes.
const PODS: [(&str, &str); 3] = [("service-client", "node1"), ("service-near", "node1"), ("service-far", "node2")];
/// How long a proxy may take to serve Services; with very many, kube-proxy takes minutes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);
/// How long a connection may take that asks whether a Service is served.
const ANSWERED_WITHIN: Duration = Duration::from_millis(20);

/// A cluster with a proxy for Services.
#[derive(Debug)]
pub(crate) struct Served<'a> {
    pub(crate) name: &'static str,
    cluster: &'a Cluster,
    client: (Place, [IpAddr; 2]),
    near: (Place, [IpAddr; 2]),
    far: (Place, [IpAddr; 2]),
    outside: Place,
    etcd: Etcd,
    block: Block,
    /// Number of Services created.
    count: usize,
}

/// A Service with a node port, in addition to the numbered ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodePort {
    /// Its name, which is also part of the arm's.
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    /// The way of forwarding that it asks for.
    pub(crate) mode: Option<&'static str>,
}

/// The one on clusters that forward in one way.
pub(crate) const PLAIN: NodePort = NodePort { name: "ported", port: PORT, mode: None };

impl<'a> Served<'a> {
    pub(crate) fn new(name: &'static str, cluster: &'a Cluster) -> Result<Self> {
        cluster.namespace()?;
        let labels = json!({"bench": "services"});
        cluster.apply(&PODS.map(|(pod, node)| pause(pod, node, &labels)))?;
        let ready = ["wait", "pod", "-l", "bench=services", "--for=condition=Ready", "--timeout=90s"];
        cluster.kubectl(&[&["-n", NAMESPACE][..], &ready].concat())?;
        let [client, near, far] = PODS.map(|(pod, node)| cluster.pod(pod, node));
        let outside = format!("/proc/{}/ns/net", cluster.first_process("control")?);
        let outside = Place { netns: Some(outside.into()), ..Place::default() };
        let (etcd, block) = (Etcd::of(cluster)?, Block::of(cluster)?);
        Ok(Self { name, cluster, client: client?, near: near?, far: far?, outside, etcd, block, count: 0 })
    }

    /// Client and server without a Service.
    pub(crate) fn arm(&self, name: &str) -> Arm {
        Arm::new(Shape::OneNode, name, self.client.clone(), self.near.clone())
    }

    /// By the latest Service: the worst case for a proxy that searches a list.
    pub(crate) fn by_cluster_ip(&self) -> Arm {
        self.arm(self.name).asking([self.block.address(self.count - 1); 2])
    }

    /// Creates Services up to this number and then one more, and returns how long the last and the one more took to be served.
    pub(crate) fn grow(&mut self, count: usize) -> Result<Vec<Figure>> {
        let server = self.arm(self.name).serve(self.near.1[0])?;
        let took = self.create(count - 1)?;
        let bulk = Figure::new(format!("the last of {count} Services served after"), self.name, took, "ms");
        let took = self.create(count)?;
        let single = Figure::new(format!("one more beside {count} Services served after"), self.name, took, "ms");
        drop(server);
        Ok(vec![bulk, single])
    }

    /// Creates Services until there are so many, and returns the milliseconds from then until the last is served.
    fn create(&mut self, count: usize) -> Result<f64> {
        self.etcd.write(&self.block.services(self.count..count, self.near.1[0])?)?;
        self.count = count;
        let (begin, arm, address) = (clock::now(), self.arm(self.name), self.block.address(count - 1));
        clock::poll(PATIENCE, Duration::from_millis(1), || match arm.connect(address, PORT, ANSWERED_WITHIN)? {
            seen if seen == "connected" => Ok(()),
            seen => bail!("the last of {count} Services is {seen}"),
        })?;
        Ok(clock::milliseconds(begin.elapsed()))
    }

    /// A machine outside the cluster connects to a port of node1; the server is on that node or on the other one.
    pub(crate) fn by_node_port(&self, shape: Shape, through: &NodePort) -> Result<Arm> {
        let server = if shape == Shape::OneNode { &self.near } else { &self.far };
        let ports = json!([{"port": PORT, "targetPort": PORT, "nodePort": through.port, "protocol": "TCP"}]);
        let mut service = objects::service(through.name, &json!({"type": "NodePort", "ports": ports}));
        if let (Some(mode), Some(serde_json::Value::Object(metadata))) = (through.mode, service.get_mut("metadata")) {
            metadata.insert("annotations".to_owned(), json!({"service.cilium.io/forwarding-mode": mode}));
        }
        self.cluster.apply(&[service, objects::slice(through.name, server.1[0])])?;
        let path = "-o=jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
        let said = self.cluster.kubectl(&["get", "node", "node1", path])?;
        let node: IpAddr = said.split_whitespace().next().unwrap_or_default().parse().context("node1's address")?;
        let name = through.mode.map_or_else(|| self.name.to_owned(), |mode| format!("{}, {mode}", self.name));
        let arm = Arm::new(shape, &name, (self.outside.clone(), [node; 2]), server.clone());
        let arm = arm.asking([node; 2]).at(through.port);
        let server = arm.serve(arm.addresses[0])?;
        clock::poll(PATIENCE, Duration::from_millis(50), || {
            match arm.connect(node, through.port, ANSWERED_WITHIN)? {
                seen if seen == "connected" => Ok(()),
                seen => bail!("{name}: the node port is {seen}"),
            }
        })?;
        drop(server);
        Ok(arm)
    }
}
