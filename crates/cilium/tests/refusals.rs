// SPDX-License-Identifier: Apache-2.0
//! The chart against the daemons that read what it writes: what they would refuse is refused when the chart is rendered, in their words. This stands here because
//! only the binary's crate sees both daemons. Needs Helm, which `make kube` builds.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use k8s::kube::ResourceExt as _;
use lab::product::repository;
use model::config::Group;
use serde_json::{Value, json};

const OTLP: &str = "hubble-export-otlp-endpoint";
const OTLP_LOGS: &str = "hubble-export-otlp-logs-endpoint";
const OTLP_CERT: &str = "hubble-export-otlp-cert-file";

type Keys = BTreeMap<String, String>;

/// Renders one template with values; an error is what Helm says.
fn rendered(template: &str, values: &Value) -> Result<Value, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.json");
    fs::write(&file, values.to_string()).unwrap();
    let program = repository("target/kube/bin/helm");
    let mut command = Command::new(&program);
    command.args(["template", "cilium"]).arg(repository("deploy/helm/cilium")).arg("--values").arg(&file);
    let output = command.args(["--show-only", template]).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; `make kube` builds it", program.display()));
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let objects = text.split("\n---\n").map(|object| serde_saphyr::from_str::<Value>(object).unwrap());
    Ok(objects.collect())
}

/// The keys that the chart writes for values.
fn keys(values: &Value) -> Result<Keys, String> {
    let objects = rendered("templates/configmap.yaml", values)?;
    Ok(serde_json::from_value(objects[0]["data"].clone()).unwrap())
}

fn with(overrides: &[(&str, &str)]) -> Value {
    let keys: Keys = overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    json!({ "extraConfig": keys })
}

/// The lines that name a key.
fn refusals(text: &str) -> BTreeSet<String> {
    text.lines().filter(|line| line.starts_with("  configuration key ")).map(str::to_owned).collect()
}

/// What the agent and the operator refuse.
fn refused_by_daemons(keys: &Keys) -> BTreeSet<String> {
    let agent = agent::Config::parse(keys).err().map(|error| error.to_string());
    let operator = operator::config::Config::parse(keys).err().map(|error| error.to_string());
    refusals(&[agent, operator].into_iter().flatten().collect::<Vec<_>>().join("\n"))
}

