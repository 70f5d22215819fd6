// SPDX-License-Identifier: Apache-2.0
//! Tests of who announces what where.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::{ingest_policy, ingest_service};
use model::DeviceMode;
use serde_json::{Value, json};
use statedb::Row;

/// What there is in a cluster, as one node sees it.
struct World {
    policies: Vec<Value>,
    services: Vec<Value>,
    endpoints: Vec<(&'static str, bool, bool)>,
    /// Labels of this node.
    labels: Vec<(&'static str, &'static str)>,
    devices: Vec<Device>,
    /// The label of the nodes that serve, if not all do.
    served_by: Option<&'static str>,
}

fn device(index: u32, name: &str) -> Device {
    let mode = DeviceMode::L2(Mac([2, 0, 0, 0, 0, u8::try_from(index).unwrap()]));
    Device { name: name.to_owned(), index, mtu: 1500, mode, running: true, ipv4: None, ipv6: None, selected: true }
}

impl Default for World {
    fn default() -> Self {
        Self {
            policies: vec![json!({"loadBalancerIPs": true})],
            services: vec![service("web", 1, &["192.0.2.240"], json!({}))],
            endpoints: Vec::new(),
            labels: Vec::new(),
            devices: vec![device(2, "eth0")],
            served_by: None,
        }
    }
}

/// A Service `shop/NAME`, made in that second.
fn service(name: &str, created: i64, ips: &[&str], mut spec: Value) -> Value {
    spec["type"] = json!("LoadBalancer");
    let ingress: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let created = Timestamp::from_second(created).unwrap().to_string();
    json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}, "creationTimestamp": created},
        "spec": spec, "status": {"loadBalancer": {"ingress": ingress}},
    })
}

fn name(text: &str) -> ServiceName {
    ServiceName::new("shop", text)
}

