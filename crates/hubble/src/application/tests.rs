// SPDX-License-Identifier: Apache-2.0
//! Requests in, flows out.

use crate::config::Config;
use crate::fixture;
use crate::proto::flow::{Flow, LostEventSource, Verdict};
use crate::proto::to_json;
use crate::ring::Read;
use crate::store::{Entry, Loser, Store, lost, now};
use l7::{Exchange, Outcome};
use model::ServiceName;
use model::config::Group;
use serde_json::{Value, json};

/// From outside through a Gateway to the pod `shop/web-1`.
fn exchange() -> Exchange {
    Exchange {
        time: 1_700_000_000_123_456_789,
        latency: 12_300_000,
        client: "[::ffff:192.0.2.1]:41000".parse().unwrap(),
        server: "10.0.0.10:8080".parse().unwrap(),
        identity: 300,
        cluster: Some("shop/web:80".into()),
        method: "GET".to_owned(),
        url: "http://ann:hush@shop.example/cart?id=1".to_owned(),
        protocol: "HTTP/1.1".to_owned(),
        headers: vec![
            ("traceparent".to_owned(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            ("accept".to_owned(), "*/*".to_owned()),
        ],
        status: 200,
        outcome: Outcome::Forwarded,
    }
}

fn store(keys: &[(&str, &str)]) -> Store {
    let keys = keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let config = Config { cluster: "blue".to_owned(), ..Config::parse(&keys).unwrap() };
    Store::new(&config, "n1", fixture::tables().tables)
}

fn flows_of(store: &Store, exchange: Exchange) -> Vec<Flow> {
    store.push_exchange(exchange, Some(ServiceName::new("shop", "web")));
    let (_, next) = store.bounds();
    let Read::Entry(Entry::Event(record)) = store.read(next - 1) else { panic!("no event") };
    let flows = store.decoder.decode(next - 1, &record);
    assert_eq!(record.flow_count(), flows.len());
    flows
}

fn flows(exchange: Exchange) -> Vec<Flow> {
    flows_of(&store(&[]), exchange)
}

fn json(flow: &Flow) -> Value {
    serde_json::from_str(&to_json(flow).unwrap()).unwrap()
}

#[test]
fn a_request_is_two_flows_with_both_ends_named() {
    let flows = flows(exchange());
    let [request, answer] = [json(&flows[0]), json(&flows[1])];
    assert_eq!(request["time"], "2023-11-14T22:13:20.111156789Z");
    assert_eq!(request["IP"], json!({"source": "192.0.2.1", "destination": "10.0.0.10", "ipVersion": "IPv4"}));
    assert_eq!(request["l4"], json!({"TCP": {"source_port": 41000, "destination_port": 8080}}));
    assert_eq!(
        (&request["Type"], &request["verdict"], &request["is_reply"]),
        (&json!("L7"), &json!("FORWARDED"), &json!(false))
    );
    assert_eq!((&request["event_type"], &request["traffic_direction"]), (&json!({"type": 129}), &json!("EGRESS")));
    assert_eq!(request["source"]["identity"], 2);
    let server = &request["destination"];
    assert_eq!((&server["ID"], &server["identity"], &server["pod_name"]), (&json!(10), &json!(300), &json!("web-1")));
    assert_eq!(server["workloads"], json!([{"name": "web", "kind": "Deployment"}]));
    assert_eq!(request["destination_service"], json!({"name": "web", "namespace": "shop"}));
    assert_eq!(request["trace_context"]["parent"]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    let http = &request["l7"]["http"];
    assert_eq!(request["l7"]["type"], "REQUEST");
    assert_eq!((&http["method"], &http["protocol"], &http["code"]), (&json!("GET"), &json!("HTTP/1.1"), &Value::Null));
    assert_eq!(http["url"], "http://ann:HUBBLE_REDACTED@shop.example/cart?id=1");
    assert_eq!(http["headers"][1], json!({"key": "accept", "value": "*/*"}));
    assert_eq!(request["Summary"], "HTTP/1.1 GET http://ann:HUBBLE_REDACTED@shop.example/cart?id=1");

    assert_eq!(answer["time"], "2023-11-14T22:13:20.123456789Z");
    assert_eq!(answer["IP"], json!({"source": "10.0.0.10", "destination": "192.0.2.1", "ipVersion": "IPv4"}));
    assert_eq!(answer["l4"], json!({"TCP": {"source_port": 8080, "destination_port": 41000}}));
    assert_eq!((&answer["source"], &answer["destination"]), (&request["destination"], &request["source"]));
    assert_eq!(
        (&answer["source_service"], &answer["destination_service"]),
        (&request["destination_service"], &Value::Null)
    );
    assert_eq!((&answer["is_reply"], &answer["traffic_direction"]), (&json!(true), &json!("INGRESS")));
    assert_eq!((&answer["l7"]["type"], &answer["l7"]["latency_ns"]), (&json!("RESPONSE"), &json!("12300000")));
    assert_eq!((&answer["l7"]["http"]["code"], &answer["l7"]["http"]["headers"]), (&json!(200), &Value::Null));
    assert_eq!(answer["Summary"], "HTTP/1.1 200 12ms (GET http://ann:HUBBLE_REDACTED@shop.example/cart?id=1)");
    assert_ne!(request["uuid"], answer["uuid"]);
}

#[test]
fn what_could_not_be_served_is_an_error_and_what_was_not_answered_has_no_answer() {
    let refused = flows(Exchange { outcome: Outcome::Refused, status: 503, ..exchange() });
    assert!(refused.iter().all(|flow| flow.verdict() == Verdict::Error) && refused.len() == 2);
    let redirected = flows(Exchange { outcome: Outcome::Answered, status: 301, ..exchange() });
    assert!(redirected.iter().all(|flow| flow.verdict() == Verdict::Forwarded));
    assert_eq!(flows(Exchange { status: 0, ..exchange() }).len(), 1);
}

#[test]
fn an_end_whose_identity_is_not_told_has_that_of_its_address() {
    let flow = flows(Exchange { client: "10.0.1.20:1".parse().unwrap(), identity: 0, ..exchange() }).remove(0);
    let (source, destination) = (flow.source.unwrap(), flow.destination.unwrap());
    assert_eq!((source.identity, source.pod_name.as_str(), source.namespace.as_str()), (301, "db-0", "shop"));
    assert_eq!((destination.identity, destination.id), (300, 10));
}

#[test]
fn an_address_is_of_the_longest_prefix_that_has_it() {
    let mut writers = fixture::tables();
    for (prefix, identity) in [("0.0.0.0/0", 9), ("192.0.2.0/24", 1 << 24), ("::/0", 10)] {
        let entry = fixture::ip_entry("10.9.9.9", identity, "none");
        writers.ipcache.insert(model::IpEntry { prefix: prefix.parse().unwrap(), pod: None, ..entry });
    }
    writers.ipcache.commit();
    let store = Store::new(&Config::default(), "n1", writers.tables);
    let identity = |client: &str| {
        let exchange = Exchange { client: client.parse().unwrap(), ..exchange() };
        flows_of(&store, exchange).remove(0).source.unwrap().identity
    };
    assert_eq!(identity("192.0.2.7:1"), 1 << 24);
    assert_eq!(identity("192.0.3.7:1"), 9);
    assert_eq!(identity("[2001:db8::1]:1"), 10);
}

#[test]
fn what_is_to_be_left_out_is_in_no_flow() {
    let redact = [
        ("hubble-redact-enabled", "true"),
        ("hubble-redact-http-urlquery", "true"),
        ("hubble-redact-http-headers-allow", "Accept"),
    ];
    let flows = flows_of(&store(&redact), exchange());
    let text = json(&flows[0]).to_string() + &json(&flows[1]).to_string();
    assert!(!text.contains("id=1") && !text.contains("hush") && !text.contains("b7ad6b7169203331"), "{text}");
    assert!(text.contains("*/*") && text.contains("0af7651916cd43dd8448eb211c80319c"), "{text}");
    // The other keys count for nothing without the first, but for passwords.
    let flows = flows_of(&store(&redact[1..]), exchange());
    let text = json(&flows[0]).to_string();
    assert!(text.contains("id=1") && text.contains("b7ad6b7169203331") && !text.contains("hush"), "{text}");
    let flows = flows_of(&store(&[("hubble-redact-http-userinfo", "false")]), exchange());
    assert!(json(&flows[0]).to_string().contains("ann:hush@"));
}

#[test]
fn a_trace_is_named_only_by_a_header_that_is_one() {
    for bad in
        ["", "00", "00-0af7", "00-00000000000000000000000000000000-1-1", "00-0AF7651916CD43DD8448EB211C80319C-1-1"]
    {
        let exchange = Exchange { headers: vec![("traceparent".to_owned(), bad.to_owned())], ..exchange() };
        assert_eq!(flows(exchange)[0].trace_context, None, "{bad}");
    }
}

#[test]
fn a_proxy_is_not_believed_about_the_future_and_requests_weigh_what_they_hold() {
    let store = store(&[]);
    let before = store.figures().bytes;
    store.push_exchange(Exchange { time: i64::MAX, url: "x".repeat(2000), ..exchange() }, None);
    let Read::Entry(entry) = store.read(0) else { panic!("no entry") };
    assert!(entry.time() <= now());
    assert!(store.figures().bytes > before + 2000);
    assert_eq!(store.figures().seen, 2);
}

#[test]
fn requests_that_were_lost_are_told_apart_from_packets_that_were() {
    let store = store(&[]);
    store.push_lost(5, Loser::Proxy);
    let Read::Entry(Entry::Lost { time, count, by }) = store.read(0) else { panic!("no entry") };
    let told = lost(time, count, by);
    assert_eq!((told.source(), told.num_events_lost), (LostEventSource::ObserverEventsQueue, 5));
    assert_eq!(lost(time, count, Loser::Kernel).source(), LostEventSource::PerfEventRingBuffer);
}
