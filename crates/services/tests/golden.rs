// SPDX-License-Identifier: Apache-2.0
//! Golden tests: objects go in, frontends and maps come out, through the same `start` that the agent calls.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "../../datapath/tests/kit/golden.rs"]
mod golden;

use datapath::{Epochs, fake};
use k8s::cilium::CiliumLocalRedirectPolicy;
use k8s::k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use model::config::Group;
use model::{Algorithm, Backend, Frontend, Node, NodeAddress, NodeName, Pod, PodName, ServiceName};
use services::{Config, EndpointSlice, Inputs, Maps, Outputs, Redirect, Service, SliceName};
use statedb::{Tasks, Writer};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

struct World {
    config: Config,
    services: Writer<Service>,
    slices: Writer<EndpointSlice>,
    redirects: Writer<Redirect>,
    pods: Writer<Pod>,
    nodes: Writer<Node>,
    addresses: Writer<NodeAddress>,
    maps: Maps,
    outputs: Outputs,
    tasks: Tasks,
}

impl World {
    /// `kernel` may fail; `maps` shows what is in it.
    fn new(config: Config, kernel: &Arc<dyn datapath::Kernel>, maps: Maps) -> Self {
        let (services, service_reader) = statedb::table("k8s-services");
        let (slices, slice_reader) = statedb::table("k8s-endpointslices");
        let (redirects, redirect_reader) = statedb::table("local-redirect-policies");
        let (mut intercepts, intercept_reader) = statedb::table("intercepts");
        intercepts.mark_initialized();
        let (pods, pod_reader) = statedb::table("k8s-pods");
        let (nodes, node_reader) = statedb::table("nodes");
        let (addresses, address_reader) = statedb::table("node-addresses");
        let inputs = || Inputs {
            services: service_reader.clone(),
            slices: slice_reader.clone(),
            redirects: redirect_reader.clone(),
            intercepts: intercept_reader.clone(),
            pods: pod_reader.clone(),
            node: NodeName { cluster: "default".to_owned(), name: "n1".to_owned() },
            nodes: node_reader.clone(),
            addresses: address_reader.clone(),
            own_node: statedb::table("own-node").1,
            before_stack: tokio::sync::watch::channel(Default::default()).1,
            maps: Arc::clone(kernel),
            hooks: Arc::new(fake::Hooks::default()),
            sockets: Arc::new(fake::Sockets::default()),
            epochs: Epochs::open(kernel).unwrap(),
        };
        let tasks = Tasks::new(CancellationToken::new());
        let outputs =
            std::iter::repeat_with(|| services::start(&config, inputs(), &tasks)).find_map(Result::ok).unwrap();
        Self { config, services, slices, redirects, pods, nodes, addresses, maps, outputs, tasks }
    }

    /// The process ends. Otherwise it would write its rows again with its next full sync.
    async fn end(self) {
        self.tasks.token().cancel();
        self.tasks.run_until_failure().await.unwrap();
    }

    /// The next process, with what it lists anew.
    async fn restart(self, kernel: &Arc<dyn datapath::Kernel>) -> Self {
        let (services, slices) = (self.services.snapshot(), self.slices.snapshot());
        let (nodes, addresses) = (self.nodes.snapshot(), self.addresses.snapshot());
        let (redirects, pods) = (self.redirects.snapshot(), self.pods.snapshot());
        let (config, maps) = (self.config.clone(), self.maps.clone());
        self.end().await;
        let mut next = Self::new(config, kernel, maps);
        nodes.iter().for_each(|row| next.nodes.insert(row.as_ref().clone()));
        addresses.iter().for_each(|row| next.addresses.insert(row.as_ref().clone()));
        services.iter().for_each(|row| next.services.insert(row.as_ref().clone()));
        slices.iter().for_each(|row| next.slices.insert(row.as_ref().clone()));
        redirects.iter().for_each(|row| next.redirects.insert(row.as_ref().clone()));
        pods.iter().for_each(|row| next.pods.insert(row.as_ref().clone()));
        next
    }

