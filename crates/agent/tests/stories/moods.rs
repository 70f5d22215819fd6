// SPDX-License-Identifier: Apache-2.0
//! An API server of which each request may fail, hang, lag behind or be lost, while pods, policies, groups, Services and identities come and
//! go and agents are killed. When it has come to rest, the kernel holds what a fresh start would compute. `CILIUM_MOODS_SEED` repeats a run,
//! `CILIUM_MOODS_ROUNDS` says for how many changes.

use crate::apiserver::Mood;
use crate::chance::Chance;
use crate::churn::{Served, held};
use crate::world::{Attached, World, eventually, settle};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::time::Duration;

const APPS: [&str; 3] = ["web", "db", "job"];
/// Entries of groups; two of them are no prefixes.
const ENTRIES: [&str; 4] = ["203.0.113.0/24", "198.51.100.7", "10.0.0.0/99", "x"];
/// An address outside of the cluster, inside and outside of the entries.
const OUTSIDE: [&str; 3] = ["203.0.113.9", "198.51.100.7", "192.0.2.1"];

struct Story {
    world: World,
    chance: Chance,
    /// Pods that there are, each with its label, and its interface once it has one.
    pods: BTreeMap<String, (&'static str, Option<Attached>)>,
    /// Other objects that there are: plural, and namespace and name.
    objects: BTreeSet<(&'static str, String)>,
    made: u64,
}

/// What the programs do with pods and Services, without numbers that are drawn.
#[derive(Debug, PartialEq)]
struct View {
    services: Served,
    /// By pod: its identity, and whether it may be reached by, and may reach, whom.
    pods: BTreeMap<String, (u32, BTreeMap<String, [bool; 2]>)>,
}

impl Story {
    async fn begin(seed: u64) -> Self {
        let mut world = World::new().await;
        world.start_ready().await;
        Self { world, chance: Chance::new(seed), pods: BTreeMap::new(), objects: BTreeSet::new(), made: 0 }
    }

    async fn change(&mut self) {
        match self.chance.below(14) {
            0..3 => self.schedule(),
            3 | 4 => self.remove_pod().await,
            5..8 => self.apply(),
            8 | 9 => self.withdraw(),
            10 => self.collect(),
            11 => self.world.api.forget_events(),
            12 => {
                let seed = self.chance.below(u64::MAX);
                self.world.api.set_mood(Mood::Unsteady(seed));
            }
            _ => {
                self.world.kill().await;
                self.world.start().await;
            }
        }
        self.attach().await;
        tokio::time::sleep(Duration::from_secs(self.chance.below(90))).await;
    }

    fn schedule(&mut self) {
        self.made += 1;
        let (name, app) = (format!("pod-{}", self.made), *self.chance.one_of(&APPS));
        self.world.schedule(&name, app);
        self.pods.insert(name, (app, None));
    }

    /// Attaches what can be attached, as the kubelet does again and again.
    async fn attach(&mut self) {
        for (name, (_, attached)) in &mut self.pods {
            if attached.is_none()
                && let Ok(pod) = self.world.try_add(name).await
            {
                self.world.tell_address(name, &pod);
                *attached = Some(pod);
            }
        }
    }

    async fn remove_pod(&mut self) {
        let names: Vec<_> = self.pods.keys().cloned().collect();
        if names.is_empty() {
            return;
        }
        let name = self.chance.one_of(&names);
        if let Some((_, Some(pod))) = self.pods.remove(name) {
            self.world.del(&pod).await;
        }
        self.world.api.delete("pods", &format!("shop/{name}"));
    }

    fn apply(&mut self) {
        let (number, app, peer) = (self.chance.below(3), *self.chance.one_of(&APPS), *self.chance.one_of(&APPS));
        let of = |labels: &str| json!({"matchLabels": {"app": labels}});
        let name = |prefix: &str| json!({"namespace": "shop", "name": format!("{prefix}-{number}")});
        let ports = json!([{"port": 80, "protocol": "TCP"}]);
        let (plural, object) = match self.chance.below(5) {
            0 => {
                let spec = json!({"podSelector": of(app), "policyTypes": ["Ingress"],
                    "ingress": [{"from": [{"podSelector": of(peer)}], "ports": ports}]});
                ("networkpolicies", json!({"kind": "NetworkPolicy", "metadata": name("np"), "spec": spec}))
            }
            1 => {
                let set = json!([{"cidrGroupRef": format!("group-{}", self.chance.below(2))}]);
                let deny = json!({"endpointSelector": of(app), "egress": [{"toEntities": ["all"]}], "egressDeny": [{"toCIDRSet": set}]});
                let allow = json!({"endpointSelector": of(app), "ingress": [{"fromCIDRSet": set}, {"fromEndpoints": [of(peer)]}]});
                let spec = if self.chance.yes() { deny } else { allow };
                ("ciliumnetworkpolicies", json!({"kind": "CiliumNetworkPolicy", "metadata": name("cnp"), "spec": spec}))
            }
            2 => {
                let spec = json!({"externalCIDRs": self.chance.some_of(&ENTRIES)});
                let metadata = json!({"name": format!("group-{}", number % 2)});
                ("ciliumcidrgroups", json!({"kind": "CiliumCIDRGroup", "metadata": metadata, "spec": spec}))
            }
            3 => {
                let ip = format!("10.96.0.{number}");
                let spec = json!({"clusterIP": ip, "clusterIPs": [ip], "ports": ports});
                ("services", json!({"kind": "Service", "metadata": name("svc"), "spec": spec}))
            }
            _ => {
                let addresses = (0..self.chance.below(3)).map(|n| {
                    json!({"addresses": [format!("10.2.0.{}", 10 * number + n)],
                    "conditions": {"ready": true}})
                });
                let addresses: Vec<_> = addresses.collect();
                let mut metadata = name("svc");
                metadata["labels"] = json!({"kubernetes.io/service-name": format!("svc-{number}")});
                (
                    "endpointslices",
                    json!({"kind": "EndpointSlice", "addressType": "IPv4", "metadata": metadata,
                    "ports": [{"port": 8080, "protocol": "TCP"}], "endpoints": addresses}),
                )
            }
        };
        self.world.api.apply(&object.to_string());
        let metadata = &object["metadata"];
        let namespace = metadata["namespace"].as_str().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        self.objects.insert((plural, format!("{namespace}{}", metadata["name"].as_str().unwrap())));
    }

    fn withdraw(&mut self) {
        let all: Vec<_> = self.objects.iter().cloned().collect();
        if !all.is_empty() {
            let gone = self.chance.one_of(&all);
            self.world.api.delete(gone.0, &gone.1);
            self.objects.remove(gone);
        }
    }

    /// Deletes an identity, used or not: what a collector that was held up may do.
    fn collect(&mut self) {
        let all: Vec<_> = self.identities().into_keys().collect();
        if !all.is_empty() {
            self.world.api.delete("ciliumidentities", &self.chance.one_of(&all).to_string());
        }
    }

    /// The labels `app` of all identities.
    fn identities(&self) -> BTreeMap<u32, String> {
        let row = |object: Value| {
            let app = object["security-labels"]["k8s:app"].as_str().unwrap_or_default().to_owned();
            (object["metadata"]["name"].as_str().unwrap().parse().unwrap(), app)
        };
        self.world.api.all("ciliumidentities").into_iter().map(row).collect()
    }

    fn view(&self) -> View {
        let mut peers: Vec<_> = self.identities().keys().map(|id| (id.to_string(), *id)).collect();
        let outside = |ip: &&str| Some(((*ip).to_owned(), self.world.ipcache(ip)?.0));
        peers.extend(OUTSIDE.iter().filter_map(outside));
        peers.push(("host".to_owned(), 1));
        let attached = self.pods.iter().filter_map(|(name, (_, pod))| Some((name, pod.as_ref()?)));
        let pods = attached.map(|(name, pod)| {
            let identity = self.world.ipcache(&pod.ip.to_string()).map_or(0, |(identity, _)| identity);
            let verdicts = peers.iter().map(|(peer, id)| {
                (peer.clone(), [self.world.lets_in(pod, *id, 80), self.world.lets_out(pod, *id, 80)])
            });
            (name.clone(), (identity, verdicts.collect()))
        });
        View { pods: pods.collect(), services: held(&self.world) }
    }

    /// Whether others know each pod under the identity that it has here, which has its label.
    fn others_know(&self) -> Result<(), String> {
        let identities = self.identities();
        for (name, (app, pod)) in &self.pods {
            let pod = pod.as_ref().ok_or_else(|| format!("{name} has no interface"))?;
            let here = self.world.ipcache(&pod.ip.to_string()).map(|(identity, _)| identity).unwrap_or_default();
            if identities.get(&here).map(String::as_str) != Some(*app) {
                return Err(format!("{name} ({app}) has identity {here} of {identities:?}"));
            }
            let object = self.world.api.get("ciliumendpoints", &format!("shop/{name}")).unwrap_or_default();
            if object["status"]["identity"]["id"] != here {
                return Err(format!("{name} has identity {here}, and its CiliumEndpoint {object}"));
            }
        }
        let told = self.world.api.all("ciliumendpoints").len();
        if told == self.pods.len() { Ok(()) } else { Err(format!("{told} CiliumEndpoints")) }
    }

    /// What must hold when all has come to rest.
    async fn end(mut self) {
        self.world.api.set_mood(Mood::Well);
        let mut why = String::new();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(3600);
        while let Err(error) = self.others_know() {
            assert!(tokio::time::Instant::now() < deadline, "{error}");
            self.attach().await;
            settle().await;
            why = error;
        }
        tokio::time::sleep(Duration::from_secs(1200)).await;
        assert_eq!(self.others_know(), Ok(()), "after {why}");
        let (maps, view) = (self.world.maps(), self.view());
        self.world.kill().await;
        self.world.start_ready().await;
        settle().await;
        assert_eq!(self.world.maps(), maps, "a restart has something to mend");
        self.world.kill().await;
        self.world.forget_maps();
        self.world.start_ready().await;
        eventually("a fresh start to compute the same", async || self.view() == view).await;
        settle().await;
        assert_eq!(self.view(), view);
    }
}

#[tokio::test(start_paused = true)]
async fn after_all_moods_of_an_api_server_the_kernel_holds_what_a_fresh_start_computes() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = number("CILIUM_MOODS_ROUNDS").unwrap_or(60);
    let fresh = || RandomState::new().hash_one(0) >> 1;
    let seed = number("CILIUM_MOODS_SEED").unwrap_or_else(fresh);
    // Past the test harness, which swallows what a test prints that succeeds.
    writeln!(std::io::stderr(), "CILIUM_MOODS_SEED={seed} CILIUM_MOODS_ROUNDS={rounds}").unwrap();
    let mut story = Story::begin(seed).await;
    story.world.api.set_mood(Mood::Unsteady(seed));
    for _ in 0..rounds {
        story.change().await;
    }
    story.end().await;
}
