// SPDX-License-Identifier: Apache-2.0
//! The chart, rendered without a cluster: whom flows on the network are served to, and values that are missing. Needs Helm, which `make kube` builds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use lab::{certs, product};

/// `helm template` with values.
fn helm(values: &[&str]) -> Output {
    render(&product::repository("deploy/helm/cilium"), values)
}

fn render(chart: &Path, values: &[&str]) -> Output {
    let program = product::repository("target/kube/bin/helm");
    let mut command = Command::new(&program);
    command.args(["template", "cilium", "--namespace=kube-system"]).arg(chart);
    command.args(values.iter().flat_map(|value| ["--set", value]));
    command.output().unwrap_or_else(|error| panic!("{}: {error}; `make kube` builds it", program.display()))
}

fn rendered(values: &[&str]) -> String {
    let output = helm(values);
    assert!(output.status.success(), "{values:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(values: &[&str]) -> String {
    let output = helm(values);
    assert!(!output.status.success(), "{values:?} is taken");
    String::from_utf8(output.stderr).unwrap()
}

fn base64(text: &str) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    BASE64_STANDARD.encode(text)
}

#[test]
fn by_default_the_chart_makes_an_authority_and_a_certificate_and_tells_agents_where_they_are() {
    let text = rendered(&[]);
    assert_eq!(text.matches("\nkind: Secret\n").count(), 2, "{text}");
    for part in [
        "  name: cilium-ca\n",
        "  name: hubble-server-certs\n",
        "type: kubernetes.io/tls\n",
        "  hubble-disable-tls: \"false\"\n",
        "  hubble-tls-cert-file: /var/lib/cilium/tls/hubble/server.crt\n",
        "  hubble-tls-key-file: /var/lib/cilium/tls/hubble/server.key\n",
        "  hubble-tls-client-ca-files: /var/lib/cilium/tls/hubble/client-ca.crt\n",
        "mountPath: /var/lib/cilium/tls/hubble, readOnly: true",
        "- { key: tls.crt, path: server.crt }",
        "- { key: tls.key, path: server.key }",
        "- { key: ca.crt, path: client-ca.crt }",
        "      port: 443\n",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert!(!text.contains("unknown-helm-values"), "a value of the chart itself is not in known-values.txt");
}

#[test]
fn without_tls_nothing_is_made_and_the_peer_service_says_so_by_its_port() {
    let text = rendered(&["hubble.tls.enabled=false", "hubble.tls.auto.method=cronJob"]);
    assert!(!text.contains("kind: Secret") && !text.contains("hubble-tls"), "{text}");
    assert!(text.contains("  hubble-disable-tls: \"true\"\n") && text.contains("      port: 80\n"), "{text}");
    let text = rendered(&["hubble.enabled=false"]);
    assert!(!text.contains("kind: Secret") && !text.contains("hubble-tls"), "{text}");
}

#[test]
fn a_secret_of_somebody_else_is_mounted_and_none_is_made() {
    for (values, name) in [
        (&["hubble.tls.server.existingSecret=mine"][..], "mine"),
        (&["hubble.tls.server.existingSecret=mine", "hubble.tls.auto.method=certmanager"], "mine"),
        (&["hubble.tls.auto.enabled=false"], "hubble-server-certs"),
    ] {
        let text = rendered(values);
        assert!(!text.contains("kind: Secret"), "{values:?}:\n{text}");
        let mounted = format!("              - secret:\n                  name: {name}\n");
        assert!(text.contains(&mounted) && text.contains("      port: 443\n"), "{values:?}:\n{text}");
    }
}

#[test]
fn what_the_chart_cannot_do_is_refused_with_what_to_do_instead() {
    let said = refused(&["hubble.tls.auto.method=certmanager"]);
    assert!(said.contains("needs hubble.tls.auto.certManagerIssuerRef.name"), "{said}");
    let said = refused(&["hubble.tls.auto.method=vault"]);
    assert!(said.contains("/hubble/tls/auto/method"), "{said}");
    let said = refused(&["hubble.tls.auto.enabled=false", "hubble.tls.server.cert=Zm9v"]);
    assert!(said.contains("hubble.tls.server.key") && said.contains("tls.ca.cert"), "{said}");
    let said = refused(&["tls.ca.key=Zm9v", "tls.ca.cert=Zm9v"]);
    assert!(said.contains("tls.ca.cert is not PEM in base64"), "{said}");
}

/// The documents of a kind.
fn of_kind<'a>(text: &'a str, kind: &str) -> Vec<&'a str> {
    let line = format!("\nkind: {kind}\n");
    text.split("\n---\n").filter(|document| format!("\n{document}").contains(&line)).collect()
}