    fn apply(&mut self, yaml: &str) {
        let config = &self.config;
        for document in yaml.split("\n---\n").filter(|d| !d.trim().is_empty()) {
            let value: serde_json::Value = serde_saphyr::from_str(document).unwrap();
            match value["kind"].as_str() {
                Some("Service") => {
                    let object: core::Service = serde_json::from_value(value).unwrap();
                    self.services.insert(services::ingest_service(config, &object).unwrap().unwrap());
                }
                Some("EndpointSlice") => {
                    let object: discovery::EndpointSlice = serde_json::from_value(value).unwrap();
                    self.slices.insert(services::ingest_slice(config, &object).unwrap());
                }
                Some("CiliumLocalRedirectPolicy") => {
                    let object: CiliumLocalRedirectPolicy = serde_json::from_value(value).unwrap();
                    self.redirects.insert(services::ingest_redirect(config, &object).unwrap().unwrap());
                }
                Some("Pod") => self.pods.insert(pod(&value)),
                other => panic!("unknown kind {other:?}"),
            }
        }
    }

    /// The addresses of this node, at each of which it serves ports of nodes, and its labels.
    fn node(&mut self, lines: &str) {
        let mut node = Node {
            name: "n1".to_owned(),
            cluster: "default".to_owned(),
            internal_ips: vec![],
            external_ips: vec![],
            cilium_internal_ips: vec![],
            health_ips: vec![],
            pod_cidrs: vec![],
            labels: BTreeMap::new(),
            identity: model::reserved::HOST,
            local: true,
        };
        let mut addresses = Vec::new();
        for line in lines.lines().filter(|line| !line.is_empty()) {
            match line.split_once('=') {
                Some((key, value)) => drop(node.labels.insert(key.to_owned(), value.to_owned())),
                None => addresses.push(NodeAddress {
                    address: line.parse().unwrap(),
                    device: "eth0".to_owned(),
                    primary: true,
                    node_port: true,
                }),
            }
        }
        self.nodes.insert(node);
        self.addresses.replace(addresses);
    }

    fn delete(&mut self, names: &str) {
        for line in names.lines().filter(|l| !l.is_empty()) {
            let (kind, path) = line.split_once(' ').unwrap();
            let (namespace, name) = path.split_once('/').unwrap();
            match kind {
                "Service" => {
                    self.services.remove(&ServiceName::new(namespace, name));
                }
                "CiliumLocalRedirectPolicy" => {
                    self.redirects.remove(&ServiceName::new(namespace, name));
                }
                "Pod" => {
                    self.pods.remove(&PodName::new(namespace, name));
                }
                "EndpointSlice" => {
                    self.slices.remove(&SliceName { namespace: namespace.into(), name: name.into() });
                }
                other => panic!("unknown kind {other}"),
            }
        }
    }

    /// Returns when there is nothing left to do: the clock is paused, so it moves only once every task waits. Three hours are more than the
    /// back-off of many retries, of frontends that wait for others too.
    async fn settle(&mut self) {
        self.services.mark_initialized();
        self.slices.mark_initialized();
        self.redirects.mark_initialized();
        self.pods.mark_initialized();
        self.nodes.mark_initialized();
        self.addresses.mark_initialized();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(3 * 3600);
        tokio::time::sleep_until(deadline).await;
    }

    fn frontends(&self) -> String {
        let mut text = String::new();
        for row in self.outputs.frontends.snapshot().iter() {
            let Frontend { key, id, service, port_name, kind, backends, .. } = row.as_ref();
            let port = port_name.as_deref().unwrap_or("-");
            writeln!(text, "{key} id={id} {service} port={port} {kind}{}", traits(row)).unwrap();
            for Backend { id, addr, state, node, .. } in backends.iter() {
                writeln!(text, "  {} => {addr} node={} {state}", id.0, node.as_deref().unwrap_or("-")).unwrap();
            }
        }
        text
    }

    fn maps(&self) -> String {
        let mut text = String::new();
        for line in services::dump::lb_list(&self.maps).unwrap() {
            writeln!(text, "{:<28} {}", line.service, line.backend).unwrap();
        }
        text
    }
}

