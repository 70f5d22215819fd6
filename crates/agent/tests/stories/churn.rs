// SPDX-License-Identifier: Apache-2.0
//! Services and EndpointSlices come, change and go at random, agents are killed in between, and after each change the maps are compared with a
//! naive reading of all objects.

use crate::chance::Chance;
use crate::world::{World, eventually};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Names of Services that there may be.
const SERVICES: u64 = 6;
/// Among them addresses of nobody, of a pod of this node, and of a Service that may be there.
const EXTERNAL: [&str; 4] = ["203.0.113.1", "203.0.113.2", "10.1.0.99", "10.96.0.3"];
const BALANCERS: [&str; 2] = ["192.0.2.1", "203.0.113.1"];

struct Service {
    external: Vec<&'static str>,
    balancers: Vec<&'static str>,
    node_port: Option<u16>,
    local: bool,
}

struct Endpoint {
    address: String,
    here: bool,
    ready: bool,
    serving: bool,
    terminating: bool,
}

/// All objects, by the number of the Service, and of the slice.
#[derive(Default)]
struct Objects {
    services: BTreeMap<u64, Service>,
    slices: BTreeMap<(u64, u64), Vec<Endpoint>>,
}

/// Backends by frontend.
pub(crate) type Served = BTreeMap<String, BTreeSet<String>>;

impl Objects {
    /// Changes something, here and at the API server.
    fn change(&mut self, world: &World, chance: &mut Chance) {
        let (service, slice) = (chance.below(SERVICES), chance.below(2));
        match chance.below(6) {
            0 => {
                if self.services.remove(&service).is_some() {
                    world.api.delete("services", &format!("shop/s{service}"));
                }
            }
            1 | 2 => {
                let made = Service {
                    external: chance.some_of(&EXTERNAL),
                    balancers: chance.some_of(&BALANCERS),
                    node_port: chance.yes().then(|| 30080 + u16::try_from(chance.below(2)).unwrap()),
                    local: chance.yes(),
                };
                world.api.apply(&made.object(service).to_string());
                self.services.insert(service, made);
            }
            3 => {
                if self.slices.remove(&(service, slice)).is_some() {
                    world.api.delete("endpointslices", &format!("shop/s{service}-{slice}"));
                }
            }
            _ => {
                let endpoints: Vec<_> =
                    (0..chance.below(4)).map(|n| endpoint(service * 16 + slice * 8 + n, chance)).collect();
                world.api.apply(&slice_object(service, slice, &endpoints).to_string());
                self.slices.insert((service, slice), endpoints);
            }
        }
    }

    fn served(&self) -> Served {
        let mut claims: BTreeMap<String, ((u8, u64), BTreeSet<String>)> = BTreeMap::new();
        let mut claim = |at: String, rank: u8, service: u64, backends: &BTreeSet<String>| {
            let claim = ((rank, service), backends.clone());
            let winner = claims.entry(at).or_insert_with(|| claim.clone());
            if claim.0 < winner.0 {
                *winner = claim;
            }
        };
        for (number, service) in &self.services {
            let (all, here) = (self.takers(*number, false), self.takers(*number, true));
            claim(format!("10.96.0.{number}:80/TCP"), 1, *number, &all);
            let mut outside = Vec::new();
            outside.extend(service.node_port.iter().map(|port| (2, format!("192.168.0.11:{port}/TCP"))));
            outside.extend(service.node_port.iter().map(|port| (2, format!("0.0.0.0:{port}/TCP"))));
            outside.extend(service.balancers.iter().map(|ip| (3, format!("{ip}:80/TCP"))));
            let free = service.external.iter().filter(|ip| !self.is_taken(ip, *number));
            outside.extend(free.map(|ip| (4, format!("{ip}:80/TCP"))));
            for (rank, at) in outside {
                if service.local {
                    claim(format!("{at}/i"), rank, *number, &all);
                }
                claim(at, rank, *number, if service.local { &here } else { &all });
            }
        }
        claims.into_iter().map(|(at, (_, backends))| (at, backends)).collect()
    }

    /// Whether it is the address of a pod or of another Service.
    fn is_taken(&self, ip: &str, by_other_than: u64) -> bool {
        let of_service = |number: &u64| *number != by_other_than && ip == format!("10.96.0.{number}");
        ip.starts_with("10.1.0.") || self.services.keys().any(of_service)
    }