#[test]
fn a_job_makes_the_certificates_that_somebody_would_miss_and_may_touch_no_other_secret() {
    let by_job = ["hubble.tls.auto.method=cronJob", "hubble.relay.enabled=true", "cluster.name=blue"];
    let text = rendered(&by_job);
    assert!(of_kind(&text, "Secret").is_empty(), "{text}");
    for part in [
        "    resources: [secrets]\n    verbs: [create]\n",
        "    resourceNames: [\"cilium-ca\",\"hubble-server-certs\",\"hubble-relay-client-certs\"]\n    verbs: [get, update]\n",
        "  schedule: \"0 0 1 */4 *\"\n",
        "command: [cilium-certgen]\n",
        "            - --ca-generate\n            - --ca-validity-duration=26280h\n",
        "commonName: \"*.blue.hubble-grpc.cilium.io\"\n",
        "validity: 8760h\n",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert_eq!((of_kind(&text, "Job").len(), of_kind(&text, "CronJob").len()), (1, 1), "{text}");
    let name =
        |text: &str| of_kind(text, "Job").concat().lines().find(|l| l.contains("name: hubble-")).map(str::to_owned);
    assert_eq!(name(&text), name(&rendered(&by_job)), "the same Job for the same values");
    let other = rendered(&[&by_job[..], &["hubble.tls.server.extraDnsNames={a.example.org}"]].concat());
    assert!(name(&other) != name(&text) && other.contains("\"a.example.org\""), "another Job makes other certificates");
    let once = rendered(&[&by_job[..], &["hubble.tls.auto.schedule="]].concat());
    assert_eq!((of_kind(&once, "Job").len(), of_kind(&once, "CronJob").len()), (1, 0), "{once}");

    let (authority, key) = certs::new_authority("given").unwrap();
    let given = [format!("tls.ca.cert={}", base64(&authority)), format!("tls.ca.key={}", base64(&key))];
    let text = rendered(&[&by_job[..], &given.each_ref().map(String::as_str)].concat());
    assert!(of_kind(&text, "Secret").len() == 1 && text.contains("  name: cilium-ca\n"), "{text}");
    assert!(!text.contains("--ca-generate"), "what was given stays:\n{text}");
    assert!(text.contains("    resourceNames: [cilium-ca]\n    verbs: [get]\n"), "{text}");
    for without in [&["hubble.tls.auto.enabled=false"], &["hubble.tls.enabled=false"], &["hubble.enabled=false"]] {
        let text = rendered(&[&by_job[..1], without].concat());
        assert!(!text.contains("hubble-generate-certs"), "{without:?}:\n{text}");
    }
}

#[test]
fn cert_manager_is_asked_for_the_certificates_by_the_issuer_that_is_named() {
    let text = rendered(&[
        "hubble.tls.auto.method=certmanager",
        "hubble.tls.auto.certManagerIssuerRef.name=mine",
        "hubble.tls.auto.certManagerIssuerRef.kind=ClusterIssuer",
        "hubble.tls.auto.certValidityDuration=90",
        "hubble.tls.server.extraIpAddresses={192.0.2.1}",
        "hubble.relay.enabled=true",
    ]);
    let asked = of_kind(&text, "Certificate");
    assert!(asked.len() == 2 && of_kind(&text, "Secret").is_empty() && !text.contains("certgen"), "{text}");
    for part in [
        "apiVersion: cert-manager.io/v1\n",
        "  issuerRef:\n    kind: ClusterIssuer\n    name: mine\n",
        "  secretName: hubble-server-certs\n  commonName: \"*.default.hubble-grpc.cilium.io\"\n",
        "  dnsNames: [\"*.default.hubble-grpc.cilium.io\"]\n  ipAddresses: [\"192.0.2.1\"]\n  duration: 2160h0m0s\n",
    ] {
        assert!(asked[0].contains(part), "{part} is missing in:\n{}", asked[0]);
    }
    assert!(asked[1].contains("secretName: hubble-relay-client-certs\n"), "{}", asked[1]);
}

#[test]
fn values_of_hubble_that_would_change_nothing_are_refused_by_name() {
    for (value, path) in [
        ("hubble.metrics.tls.server.mtls.useSecret=true", "/hubble/metrics/tls/server/mtls/useSecret"),
        ("hubble.metrics.tls.server.mtls.name=mine", "/hubble/metrics/tls/server/mtls/name"),
        ("hubble.metrics.tls.server.mtls.key=mine", "/hubble/metrics/tls/server/mtls/key"),
        ("hubble.ui.baseUrl=/hubble", "/hubble/ui/baseUrl"),
        ("hubble.ui.standalone.enabled=true", "/hubble/ui/standalone/enabled"),
    ] {
        let said = refused(&[value]);
        assert!(said.contains(path), "{path} is missing in: {said}");
    }
}

#[test]
fn a_collector_of_flows_is_told_to_agents_with_the_authority_to_trust() {
    let text = rendered(&["hubble.export.otlp.endpoint=https://otel:4317", "hubble.export.otlp.tls.caSecret=mine"]);
    for part in [
        "  hubble-export-otlp-endpoint: https://otel:4317\n",
        "  hubble-export-otlp-ca-file: /var/lib/cilium/tls/hubble-otlp/ca.crt\n",
        "mountPath: /var/lib/cilium/tls/hubble-otlp, readOnly: true",
        "            secretName: mine\n",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let shown = [
        "hubble.export.otlp.endpoint=https://otel:4318",
        "hubble.export.otlp.protocol=http/protobuf",
        "hubble.export.otlp.tls.clientSecret=own",
        "hubble.export.otlp.headersSecret=token",
    ];
    let text = rendered(&shown);
    for part in [
        "  hubble-export-otlp-protocol: http/protobuf\n",
        "  hubble-export-otlp-cert-file: /var/lib/cilium/tls/hubble-otlp-client/tls.crt\n",
        "  hubble-export-otlp-key-file: /var/lib/cilium/tls/hubble-otlp-client/tls.key\n",
        "mountPath: /var/lib/cilium/tls/hubble-otlp-client, readOnly: true",
        "            secretName: own\n",
        "  hubble-export-otlp-headers-path: /var/lib/cilium/hubble-otlp-headers\n",
        "mountPath: /var/lib/cilium/hubble-otlp-headers, readOnly: true",
        "            secretName: token\n",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let said = refused(&[&shown[1..], &["hubble.export.otlp.endpoint=http://otel:4318"]].concat());
    assert!(said.contains("hubble-export-otlp-cert-file") && said.contains("no https://"), "{said}");
    let own = ["hubble.export.otlp.logsEndpoint=https://otel/in", shown[1], shown[2], shown[3]];
    let text = rendered(&own);
    for part in ["hubble-export-otlp-logs-endpoint: https://otel/in\n", "hubble-otlp-client,", "hubble-otlp-headers,"] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let plain = rendered(&["hubble.export.otlp.endpoint=http://otel:4317"]);
    assert!(!plain.contains("hubble-otlp") && plain.contains("hubble-export-otlp-endpoint"), "{plain}");
    assert!(refused(&["hubble.export.otlp.endpoint=otel:4317"]).contains("hubble-export-otlp-endpoint"));
}

#[test]
fn a_relay_shows_agents_a_certificate_of_their_authority_and_serves_plain_text_unless_told_otherwise() {
    let text = rendered(&["hubble.relay.enabled=true", "cluster.name=blue"]);
    assert_eq!(text.matches("\nkind: Secret\n").count(), 3, "{text}");
    for part in [
        "  name: hubble-relay-client-certs\n",
        "    peer-service: \"hubble-peer.kube-system.svc.cluster.local.:443\"\n",
        "    cluster-name: \"blue\"\n",
        "    disable-client-tls: false\n",
        "    disable-server-tls: true\n",
        "            grpc: { port: 4222 }\n",
        "      port: 80\n",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let text = rendered(&["hubble.relay.enabled=true", "hubble.relay.tls.server.enabled=true"]);
    assert_eq!(text.matches("\nkind: Secret\n").count(), 4, "{text}");
    assert!(text.contains("disable-server-tls: false") && text.contains("name: hubble-relay-server-certs\n"), "{text}");
    let text = rendered(&["hubble.relay.enabled=true", "hubble.tls.enabled=false"]);
    assert!(!text.contains("kind: Secret") && text.contains(".svc.cluster.local.:80\""), "{text}");
    assert!(text.contains("disable-client-tls: true") && text.contains("disable-server-tls: true"), "{text}");
}

#[test]
fn metrics_of_flows_are_served_when_some_are_named() {
    let named = "hubble.metrics.enabled={drop,tcp:sourceContext=pod|ip;labelsContext=source_app\\,source_namespace}";
    let text = rendered(&[named]);
    for part in [
        "  hubble-metrics: drop tcp:sourceContext=pod|ip;labelsContext=source_app,source_namespace\n",
        "  hubble-metrics-server: :9965\n",
        "            - { name: hubble-metrics, containerPort: 9965, hostPort: 9965, protocol: TCP }\n",
        "  name: hubble-metrics\n",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert!(!rendered(&[]).contains("hubble-metrics"), "without any");
}

#[test]
fn flows_are_exported_as_the_values_say() {
    let text = rendered(&[
        "hubble.export.static.enabled=true",
        "hubble.export.static.fieldMask={time,source.pod_name}",
        "hubble.export.dynamic.enabled=true",
    ]);
    for part in [
        "  hubble-export-file-path: /var/run/cilium/hubble/events.log\n",
        "  hubble-export-fieldmask: time source.pod_name\n",
        "  hubble-flowlogs-config-path: /flowlog-config/flowlogs.yaml\n",
        "  name: cilium-flowlog-config\n",
        "      - filePath: /var/run/cilium/hubble/events.log\n",
        "{ name: flowlog-config, mountPath: /flowlog-config, readOnly: true }",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert!(!rendered(&[]).contains("hubble-export"), "without any");
}

#[test]
fn a_relay_that_nobody_would_answer_is_refused() {
    for values in [
        &["hubble.relay.enabled=true", "hubble.enabled=false"],
        &["hubble.relay.enabled=true", "hubble.listenAddress="],
    ] {
        assert!(refused(values).contains("hubble.relay.enabled needs hubble."), "{values:?}");
    }
    let given = ["hubble.relay.enabled=true", "hubble.tls.auto.enabled=false", "hubble.relay.tls.client.cert=Zm9v"];
    assert!(refused(&given).contains("hubble.relay.tls.client.key"), "a certificate without its key");
}

#[test]
fn given_certificates_and_authorities_are_used() {
    let (authority, key) = certs::new_authority("given").unwrap();
    let (authority, key) = (base64(&authority), base64(&key));
    let text = rendered(&[&format!("tls.ca.cert={authority}"), &format!("tls.ca.key={key}")]);
    assert_eq!(text.matches(&format!("  ca.crt: {authority}\n")).count(), 2, "in both Secrets:\n{text}");
    let text = rendered(&[
        "hubble.tls.auto.enabled=false",
        &format!("tls.ca.cert={authority}"),
        &format!("hubble.tls.server.cert={authority}"),
        &format!("hubble.tls.server.key={key}"),
    ]);
    assert_eq!(text.matches("\nkind: Secret\n").count(), 1, "{text}");
    for part in [format!("  ca.crt: {authority}\n"), format!("  tls.crt: {authority}\n"), format!("  tls.key: {key}\n")]
    {
        assert!(text.contains(&part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn the_values_their_schema_and_the_known_ones_agree_on_tls() {
    let chart = product::repository("deploy/helm/cilium");
    let known = fs::read_to_string(chart.join("files/known-values.txt")).unwrap();
    let schema = fs::read_to_string(chart.join("values.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    for value in known.lines().filter(|value| value.starts_with("hubble.tls.") || value.starts_with("tls.")) {
        let path: String = value.split('.').map(|part| format!("/properties/{part}")).collect();
        assert!(schema.pointer(&path).is_some(), "{value} is not in the schema");
    }
}

/// Every value of the schema: sections, and what has no values below.
fn values(schema: &serde_json::Value, path: &str, sections: &mut Vec<String>, leaves: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else { return leaves.push(path.to_owned()) };
    sections.extend(Some(path.to_owned()).filter(|path| !path.is_empty()));
    for (name, below) in properties {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        values(below, &path, sections, leaves);
    }
}

/// What is rendered, but for the certificates, which are made anew each time.
fn without_secrets(text: &str) -> String {
    let secret = |line: &&str| {
        ["  ca.crt: ", "  ca.key: ", "  tls.crt: ", "  tls.key: "].iter().any(|key| line.starts_with(key))
    };
    text.lines().filter(|line| !secret(line)).collect::<Vec<_>>().join("\n")
}

/// Null says there that pods may be placed anywhere.
const PLACEMENT: [&str; 5] =
    ["nodeSelector", "operator.affinity", "operator.nodeSelector", "operator.tolerations", "tolerations"];

#[test]
fn a_section_or_a_value_that_is_null_has_its_default() {
    let schema = fs::read_to_string(product::repository("deploy/helm/cilium/values.schema.json")).unwrap();
    let (mut sections, mut leaves) = (Vec::new(), Vec::new());
    values(&serde_json::from_str(&schema).unwrap(), "", &mut sections, &mut leaves);
    assert!(sections.len() >= 30 && leaves.len() > 100, "{sections:?} {leaves:?}");
    let defaults = without_secrets(&rendered(&[]));
    for section in &sections {
        let text = without_secrets(&rendered(&[&format!("{section}=null")]));
        assert_eq!(text, defaults, "{section}=null");
    }
    let nulls: Vec<String> =
        leaves.iter().filter(|leaf| !PLACEMENT.contains(&leaf.as_str())).map(|leaf| format!("{leaf}=null")).collect();
    let text = without_secrets(&rendered(&nulls.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(text, defaults, "each value null");
}

#[test]
fn placement_that_is_null_is_none() {
    let lines = |text: &str| -> BTreeSet<String> { text.lines().map(|line| line.trim().to_owned()).collect() };
    let nulls = PLACEMENT.map(|value| format!("{value}=null"));
    let text = rendered(&nulls.each_ref().map(String::as_str));
    let found = lines(&text);
    for key in ["nodeSelector:", "tolerations:", "affinity:"] {
        assert!(!found.contains(key) && lines(&rendered(&[])).contains(key), "{key} in:\n{text}");
    }
}

#[test]
fn values_of_the_first_release_are_completed_by_the_defaults() {
    let chart = Path::new(env!("CARGO_TARGET_TMPDIR")).join("first-release");
    let _ = fs::remove_dir_all(&chart);
    copy(&product::repository("deploy/helm/cilium"), &chart);
    // What `--reuse-values` does: the values of the old release stand where the chart's own would.
    fs::copy(product::repository("lab/tests/values/first-release.yaml"), chart.join("values.yaml")).unwrap();
    let output = render(&chart, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in
        ["  hubble-disable-tls: \"true\"\n", "  enable-health-checking: \"true\"\n", "  tunnel-direct: \"true\"\n"]
    {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let output = render(&chart, &["hubble.tls.enabled=true"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8(output.stdout).unwrap().contains("  name: hubble-server-certs\n"));
}

/// A folder with all that is in it; links become what they lead to.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn the_agent_may_look_at_its_daemon_set_only_where_it_cleans_up_after_it() {
    let text = rendered(&[]);
    assert!(!text.contains("resources: [daemonsets]") && !text.contains("preStop"), "{text}");
    let text = rendered(&["cni.uninstall=true"]);
    let rule = "    resources: [daemonsets]\n    resourceNames: [cilium]\n    verbs: [list, watch]\n";
    assert!(text.contains(rule) && text.contains("preStop"), "{text}");
}

#[test]
fn without_a_cluster_there_is_no_address_of_the_api_server_to_find() {
    let said = refused(&["k8sServiceHost=auto"]);
    assert!(said.contains("cluster-info") && said.contains("set k8sServiceHost and k8sServicePort"), "{said}");
}

#[test]
fn the_ui_asks_the_relay_as_that_wants_to_be_asked() {
    let ui = ["hubble.relay.enabled=true", "hubble.ui.enabled=true"];
    let text = rendered(&ui);
    assert_eq!(text.matches("\nkind: Secret\n").count(), 3, "{text}");
    for part in [
        "  name: hubble-ui\n",
        "          command: [hubble-ui]\n",
        "{ name: FLOWS_API_ADDR, value: \"hubble-relay:80\" }",
        "{ name: TLS_TO_RELAY_ENABLED, value: \"false\" }",
        "hubble-ui.kube-system.svc.cluster.local\" }",
        "{ name: http, containerPort: 8081, protocol: TCP }",
        "      port: 80\n      targetPort: http\n",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let text = rendered(&[&ui[..], &["hubble.relay.tls.server.enabled=true"]].concat());
    for part in [
        "{ name: FLOWS_API_ADDR, value: \"hubble-relay:443\" }",
        "{ name: TLS_TO_RELAY_ENABLED, value: \"true\" }",
        "{ name: TLS_RELAY_SERVER_NAME, value: ui.hubble-relay.cilium.io }",
        "  name: hubble-ui-client-certs\n",
        "{ key: ca.crt, path: hubble-relay-ca.crt }",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let named = ["hubble.ui.ingress.enabled=true", "hubble.ui.ingress.hosts={flows.example.org}"];
    let text = rendered(&[&ui[..], &named].concat());
    assert!(
        text.contains(".svc.cluster.local,flows.example.org\" }") && text.contains("host: \"flows.example.org\""),
        "{text}"
    );
    assert!(!rendered(&[]).contains("hubble-ui"), "unless it is asked for");
}

#[test]
fn a_ui_that_could_not_work_is_refused() {
    assert!(refused(&["hubble.ui.enabled=true"]).contains("hubble.ui.enabled needs hubble.relay.enabled"));
    let nameless = ["hubble.relay.enabled=true", "hubble.ui.enabled=true", "hubble.ui.ingress.enabled=true"];
    assert!(refused(&nameless).contains("needs hubble.ui.ingress.hosts"));
}

#[test]
fn metrics_of_flows_have_a_certificate_of_their_own_with_tls() {
    let encrypted = ["hubble.metrics.enabled={flow}", "hubble.metrics.tls.enabled=true", "cluster.name=blue"];
    let text = rendered(&encrypted);
    for part in [
        "  name: hubble-metrics-server-certs\n",
        "  hubble-metrics-server-enable-tls: \"true\"\n",
        "  hubble-metrics-server-tls-cert-file: /var/lib/cilium/tls/hubble-metrics/server.crt\n",
        "{ name: hubble-metrics-tls, mountPath: /var/lib/cilium/tls/hubble-metrics, readOnly: true }",
        "    prometheus.io/scheme: https\n",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert!(!text.contains("hubble-metrics-server-tls-client-ca-files"), "{text}");
    let mutual = [&encrypted[..], &["hubble.metrics.tls.server.mtls.enabled=true"]].concat();
    assert!(rendered(&mutual).contains("  hubble-metrics-server-tls-client-ca-files: /var/lib"));
    let without = [&encrypted[..], &["hubble.tls.enabled=false"]].concat();
    assert!(refused(&without).contains("hubble.metrics.tls.enabled needs hubble.tls.enabled"));
    let own = [&without[..], &["hubble.metrics.tls.server.existingSecret=mine"]].concat();
    assert!(rendered(&own).contains("name: mine\n"));
    assert!(!rendered(&["hubble.metrics.tls.enabled=true"]).contains("hubble-metrics"), "without metrics");
}

#[test]
fn dashboards_are_made_where_and_as_the_values_say() {
    assert!(!rendered(&[]).contains("grafana_dashboard"));
    let text = rendered(&[
        "dashboards.enabled=true",
        "dashboards.namespace=monitoring",
        "operator.dashboards.enabled=true",
        "hubble.metrics.dashboards.enabled=true",
        "hubble.metrics.dashboards.label=mine",
        "hubble.metrics.dashboards.labelValue=yes",
    ]);
    for part in [
        "  name: cilium-dashboard\n  namespace: monitoring\n",
        "    grafana_dashboard: \"1\"\n",
        "  name: cilium-operator-dashboard\n  namespace: kube-system\n",
        "    mine: \"yes\"\n",
        "  hubble-dashboard.json: \"{",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}