/// A pod of this node, as far as Services care.
fn pod(object: &serde_json::Value) -> Pod {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let meta = &object["metadata"];
    Pod {
        name: PodName::new(text(&meta["namespace"]), text(&meta["name"])),
        labels: serde_json::from_value(meta["labels"].clone()).unwrap(),
        host_network: object["spec"]["hostNetwork"] == true,
        ips: object["status"]["podIPs"].as_array().unwrap().iter().map(|ip| text(ip).parse().unwrap()).collect(),
        ready: object["status"]["ready"] != false,
        ..Pod::default()
    }
}

/// What a frontend is like beside its kind.
fn traits(row: &Frontend) -> String {
    let mut traits = Vec::new();
    let switches = [
        (row.exposed, "exposed"),
        (row.two_scopes, "two-scopes"),
        (row.local_only, "local"),
        (row.spares_backends, "spares-backends"),
        (row.pods_only, "pods-only"),
        (!row.owns_address, "shared"),
    ];
    traits.extend(switches.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).to_owned()));
    traits.extend(row.affinity.map(|timeout| format!("affinity={}s", timeout.as_secs())));
    traits.extend(row.source_ranges.iter().map(|ranges| {
        let prefixes: Vec<_> = ranges.prefixes.iter().map(ToString::to_string).collect();
        format!("{}={}", if ranges.deny { "denied" } else { "allowed" }, prefixes.join(","))
    }));
    traits.extend((row.algorithm == Algorithm::Maglev).then(|| "maglev".to_owned()));
    traits.iter().map(|text| format!(" {text}")).collect()
}

/// The addresses that are marked as those of Services.
fn marks(kernel: &fake::Kernel) -> String {
    let keys = kernel.map::<abi::maps::Services>().unwrap().keys().unwrap();
    let mut marks: Vec<_> = keys.iter().filter(|key| key.is_mark()).map(|key| IpAddr::from(key.addr)).collect();
    marks.sort();
    marks.iter().map(|ip| format!("{ip}\n")).collect()
}

/// Plays one story and returns it as it went.
async fn play(story: &str, kernel: Arc<dyn datapath::Kernel>, plain: &fake::Kernel) -> String {
    let maps = Maps::open(plain).unwrap();
    let config = config(story);
    let mut world = Some(World::new(config.clone(), &kernel, maps.clone()));
    let seen = golden::play(story, async |command, body| {
        let mut here = world.take().unwrap();
        if ["frontends", "maps", "marks"].contains(&command) {
            here.settle().await;
        }
        let mut shown = None;
        match command {
            // It is read before all else.
            "config" => {}
            "apply" => here.apply(body),
            "node" => here.node(body),
            "delete" => here.delete(body),
            "restart" => here = here.restart(&kernel).await,
            "frontends" => shown = Some(here.frontends()),
            "maps" => shown = Some(here.maps()),
            "marks" => shown = Some(marks(plain)),
            other => panic!("unknown command {other}"),
        }
        world = Some(here);
        shown
    })
    .await;
    world.unwrap().end().await;
    seen
}

/// The keys in the section `config` of a story.
fn config(story: &str) -> Config {
    let section = story.split("== ").find_map(|section| section.strip_prefix("config\n")).unwrap_or_default();
    let keys = section.lines().filter_map(|line| line.split_once(": "));
    Config::parse(&keys.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_story_goes_as_it_is_written() {
    for (path, story) in golden::stories(env!("CARGO_MANIFEST_DIR")) {
        let kernel = fake::Kernel::new();
        let seen = play(&story, Arc::new(kernel.clone()), &kernel).await;
        golden::compare(&path, &story, &seen, "as it is");
    }
}

#[tokio::test(start_paused = true)]
async fn every_story_goes_the_same_way_when_maps_fail_now_and_then() {
    for (path, story) in golden::stories(env!("CARGO_MANIFEST_DIR")) {
        for seed in 0..20 {
            let kernel = fake::Kernel::new();
            let seen = play(&story, Arc::new(fake::chaos(kernel.clone(), 0.2, seed)), &kernel).await;
            golden::compare(&path, &story, &seen, &format!("with seed {seed}"));
        }
    }
}
