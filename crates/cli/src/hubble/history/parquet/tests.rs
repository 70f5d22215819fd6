// SPDX-License-Identifier: Apache-2.0
//! What is written is read by the format's own reader.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use hubble::proto::flow::layer4::Protocol;
use hubble::proto::flow::layer7::Record;
use hubble::proto::flow::{
    CiliumEventType, Dns, DropReason, Endpoint, Http, HttpHeader, IcmPv6, Ip, Kafka, L7FlowType, Layer4, Layer7,
    NetworkInterface, Policy, Service, Tcp, TcpFlags, TraceContext, TraceParent, TrafficDirection, Verdict, Workload,
};
use hubble::proto::timestamp;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Value, json};

fn written(flows: impl IntoIterator<Item = Flow>, lost: &[u64]) -> SerializedFileReader<bytes::Bytes> {
    let mut out = Vec::new();
    let mut table = Table::new(&mut out).unwrap();
    flows.into_iter().for_each(|flow| table.push(&flow).unwrap());
    lost.iter().for_each(|count| table.push_lost(*count));
    table.finish().unwrap();
    SerializedFileReader::new(bytes::Bytes::from(out)).unwrap()
}

/// The rows with the columns that have a value.
fn rows(file: &SerializedFileReader<bytes::Bytes>) -> Vec<Value> {
    let rows = file.get_row_iter(None).unwrap().map(|row| {
        let row = row.unwrap();
        let columns = row.get_column_iter().map(|(name, field)| (name.clone(), value(field)));
        columns.filter(|(_, value)| !matches!(value, Value::Null) && *value != json!([])).collect()
    });
    rows.collect()
}

fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(flag) => json!(flag),
        Field::UInt(number) => json!(number),
        Field::ULong(number) => json!(number),
        Field::Long(number) => json!(number),
        Field::Str(text) => json!(text),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => panic!("no column is {other:?}"),
    }
}

fn pod(name: &str) -> Endpoint {
    Endpoint {
        identity: u32::MAX,
        namespace: "shop".to_owned(),
        pod_name: name.to_owned(),
        cluster_name: "blue".to_owned(),
        labels: vec!["k8s:app=web".to_owned(), "k8s:tier=front".to_owned()],
        workloads: vec![Workload { kind: "Deployment".to_owned(), name: "web".to_owned() }],
        ..Endpoint::default()
    }
}

/// Between `shop/web-1` and `shop/db-0`.
fn flow(protocol: Protocol) -> Flow {
    let ip = |text: &str| text.to_owned();
    Flow {
        time: Some(timestamp(1_700_000_000_123_456_789)),
        uuid: "id".to_owned(),
        node_name: "blue/n1".to_owned(),
        source: Some(pod("web-1")),
        destination: Some(pod("db-0")),
        ip: Some(Ip {
            source: ip("10.0.0.1"),
            destination: ip("10.0.0.2"),
            source_xlated: ip("192.0.2.1"),
            ..Ip::default()
        }),
        l4: Some(Layer4 { protocol: Some(protocol) }),
        is_reply: Some(false),
        summary: "a summary".to_owned(),
        interface: Some(NetworkInterface { index: 4, name: "lxc1".to_owned() }),
        destination_service: Some(Service { name: "db".to_owned(), namespace: "shop".to_owned() }),
        destination_names: vec!["db.example.org".to_owned()],
        ..Flow::default()
    }
}

