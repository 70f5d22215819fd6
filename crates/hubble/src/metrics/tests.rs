// SPDX-License-Identifier: Apache-2.0
//! Flows in, metrics out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::{MOST, Metrics, Plugins, dynamic, follow, of_all_flows};
use crate::fixture;
use crate::proto::flow::layer7::Record;
use crate::proto::flow::{
    Dns, Endpoint, Flow, FlowType, Http, L7FlowType, Layer7, LostEvent, LostEventSource, TraceContext, TraceParent,
    TrafficDirection, Verdict,
};
use crate::server::Problems;
use model::config::{Key, Reader};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const KEY: Key<Plugins> = Key::new("hubble-metrics", "Metrics");

fn plugins(text: &str) -> Plugins {
    let values = BTreeMap::from([(KEY.name.to_owned(), text.to_owned())]);
    let mut reader = Reader::new(&values);
    let plugins = reader.get(&KEY);
    reader.finish(plugins).unwrap()
}

/// The samples of the page, without those of zero series.
fn counted(plugins: Plugins, flows: &[Flow]) -> Vec<String> {
    let metrics = Metrics::new(of_all_flows(&plugins), MOST);
    flows.iter().for_each(|flow| metrics.count(flow));
    samples(&metrics)
}

fn samples(metrics: &Metrics) -> Vec<String> {
    metrics
        .render(false)
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("_bucket"))
        .map(str::to_owned)
        .collect()
}

/// A packet that both policies let through, and one that is refused.
fn flows() -> Vec<Flow> {
    let decoder = fixture::decoder();
    let events = [fixture::allowed_syn(), fixture::denied_syn()];
    events.iter().flat_map(|event| decoder.decode(1, &fixture::record(*event))).collect()
}

#[test]
fn a_packet_counts_once_and_each_verdict_of_a_policy_too() {
    let text = counted(plugins("drop flow tcp port-distribution policy"), &flows()).join("\n");
    for line in [
        "hubble_drop_total{reason=\"Policy denied\",protocol=\"TCP\"} 1",
        "hubble_flows_processed_total{type=\"Trace\",subtype=\"to-overlay\",verdict=\"FORWARDED\"} 1",
        "hubble_flows_processed_total{type=\"Drop\",subtype=\"\",verdict=\"DROPPED\"} 1",
        "hubble_flows_processed_total{type=\"PolicyVerdict\",subtype=\"\",verdict=\"FORWARDED\"} 2",
        "hubble_tcp_flags_total{flag=\"SYN\",family=\"IPv4\"} 1",
        "hubble_port_distribution_total{protocol=\"TCP\",port=\"5432\"} 1",
        "hubble_policy_verdicts_total{direction=\"egress\",match=\"l3-only\",action=\"forwarded\"} 1",
        "hubble_policy_verdicts_total{direction=\"ingress\",match=\"none\",action=\"dropped\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
    }
}

#[test]
fn contexts_name_the_sides_by_the_first_alternative_that_says_something() {
    let all = "drop:sourceContext=workload|pod;destinationContext=pod;labelsContext=source_namespace,destination_workload_kind,traffic_direction";
    let want = "hubble_drop_total{reason=\"Policy denied\",protocol=\"TCP\",source=\"shop/db-0\",destination=\"shop/web-1\",\
                source_namespace=\"shop\",destination_workload_kind=\"Deployment\",traffic_direction=\"ingress\"} 1";
    assert_eq!(counted(plugins(all), &flows()), [want]);
    let by_direction = "drop:sourceEgressContext=pod;destinationIngressContext=app|identity";
    let want = "hubble_drop_total{reason=\"Policy denied\",protocol=\"TCP\",source=\"\",destination=\"web\"} 1";
    assert_eq!(counted(plugins(by_direction), &flows()), [want]);
}

#[test]
fn only_what_leaves_the_cluster_counts_as_to_the_world() {
    let world = |mut flow: Flow| {
        flow.destination = Some(Endpoint { labels: vec!["reserved:world".to_owned()], ..Endpoint::default() });
        flow
    };
    let all: Vec<_> = flows().into_iter().map(world).chain(flows()).collect();
    let want = [
        "hubble_flows_to_world_total{protocol=\"TCP\",verdict=\"DROPPED\",port=\"80\"} 1",
        "hubble_flows_to_world_total{protocol=\"TCP\",verdict=\"FORWARDED\",port=\"5432\"} 1",
    ];
    let mut found = counted(plugins("flows-to-world:port;syn-only"), &all);
    found.sort_unstable();
    assert_eq!(found, want);
}