fn node(name: &str, local: bool, labels: &[(&str, &str)], ip: &str) -> Node {
    Node {
        name: name.to_owned(),
        cluster: "default".to_owned(),
        internal_ips: vec![ip.parse().unwrap()],
        external_ips: Vec::new(),
        cilium_internal_ips: Vec::new(),
        health_ips: Vec::new(),
        pod_cidrs: Vec::new(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        identity: model::reserved::REMOTE_NODE,
        local,
    }
}

fn table<R: Row>(rows: impl IntoIterator<Item = R>) -> Snapshot<R> {
    let (mut writer, reader) = statedb::table("test");
    rows.into_iter().for_each(|row| writer.insert(row));
    writer.mark_initialized();
    reader.snapshot()
}

impl World {
    /// `LEASE: ADDRESS on DEVICE`, one for each place.
    fn places(&self) -> Vec<String> {
        let line = |(lease, places): (&String, &BTreeSet<Place>)| -> Vec<String> {
            places.iter().map(|place| format!("{lease}: {} on {}", place.address, place.device)).collect()
        };
        self.selected().places.iter().flat_map(line).collect()
    }

    fn selected(&self) -> Selected {
        let policies = self.policies.iter().enumerate().map(|(n, spec)| {
            let object = json!({"metadata": {"name": format!("p{n}")}, "spec": spec});
            ingest_policy(&serde_json::from_value(object).unwrap()).unwrap()
        });
        let services = self.services.iter().map(|object| {
            let object = serde_json::from_value(object.clone()).unwrap();
            let row = ingest_service(&object).unwrap().unwrap();
            Service { nodes: k8s::selector::parse(self.served_by.unwrap_or_default()).unwrap(), ..row }
        });
        let endpoints = self.endpoints.iter().map(|(service, here, placed)| Endpoints {
            service: name(service),
            here: *here,
            placed: *placed,
        });
        let view = View {
            policies: table(policies),
            services: table(services),
            endpoints: table(endpoints),
            nodes: table([node("n1", true, &self.labels, "192.0.2.11"), node("n2", false, &[], "192.0.2.12")]),
            devices: table(self.devices.clone()),
        };
        select(&view, |address| address.is_ipv4())
    }
}

const WEB: &str = "cilium-l2announce-shop-web: 192.0.2.240 on eth0";
const NOTHING: [&str; 0] = [];

#[test]
fn a_policy_announces_the_kinds_of_addresses_that_it_names_and_without_policy_there_is_nothing() {
    let external = service("web", 1, &["192.0.2.240"], json!({"externalIPs": ["192.0.2.7"]}));
    let of = |policies: Vec<Value>| World { policies, services: vec![external.clone()], ..World::default() }.places();
    let seven = "cilium-l2announce-shop-web: 192.0.2.7 on eth0";
    assert_eq!(of(vec![]), NOTHING);
    assert_eq!(of(vec![json!({})]), NOTHING);
    assert_eq!(of(vec![json!({"loadBalancerIPs": true})]), [WEB]);
    assert_eq!(of(vec![json!({"externalIPs": true})]), [seven]);
    assert_eq!(of(vec![json!({"externalIPs": true}), json!({"loadBalancerIPs": true})]), [seven, WEB]);
    assert_eq!(of(vec![json!({"loadBalancerIPs": true, "interfaces": ["["]})]), NOTHING, "it is at fault");
}

#[test]
fn services_and_nodes_are_selected_by_labels_and_services_by_their_names_too() {
    let of = |service: Value, node: Value, labels: &[(&'static str, &'static str)]| {
        let policy = json!({"loadBalancerIPs": true, "serviceSelector": service, "nodeSelector": node});
        World { policies: vec![policy], labels: labels.to_vec(), ..World::default() }.places() == [WEB]
    };
    let named = |key: &str, value: &str| json!({"matchLabels": {key: value}});
    assert!(of(named("app", "web"), json!({}), &[]));
    assert!(!of(named("app", "other"), json!({}), &[]));
    assert!(of(named("io.kubernetes.service.namespace", "shop"), json!({}), &[]));
    assert!(!of(named("io.kubernetes.service.name", "other"), json!({}), &[]));
    let edge = json!({"matchExpressions": [{"key": "edge", "operator": "Exists"}]});
    assert!(of(json!({}), edge.clone(), &[("edge", "")]));
    assert!(!of(json!({}), edge, &[]));
}

#[test]
fn devices_are_native_named_and_have_a_carrier() {
    let devices = || vec![device(2, "eth0"), device(3, "eth1"), Device { selected: false, ..device(4, "docker0") }];
    let of = |names: &[&str], devices: Vec<Device>| {
        let policy = json!({"loadBalancerIPs": true, "interfaces": names});
        World { policies: vec![policy], devices, ..World::default() }.places().len()
    };
    assert_eq!(of(&[], devices()), 2);
    assert_eq!(of(&["^eth1$"], devices()), 1);
    assert_eq!(of(&["docker"], devices()), 0);
    let without_carrier = |n: usize| {
        let mut devices = devices();
        devices[n].running = false;
        devices
    };
    assert_eq!(of(&[], without_carrier(0)), 1);
    let down = |names: &[&str], devices: Vec<Device>| {
        let policy = json!({"loadBalancerIPs": true, "interfaces": names});
        let down = World { policies: vec![policy], devices, ..World::default() }.selected().down;
        down.into_iter().map(|(lease, names)| (lease, names.into_iter().collect::<Vec<_>>())).collect::<Vec<_>>()
    };
    assert_eq!(down(&[], devices()), []);
    let lease = "cilium-l2announce-shop-web".to_owned();
    assert_eq!(down(&[], without_carrier(0)), [(lease, vec!["eth0".to_owned()])], "on which it is to be announced");
    assert_eq!(down(&["^eth1$"], without_carrier(0)), []);
    assert_eq!(down(&["^eth1$"], without_carrier(1)), [], "this node is no candidate");
    assert_eq!(down(&[], without_carrier(2)), []);
    assert_eq!(of(&["^eth1$"], without_carrier(1)), 0, "this node is no candidate");
    assert_eq!(of(&[], vec![Device { mode: DeviceMode::L3, ..device(2, "wg0") }]), 0);
}

#[test]
fn a_local_service_is_announced_where_its_endpoints_are_and_one_without_pods_everywhere() {
    let of = |selector: Value, endpoints: Option<(bool, bool)>| {
        let spec = json!({"externalTrafficPolicy": "Local", "selector": selector});
        let endpoints = endpoints.map(|(here, placed)| ("web", here, placed));
        let services = vec![service("web", 1, &["192.0.2.240"], spec)];
        World { services, endpoints: endpoints.into_iter().collect(), ..World::default() }.places() == [WEB]
    };
    let pods = || json!({"app": "web"});
    assert!(of(pods(), Some((true, true))));
    assert!(!of(pods(), Some((false, true))));
    assert!(!of(pods(), None), "all its pods are gone");
    // A Gateway's: no selector, and an endpoint that stands for the listeners of all nodes.
    assert!(of(Value::Null, Some((false, false))));
    assert!(of(Value::Null, None), "its endpoint is not written yet");
    assert!(!of(Value::Null, Some((false, true))), "somebody writes down on which nodes its endpoints are");
}

#[test]
fn a_service_is_announced_by_nodes_that_serve_it() {
    let of = |labels: &[(&'static str, &'static str)]| {
        World { served_by: Some("edge"), labels: labels.to_vec(), ..World::default() }.places()
    };
    assert_eq!(of(&[("edge", "")]), [WEB]);
    assert_eq!(of(&[]), NOTHING);
}

#[test]
fn whoever_names_the_address_of_anothers_load_balancer_does_not_lead_it_however_old_its_service_is() {
    let thief = service("a-thief", 1, &[], json!({"externalIPs": ["192.0.2.240"], "externalTrafficPolicy": "Local"}));
    let web = service("web", 2, &["192.0.2.240"], json!({}));
    let policies = vec![json!({"loadBalancerIPs": true, "externalIPs": true})];
    let world = World { policies, services: vec![thief.clone(), web], ..World::default() };
    assert_eq!(world.places(), [WEB]);
    let open = service("a-thief", 1, &[], json!({"externalIPs": ["192.0.2.240"]}));
    assert_eq!(
        World { services: vec![open], ..world }.places(),
        ["cilium-l2announce-shop-a-thief: 192.0.2.240 on eth0"]
    );
}

#[test]
fn a_shared_address_goes_with_the_oldest_of_its_services() {
    let (old, new) =
        (service("z", 1, &["192.0.2.240"], json!({})), service("a", 2, &["192.0.2.240", "192.0.2.241"], json!({})));
    let services =
        |all: &[&Value]| World { services: all.iter().copied().cloned().collect(), ..World::default() }.places();
    let [z, a, own] = ["z: 192.0.2.240", "a: 192.0.2.240", "a: 192.0.2.241"]
        .map(|text| format!("cilium-l2announce-shop-{text} on eth0"));
    assert_eq!(services(&[&old, &new]), [own.clone(), z]);
    assert_eq!(services(&[&new]), [a, own]);
    // Whether this node may announce for the oldest does not matter: another may.
    let world = World {
        policies: vec![
            json!({"loadBalancerIPs": true, "serviceSelector": {"matchLabels": {"app": "z"}}, "nodeSelector": {"matchLabels": {"edge": "yes"}}}),
            json!({"loadBalancerIPs": true, "serviceSelector": {"matchLabels": {"app": "a"}}}),
        ],
        services: vec![old, service("a", 2, &["192.0.2.240"], json!({}))],
        ..World::default()
    };
    assert_eq!(world.places(), NOTHING);
}

#[test]
fn an_address_of_a_node_or_of_a_family_that_is_off_is_not_announced() {
    for address in ["192.0.2.11", "192.0.2.12", "2001:db8::f0"] {
        let services = vec![service("web", 1, &[address], json!({}))];
        assert_eq!(World { services, ..World::default() }.places(), NOTHING, "{address}");
    }
}

#[test]
fn no_two_services_share_a_lease_and_the_older_keeps_the_plain_name() {
    let in_namespace = |namespace: &str, name: &str, created, ip: &str| {
        let mut service = service(name, created, &[ip], json!({}));
        service["metadata"]["namespace"] = json!(namespace);
        service
    };
    let older = in_namespace("a-b", "c", 1, "192.0.2.1");
    let younger = in_namespace("a", "b-c", 2, "192.0.2.2");
    let of = |services: Vec<Value>| World { services, ..World::default() }.places();
    let plain = ["cilium-l2announce-a-b-c: 192.0.2.1 on eth0", "cilium-l2announce-a-b-c: 192.0.2.2 on eth0"];
    assert_eq!(of(vec![older.clone()]), [plain[0]]);
    assert_eq!(of(vec![younger.clone()]), [plain[1]]);
    let both = of(vec![older, younger]);
    assert_eq!(both[0], plain[0]);
    let (lease, place) = both[1].split_once(": ").unwrap();
    assert_eq!(place, "192.0.2.2 on eth0");
    let suffix = lease.strip_prefix("cilium-l2announce-a-b-c.").unwrap();
    assert!(suffix.len() == 8 && suffix.bytes().all(|byte| byte.is_ascii_hexdigit()), "{suffix}");
}