/// Renders the default keys with others over them and compares what is refused.
fn agree(overrides: &[(&str, &str)]) -> BTreeSet<String> {
    let mut wanted = keys(&json!({})).unwrap();
    wanted.extend(overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let by_daemons = refused_by_daemons(&wanted);
    let by_chart = keys(&with(overrides)).map_or_else(
        |said| refusals(&said),
        |written| {
            assert_eq!(written, wanted);
            BTreeSet::new()
        },
    );
    let chart_only: Vec<_> = by_chart.difference(&by_daemons).collect();
    let daemons_only: Vec<_> = by_daemons.difference(&by_chart).collect();
    assert!(
        chart_only.is_empty() && daemons_only.is_empty(),
        "of {overrides:?}\nthe chart alone refuses {chart_only:#?}\nthe daemons alone {daemons_only:#?}"
    );
    by_chart
}

#[test]
fn daemons_take_and_know_what_the_chart_writes_by_default() {
    let keys = keys(&json!({})).unwrap();
    assert_eq!(refused_by_daemons(&keys), BTreeSet::new());
    assert_eq!(agent::Config::parse(&keys).unwrap().unknown(), [""; 0]);
}

#[test]
fn a_value_that_a_daemon_refuses_is_refused_by_the_chart_in_the_same_words() {
    let keys = agent::keys().into_iter().chain(model::config::operator::Config::keys());
    let names: BTreeSet<&str> = keys.map(|key| key.name).collect();
    let probes = [
        "nonsense",
        "true",
        "TRUE",
        "0",
        "1",
        "+7",
        "-1",
        "007",
        "64",
        "101",
        "255",
        "256",
        "4095",
        "65535",
        "65536",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "1.5",
        ".5",
        "1e3",
        "0x10",
        "native",
        "kubernetes",
        "cluster-pool",
        "none",
        "medium",
        "crd",
        "veth",
        "default",
        "/run/x",
        "run/x",
        "5s",
        "1h30m",
        "1.5.2s",
        "5",
        "2µs",
        "1d",
        "-1s",
        ":4244",
        ":65536",
        "localhost:1",
        "127.0.0.1:1",
        "256.0.0.1:1",
        "[::1]:1",
        "::1:1",
        "10.0.0.0/8",
        "10.0.0.0/33",
        "10.0.0.256/8",
        "010.0.0.0/08",
        "127.00.0.1:1",
        "fd00::/064",
        "::ffff:10.0.0.1/120",
        "10.0.0.0",
        "10.0.0.0/8,10.1.0.0/33",
        "fd00::/104",
        "fd00::/129",
        "fd00:::/64",
        "1:2:3:4:5:6:7:8/128",
        "1:2:3:4:5:6:7:8:9/64",
        "::/0",
        "fd00::1/a",
        "https://otel:4318/a/b",
        "k8s:app !k8s:x",
        "!",
        "k8s:",
        "k8s:a[",
        "a( b",
    ];
    let mut refused = 0;
    for probe in probes {
        refused += agree(&names.iter().map(|name| (*name, probe)).collect::<Vec<_>>()).len();
    }
    assert!(refused > 1000, "only {refused} refusals of {} values of {} keys", probes.len(), names.len());
}

#[test]
fn values_that_do_not_go_together_are_refused_by_the_chart_in_the_daemons_words() {
    let native = ("routing-mode", "native");
    let (ipv4, ipv6) = (("ipv4-native-routing-cidr", "10.0.0.0/8"), ("ipv6-native-routing-cidr", "fd00::/64"));
    let v6 = [("enable-ipv6", "true"), ("cluster-pool-ipv6-cidr", "fd00::/104")];
    let pool = |prefix, size| [("cluster-pool-ipv4-cidr", prefix), ("cluster-pool-ipv4-mask-size", size)];
    let rows: &[(&[(&str, &str)], usize)] = &[
        (&[("enable-ipv4", "false")], 1),
        (&[("enable-ipv4", "false"), v6[0], v6[1]], 0),
        (&[v6[0]], 1),
        (&[native], 1),
        (&[native, ipv4], 0),
        (&[native, ("enable-ipv4-masquerade", "false")], 0),
        (&[native, ipv4, v6[0], v6[1]], 1),
        (&[native, v6[0], v6[1]], 2),
        (&[native, ipv4, ipv6, v6[0], v6[1]], 0),
        (&[native, ipv4, v6[0], v6[1], ("enable-ipv6-masquerade", "false")], 0),
        (&[native, ("ipv4-native-routing-cidr", "10.0.0.0")], 2),
        (&[native, ipv4, ("auto-direct-node-routes", "true")], 0),
        (&[("auto-direct-node-routes", "true")], 1),
        (&[("tunnel-protocol", "geneve")], 1),
        (&[native, ipv4, ("tunnel-protocol", "geneve")], 0),
        (&[("bpf-lb-mode", "dsr")], 1),
        (&[("bpf-lb-mode", "hybrid")], 1),
        (&[("bpf-lb-mode", "hybrid"), ("auto-direct-node-routes", "true")], 2),
        (&[native, ipv4, ("bpf-lb-mode", "dsr")], 0),
        (&[native, ipv4, ("bpf-lb-mode", "dsr"), ("bpf-lb-dsr-dispatch", "geneve")], 1),
        (&[("bpf-lb-mode-annotation", "true")], 0),
        (&pool("", "24"), 1),
        (&[("cluster-pool-ipv4-cidr", ""), ("ipam", "kubernetes")], 0),
        (&pool("10.0.0.0/8", "7"), 1),
        (&pool("10.0.0.0/8", "8"), 0),
        (&pool("10.0.0.0/8", "32"), 0),
        (&pool("10.0.0.0/8", "33"), 1),
        (&pool("10.0.0.0/8 172.16.0.0/12", "10"), 1),
        (&pool("10.0.0.0/8", "many"), 1),
        (&[v6[0], v6[1], ("cluster-pool-ipv6-mask-size", "100")], 1),
        (&[("default-lb-service-ipam", "nodeipam")], 1),
        (&[("default-lb-service-ipam", "nodeipam"), ("enable-node-ipam", "true")], 0),
        (&[("enable-envoy-config", "true")], 0),
        (&[("hubble-tls-cert-file", "")], 1),
        (&[("hubble-tls-cert-file", ""), ("hubble-tls-key-file", "")], 2),
        (&[("hubble-tls-cert-file", ""), ("hubble-disable-tls", "true")], 0),
        (&[("hubble-tls-cert-file", ""), ("hubble-listen-address", "")], 0),
        (&[(OTLP, "http://otel:4317"), (OTLP_CERT, "/tls.crt")], 2),
        (&[(OTLP_LOGS, "http://otel:4317"), (OTLP, "https://otel:4317"), (OTLP_CERT, "/tls.crt")], 2),
        (&[(OTLP, "https://otel")], 0),
        (&[(OTLP, "https://otel/otlp")], 1),
        (&[(OTLP_LOGS, "https://[fd00::1]/in/~me")], 1),
        (&[(OTLP_LOGS, "https://otel/otlp"), ("hubble-export-otlp-protocol", "http/protobuf")], 0),
    ];
    for (overrides, count) in rows {
        let refused = agree(overrides);
        assert_eq!(refused.len(), *count, "{overrides:?}: {refused:?}");
    }
}

#[test]
fn values_of_the_chart_lead_to_the_same_refusals() {
    for (values, line) in [
        (json!({"routingMode": "native"}), r#"ipv4-native-routing-cidr: "" is not enough in routing-mode: native"#),
        (
            json!({"routingMode": "native", "autoDirectNodeRoutes": true}),
            r#"ipv4-native-routing-cidr: "" is not enough"#,
        ),
        (
            json!({"autoDirectNodeRoutes": true}),
            r#"auto-direct-node-routes: "true" is not possible in routing-mode: tunnel"#,
        ),
        (
            json!({"loadBalancer": {"mode": "dsr"}}),
            r#"bpf-lb-mode: "dsr" is not possible in routing-mode: tunnel; it needs native"#,
        ),
        (json!({"cluster": {"id": 256}}), r#"cluster-id: "256" is not a number from 0 to 255"#),
        (json!({"cluster": {"id": 511}}), r#"cluster-id: "511" is not a number from 0 to 255"#),
        (json!({"ipv4": {"enabled": false}}), r#"enable-ipv4: "false" is not possible without enable-ipv6"#),
        (json!({"bpf": {"root": "bpf"}}), r#"bpf-root: "bpf" is not an absolute path"#),
        (json!({"hubble": {"eventBufferCapacity": "4096"}}), r#"hubble-event-buffer-capacity: "4096" is not one less"#),
        (json!({"operator": {"nodeGCInterval": "soon"}}), r#"nodes-gc-interval: "soon" is not a duration"#),
        (
            json!({"ipam": {"operator": {"clusterPoolIPv4PodCIDRList": []}}}),
            r#"cluster-pool-ipv4-cidr: "" is not enough"#,
        ),
    ] {
        let said = keys(&values).expect_err(&values.to_string());
        assert!(said.contains(&format!("\n  configuration key {line}")), "{values}: {said}");
    }
}

#[test]
fn large_numbers_of_a_file_of_values_are_written_out() {
    let keys = keys(&json!({
        "extraConfig": {"operator-k8s-client-burst": 2_000_000, "bpf-map-dynamic-size-ratio": 0.003},
        "k8sClientRateLimit": {"qps": 1_000_000, "burst": 3_000_000},
    }))
    .unwrap();
    let written = ["operator-k8s-client-burst", "bpf-map-dynamic-size-ratio", "k8s-client-qps", "k8s-client-burst"]
        .map(|key| &keys[key]);
    assert_eq!(written, ["2000000", "0.003", "1000000", "3000000"]);
}

#[test]
fn the_operator_may_change_the_definitions_that_it_registers_and_no_others() {
    let registered: BTreeSet<String> =
        k8s::crd::all().unwrap().iter().map(|definition| definition.name_any()).collect();
    let rules = |values: Value| -> Vec<Value> {
        let objects = rendered("templates/operator/rbac.yaml", &values).unwrap();
        let role = objects.as_array().unwrap().iter().find(|object| object["kind"] == "ClusterRole").unwrap().clone();
        let rules = role["rules"].as_array().unwrap().clone();
        rules.into_iter().filter(|rule| rule["resources"] == json!(["customresourcedefinitions"])).collect()
    };
    let named: Vec<Value> = rules(json!({})).into_iter().filter(|rule| rule["verbs"] != json!(["create"])).collect();
    assert_eq!(named.len(), 1, "{named:?}");
    let names: BTreeSet<String> = serde_json::from_value(named[0]["resourceNames"].clone()).unwrap();
    assert_eq!(names, registered);
    assert_eq!(rules(json!({"operator": {"skipCRDCreation": true}})), [Value::Null; 0]);
}