fn denied() -> Flow {
    let flags = Some(TcpFlags { syn: true, ack: true, ..TcpFlags::default() });
    let deny = |name: &str| Policy {
        name: name.to_owned(),
        kind: "CiliumNetworkPolicy".to_owned(),
        namespace: "shop".to_owned(),
        ..Policy::default()
    };
    Flow {
        verdict: Verdict::Dropped.into(),
        drop_reason: 133,
        drop_reason_desc: DropReason::PolicyDenied.into(),
        event_type: Some(CiliumEventType { r#type: 5, sub_type: 0 }),
        traffic_direction: TrafficDirection::Ingress.into(),
        policy_match_type: 2,
        ingress_denied_by: vec![deny("one"), deny("two")],
        policy_log: vec!["audited".to_owned()],
        ..flow(Protocol::Tcp(Tcp { source_port: 65_535, destination_port: 5432, flags }))
    }
}

#[test]
fn all_that_a_flow_says_is_in_a_column_of_its_own() {
    let row = &rows(&written([denied()], &[]))[0];
    let expected = json!({
        "time": 1_700_000_000_123_456_789_i64, "uuid": "id", "node_name": "blue/n1", "type": "UNKNOWN_TYPE", "verdict": "DROPPED",
        "drop_reason": "POLICY_DENIED", "drop_reason_code": 133, "event_type": 5, "event_sub_type": 0,
        "traffic_direction": "INGRESS", "is_reply": false, "summary": "a summary", "protocol": "TCP",
        "tcp_flags": ["SYN", "ACK"], "source_ip": "10.0.0.1", "source_ip_translated": "192.0.2.1", "source_port": 65_535,
        "source_identity": u32::MAX, "source_cluster": "blue", "source_namespace": "shop", "source_pod": "web-1",
        "source_workload": "Deployment/web", "source_labels": ["k8s:app=web", "k8s:tier=front"],
        "destination_ip": "10.0.0.2", "destination_port": 5432, "destination_identity": u32::MAX, "destination_cluster": "blue",
        "destination_namespace": "shop", "destination_pod": "db-0", "destination_workload": "Deployment/web",
        "destination_service": "shop/db", "destination_names": ["db.example.org"],
        "destination_labels": ["k8s:app=web", "k8s:tier=front"], "interface": "lxc1", "policy_match_type": 2,
        "ingress_denied_by": ["CiliumNetworkPolicy shop/one", "CiliumNetworkPolicy shop/two"], "policy_log": ["audited"],
    });
    assert_eq!(row, &expected);
}

#[test]
fn requests_and_messages_of_icmp_have_columns_too() {
    let header = HttpHeader { key: "accept".to_owned(), value: "*/*".to_owned() };
    let http = Http {
        code: 503,
        method: "GET".to_owned(),
        url: "http://shop/".to_owned(),
        protocol: "HTTP/1.1".to_owned(),
        headers: vec![header],
    };
    let parent = Some(TraceParent { trace_id: "4bf9".to_owned() });
    let request = Flow {
        l7: Some(Layer7 {
            r#type: L7FlowType::Response.into(),
            latency_ns: u64::MAX,
            record: Some(Record::Http(http)),
        }),
        trace_context: Some(TraceContext { parent }),
        egress_allowed_by: vec![Policy {
            name: "all".to_owned(),
            kind: "CiliumClusterwideNetworkPolicy".to_owned(),
            ..Policy::default()
        }],
        ..flow(Protocol::IcmPv6(IcmPv6 { r#type: 135, code: 1 }))
    };
    let row = &rows(&written([request], &[]))[0];
    for (column, value) in [
        ("l7_type", json!("RESPONSE")),
        ("latency_ns", json!(u64::MAX)),
        ("http_method", json!("GET")),
        ("http_url", json!("http://shop/")),
        ("http_protocol", json!("HTTP/1.1")),
        ("http_code", json!(503)),
        ("http_headers", json!(["accept: */*"])),
        ("trace_id", json!("4bf9")),
        ("egress_allowed_by", json!(["CiliumClusterwideNetworkPolicy all"])),
        ("protocol", json!("ICMPv6")),
        ("icmp_type", json!(135)),
        ("icmp_code", json!(1)),
    ] {
        assert_eq!(row[column], value, "{column}");
    }
    assert_eq!(row["source_port"], Value::Null);
}

#[test]
fn what_other_servers_tell_of_applications_has_columns() {
    let l7 = |kind: L7FlowType, record| Flow {
        l7: Some(Layer7 { r#type: kind.into(), latency_ns: 0, record: Some(record) }),
        ..Flow::default()
    };
    let dns = Dns {
        query: "example.org.".to_owned(),
        qtypes: vec!["A".to_owned()],
        ips: vec!["192.0.2.1".to_owned()],
        ..Dns::default()
    };
    let kafka = Kafka { api_key: "fetch".to_owned(), topic: "orders".to_owned(), ..Kafka::default() };
    let flows = [
        l7(L7FlowType::Response, Record::Dns(dns.clone())),
        l7(L7FlowType::Request, Record::Dns(dns)),
        l7(L7FlowType::Request, Record::Kafka(kafka)),
    ];
    let rows = rows(&written(flows, &[]));
    let [answer, question, kafka] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((&answer["dns_query"], &answer["dns_query_types"]), (&json!("example.org."), &json!(["A"])));
    assert_eq!((&answer["dns_ips"], &answer["dns_rcode"]), (&json!(["192.0.2.1"]), &json!(0)));
    assert_eq!(question["dns_rcode"], Value::Null, "there is no answer yet");
    assert_eq!((&kafka["kafka_api_key"], &kafka["kafka_topic"]), (&json!("fetch"), &json!("orders")));
}

#[test]
fn times_are_marked_as_nanoseconds_of_universal_time() {
    let file = written([Flow::default()], &[]);
    assert_eq!(rows(&file)[0]["time"], Value::Null);
    let described = format!("{:?}", file.metadata().file_metadata().schema().get_fields()[0]);
    assert!(described.contains("is_adjusted_to_u_t_c: true") && described.contains("NANOS"), "{described}");
}

#[test]
fn any_number_of_rows_and_none_make_a_file_that_says_what_was_lost() {
    let numbered = |port| flow(Protocol::Tcp(Tcp { source_port: port, destination_port: 80, flags: None }));
    let count = u32::try_from(GROUP).unwrap() + 3;
    let file = written((0..count).map(numbered), &[5, 7]);
    assert_eq!(file.num_row_groups(), 2);
    let ports: Vec<_> = rows(&file).iter().map(|row| row["source_port"].as_u64().unwrap()).collect();
    assert!(ports.into_iter().eq(0..u64::from(count)));
    let said = file.metadata().file_metadata().key_value_metadata().unwrap();
    assert_eq!((said[0].key.as_str(), said[0].value.as_deref()), (LOST, Some("12")));
    let none = written([], &[]);
    assert_eq!((none.num_row_groups(), rows(&none).len()), (0, 0));
}