    /// Who takes new connections: who is ready, or else who ends and still serves.
    fn takers(&self, service: u64, here: bool) -> BTreeSet<String> {
        let slices = self.slices.iter().filter(|((owner, _), _)| *owner == service);
        let endpoints: Vec<_> = slices.flat_map(|(_, slice)| slice).filter(|endpoint| endpoint.here || !here).collect();
        let of = |takes: fn(&Endpoint) -> bool| -> BTreeSet<String> {
            let takers = endpoints.iter().filter(|endpoint| takes(endpoint));
            takers.map(|endpoint| format!("{}:8080/TCP", endpoint.address)).collect()
        };
        let ready = of(|endpoint| endpoint.ready);
        if ready.is_empty() { of(|endpoint| endpoint.serving && endpoint.terminating) } else { ready }
    }
}

impl Service {
    fn object(&self, number: u64) -> Value {
        let ip = format!("10.96.0.{number}");
        let ingress: Vec<_> = self.balancers.iter().map(|ip| json!({"ip": ip})).collect();
        let policy = if self.local { "Local" } else { "Cluster" };
        json!({"kind": "Service", "metadata": {"name": format!("s{number}"), "namespace": "shop"},
            "spec": {"type": "LoadBalancer", "clusterIP": ip, "clusterIPs": [ip], "externalIPs": self.external,
                "externalTrafficPolicy": policy, "ports": [{"port": 80, "nodePort": self.node_port, "protocol": "TCP"}]},
            "status": {"loadBalancer": {"ingress": ingress}}})
    }
}

fn endpoint(number: u64, chance: &mut Chance) -> Endpoint {
    let here = chance.yes();
    Endpoint {
        address: format!("10.{}.0.{number}", if here { 1 } else { 2 }),
        here,
        ready: chance.yes(),
        serving: chance.yes(),
        terminating: chance.yes(),
    }
}

fn slice_object(service: u64, slice: u64, endpoints: &[Endpoint]) -> Value {
    let endpoint = |endpoint: &Endpoint| {
        let node = if endpoint.here { "node1" } else { "node2" };
        json!({"addresses": [endpoint.address], "nodeName": node, "conditions":
            {"ready": endpoint.ready, "serving": endpoint.serving, "terminating": endpoint.terminating}})
    };
    let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
    json!({"kind": "EndpointSlice", "addressType": "IPv4", "ports": [{"port": 8080, "protocol": "TCP"}],
        "metadata": {"name": format!("s{service}-{slice}"), "namespace": "shop",
            "labels": {"kubernetes.io/service-name": format!("s{service}")}},
        "endpoints": endpoints})
}

/// What the maps hold.
pub(crate) fn held(world: &World) -> Served {
    let mut served = Served::new();
    for line in world.services() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let backends = served.entry(words[0].to_owned()).or_default();
        if words[1] != "(0)" {
            backends.insert(words[3].to_owned());
        }
    }
    served
}

async fn agree(world: &World, objects: &Objects, round: u64) {
    let wanted = objects.served();
    let what = format!("the maps to hold what follows after change {round}: {wanted:#?}");
    eventually(&what, async || held(world) == wanted).await;
}

/// Changes objects for as long as `goes_on` says so of the number of changes so far. In the end all Services go, and nothing is left of them.
pub(crate) async fn at_random(mut world: World, seed: u64, goes_on: impl Fn(u64) -> bool) {
    let (mut objects, mut chance, mut round) = (Objects::default(), Chance::new(seed), 0);
    world.start_ready().await;
    while goes_on(round) {
        round += 1;
        if chance.below(40) == 0 {
            world.kill().await;
            (0..4).for_each(|_| objects.change(&world, &mut chance));
            world.start_ready().await;
        }
        objects.change(&world, &mut chance);
        agree(&world, &objects, round).await;
    }
    for number in objects.services.keys() {
        world.api.delete("services", &format!("shop/s{number}"));
    }
    let empty = |world: &World| ["Services", "Slots", "Backends"].iter().all(|map| world.maps()[*map].is_empty());
    eventually("nothing to be left", async || empty(&world)).await;
}