#[test]
fn application_flows_are_counted_by_what_they_asked_for() {
    let flow = |l7: L7FlowType, record: Record| Flow {
        r#type: FlowType::L7.into(),
        l7: Some(Layer7 { r#type: l7.into(), latency_ns: 2_000_000, record: Some(record) }),
        ..Flow::default()
    };
    let dns = Dns {
        query: "a.example.".to_owned(),
        qtypes: vec!["A".to_owned()],
        rrtypes: vec!["A".to_owned()],
        ips: vec!["192.0.2.1".to_owned()],
        rcode: 3,
        ..Dns::default()
    };
    let http = Http { code: 404, method: "GET".to_owned(), protocol: "HTTP/1.1".to_owned(), ..Http::default() };
    let all = [flow(L7FlowType::Response, Record::Dns(dns)), flow(L7FlowType::Response, Record::Http(http))];
    let text = counted(plugins("dns:query httpV2"), &all).join("\n");
    for line in [
        "hubble_dns_responses_total{rcode=\"Non-Existent Domain\",qtypes=\"A\",ips_returned=\"1\",query=\"a.example.\"} 1",
        "hubble_dns_response_types_total{type=\"A\",qtypes=\"A\",query=\"a.example.\"} 1",
        "hubble_http_requests_total{method=\"GET\",protocol=\"HTTP/1.1\",status=\"404\",reporter=\"unknown\"} 1",
        "hubble_http_request_duration_seconds_count{method=\"GET\",reporter=\"unknown\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
    }
}

#[test]
fn requests_are_counted_beside_their_packets_and_by_methods_that_are_known() {
    let flow = |reply: bool, method: &str| Flow {
        is_reply: Some(reply),
        traffic_direction: if reply { TrafficDirection::Ingress } else { TrafficDirection::Egress }.into(),
        destination: Some(Endpoint { labels: vec!["reserved:world".to_owned()], ..Endpoint::default() }),
        verdict: Verdict::Forwarded.into(),
        r#type: FlowType::L7.into(),
        l7: Some(Layer7 {
            r#type: if reply { L7FlowType::Response } else { L7FlowType::Request }.into(),
            latency_ns: 2_000_000,
            record: Some(Record::Http(Http {
                code: if reply { 200 } else { 0 },
                method: method.to_owned(),
                protocol: "HTTP/2.0".to_owned(),
                ..Http::default()
            })),
        }),
        l4: fixture::decoder().decode(1, &fixture::record(fixture::allowed_syn())).remove(0).l4,
        ..Flow::default()
    };
    // Anybody may send any word, and would fill all series with them.
    let all: Vec<_> = ["GET", "A1", "A2"].into_iter().flat_map(|m| [flow(false, m), flow(true, m)]).collect();
    let text = counted(plugins("http tcp port-distribution flows-to-world flow"), &all).join("\n");
    for line in [
        "hubble_http_requests_total{method=\"GET\",protocol=\"HTTP/2.0\",reporter=\"client\"} 1",
        "hubble_http_requests_total{method=\"_OTHER\",protocol=\"HTTP/2.0\",reporter=\"client\"} 2",
        "hubble_http_responses_total{method=\"_OTHER\",status=\"200\",reporter=\"client\"} 2",
        "hubble_http_request_duration_seconds_sum{method=\"GET\",reporter=\"client\"} 0.002",
        "hubble_flows_processed_total{type=\"L7\",subtype=\"HTTP\",verdict=\"FORWARDED\"} 6",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
    }
    assert!(!text.contains("tcp_flags") && !text.contains("port_distribution") && !text.contains("to_world"), "{text}");
}

#[test]
fn durations_name_a_trace_as_an_example_where_asked_and_only_to_who_knows_examples() {
    let response = |trace: &str| Flow {
        r#type: FlowType::L7.into(),
        trace_context: Some(TraceContext { parent: Some(TraceParent { trace_id: trace.to_owned() }) }),
        // What nobody may take for an example.
        source: Some(Endpoint { labels: vec!["k8s:a= # {traceID=\"b\"} 1".to_owned()], ..Endpoint::default() }),
        l7: Some(Layer7 {
            r#type: L7FlowType::Response.into(),
            latency_ns: 2_000_000,
            record: Some(Record::Http(Http { code: 200, method: "GET".to_owned(), ..Http::default() })),
        }),
        ..Flow::default()
    };
    let page = |options: &str, flow: &Flow, exemplars: bool| {
        let metrics = Metrics::new(of_all_flows(&plugins(&format!("httpV2:sourceContext=identity{options}"))), MOST);
        metrics.count(flow);
        metrics.render(exemplars)
    };
    let (good, bad) = (response("0af7651916cd43dd8448eb211c80319c"), response("\"} 1"));
    let example = "} 1 # {traceID=\"0af7651916cd43dd8448eb211c80319c\"} 0.002";
    let with = page(";exemplars=true", &good, true);
    let bucket = |line: &&str| line.starts_with("hubble_http_request_duration_seconds_bucket{le=\"0.005\"");
    assert!(with.lines().find(bucket).unwrap().ends_with(example), "{with}");
    let without = with.replace(&example["} 1".len()..], "");
    assert!(without.ends_with("# EOF\n") && without.len() < with.len(), "{with}");
    for (options, flow, exemplars) in [
        (";exemplars=true", &good, false),
        (";exemplars=false", &good, true),
        ("", &good, true),
        (";exemplars=true", &bad, true),
    ] {
        assert_eq!(page(options, flow, exemplars), without, "{options} {exemplars}");
    }
}

#[test]
fn a_label_that_is_asked_for_twice_is_there_once() {
    let text = counted(plugins("drop:labelsContext=source_pod,source_pod;labelsContext=source_pod"), &flows());
    assert_eq!(text, ["hubble_drop_total{reason=\"Policy denied\",protocol=\"TCP\",source_pod=\"db-0\"} 1"]);
}

#[test]
fn a_metric_has_so_many_series_and_says_what_it_left_out() {
    let metrics = Metrics::new(of_all_flows(&plugins("drop:sourceContext=ip")), 2);
    let denied = flows().into_iter().next_back().unwrap();
    for last in [1, 2, 3, 3, 1] {
        let mut flow = denied.clone();
        flow.ip.as_mut().unwrap().source = format!("192.0.2.{last}");
        metrics.count(&flow);
    }
    let text = samples(&metrics).join("\n");
    assert_eq!(text.matches("hubble_drop_total{").count(), 2, "{text}");
    assert!(text.contains("source=\"192.0.2.1\"} 2"), "{text}");
    assert!(text.contains("hubble_metrics_samples_left_out_total{metric=\"hubble_drop\"} 2"), "{text}");
}

#[test]
fn series_of_pods_that_are_gone_make_room_after_two_looks() {
    let metrics = Metrics::new(of_all_flows(&plugins("drop:sourceContext=pod|ip")), 2);
    let denied = flows().into_iter().next_back().unwrap();
    let mut of_nobody = denied.clone();
    *of_nobody.source.as_mut().unwrap() = Endpoint::default();
    metrics.count(&denied);
    metrics.count(&of_nobody);
    let shown = || samples(&metrics).iter().filter(|line| line.starts_with("hubble_drop_total{")).count();
    metrics.forget_pods(|pod| pod.to_string() == "shop/db-0");
    metrics.forget_pods(|_| false);
    // It was back in between.
    metrics.forget_pods(|_| true);
    metrics.forget_pods(|_| false);
    assert_eq!(shown(), 2);
    metrics.forget_pods(|_| false);
    assert_eq!(shown(), 1);
    let mut next = denied;
    next.source.as_mut().unwrap().pod_name = "db-1".to_owned();
    metrics.count(&next);
    assert_eq!(shown(), 2, "there is room again");
}

#[test]
fn labels_that_are_too_long_for_a_metric_are_left_out_and_none_can_end_a_line() {
    let metrics = Metrics::new(of_all_flows(&plugins("drop:sourceContext=identity")), MOST);
    let mut denied = flows().into_iter().next_back().unwrap();
    for n in 0..10 {
        denied.source.as_mut().unwrap().labels = vec![format!("k8s:a{n}={}", "x".repeat(1 << 20))];
        metrics.count(&denied);
    }
    let text = samples(&metrics).join("\n");
    assert!(text.len() < 9 << 20, "{} bytes", text.len());
    assert!(text.contains("hubble_metrics_samples_left_out_total{metric=\"hubble_drop\"} 3"));
    denied.source.as_mut().unwrap().labels = vec!["a\"} 1\nhubble_evil 7\\".to_owned()];
    metrics.count(&denied);
    assert!(!metrics.render(false).lines().any(|line| line.starts_with("hubble_evil")));
}

#[test]
fn lost_events_are_counted_by_where_they_were_lost() {
    let metrics = Metrics::new(of_all_flows(&plugins("drop")), MOST);
    for (source, num_events_lost) in [(LostEventSource::HubbleRingBuffer, 3), (LostEventSource::PerfEventRingBuffer, 4)]
    {
        metrics.count_lost(&LostEvent { source: source.into(), num_events_lost, ..LostEvent::default() });
    }
    let mut lost = samples(&metrics);
    lost.sort_unstable();
    let want = [
        "hubble_lost_events_total{source=\"hubble_ring_buffer\"} 3",
        "hubble_lost_events_total{source=\"perf_event_ring_buffer\"} 4",
    ];
    assert_eq!(lost, want);
}

#[test]
fn listed_metrics_count_the_flows_of_their_filters_with_their_labels() {
    let listed = r#"
metrics:
  - name: drop
    contextOptions:
      - {name: sourceContext, values: [pod, ip]}
      - {name: labelsContext, values: [source_namespace, traffic_direction]}
    includeFilters: [{verdict: [DROPPED]}]
  - name: tcp
    excludeFilters: [{verdict: [FORWARDED]}]
"#;
    let metrics = Metrics::new(dynamic::parse(listed, &plugins("flow")).unwrap(), MOST);
    flows().iter().for_each(|flow| metrics.count(flow));
    let samples = samples(&metrics);
    let drops = "hubble_drop_total{";
    let drop = samples.iter().find(|line| line.starts_with(drops)).unwrap();
    for part in ["source=\"shop/db-0\"", "source_namespace=\"shop\"", "traffic_direction=\"ingress\""] {
        assert!(drop.contains(part), "{part} is missing in {drop}");
    }
    // Without its filter it would count the flow that was let through.
    assert!(!samples.iter().any(|line| line.starts_with("hubble_tcp_flags_total{")), "{samples:?}");
}

#[test]
fn what_is_wrong_with_listed_metrics_is_said_by_name() {
    for (text, parts) in [
        ("metrics: [{name: colour}]", ["colour", "want one of"]),
        ("metrics: [{name: drop, contextOptions: [{name: sourceContext, values: [colour]}]}]", ["drop", "colour"]),
        ("metrics: [{name: drop, includeFilters: [{colour: [red]}]}]", ["drop", "colour"]),
        ("metrics: [{name: tcp}, {name: tcp}]", ["tcp", "already"]),
        ("metrics: [{name: flow}]", ["flow", "already"]),
        ("metrix: []", ["metrix", "unknown"]),
    ] {
        let error = dynamic::parse(text, &plugins("flow")).err().unwrap();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
    assert!(dynamic::parse("", &plugins("flow")).unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn changes_of_the_list_count_at_once_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dynamic-metrics.yaml");
    let always = plugins("flow");
    let current = Mutex::new(Arc::new(Metrics::new(of_all_flows(&always), MOST)));
    let problems = Problems::default();
    let steps = async {
        for (text, counted, named) in [
            ("metrics: [{name: drop}, {name: tcp}]", 3, false),
            ("metrics: [{name: colour}]", 3, true),
            ("metrics: [{name: drop}]", 2, false),
            ("metrics: []", 1, false),
        ] {
            std::fs::write(&path, text).unwrap();
            let seen = async {
                let is = || current.lock().counted.len() == counted && problems.lock().is_empty() != named;
                while !is() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), seen).await.expect(text);
        }
    };
    tokio::select! {
        () = follow(&path, &always, &current, &|counted| Metrics::new(counted, MOST), &problems) => panic!("it ended"),
        () = steps => {}
    }
}
