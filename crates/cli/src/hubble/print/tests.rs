// SPDX-License-Identifier: Apache-2.0
//! Lines as they are printed.

use super::*;
use hubble::proto::flow::{CiliumEventType, Ip, Layer4, LostEventSource, Tcp, TrafficDirection};

fn printer(output: Output) -> Printer<Vec<u8>> {
    Printer {
        out: Vec::new(),
        output,
        time: TimeFormat::StampMilli,
        node_name: false,
        translate: true,
        color: false,
        debug: false,
        rows: None,
        lines: 0,
    }
}

fn endpoint(namespace: &str, pod: &str, identity: u32) -> Option<Endpoint> {
    Some(Endpoint { namespace: namespace.to_owned(), pod_name: pod.to_owned(), identity, ..Endpoint::default() })
}

fn flow() -> Flow {
    let tcp = Tcp { source_port: 50000, destination_port: 80, flags: None };
    Flow {
        time: Some(prost_types::Timestamp { seconds: 1_699_999_200, nanos: 123_456_789 }),
        verdict: Verdict::Dropped.into(),
        ip: Some(Ip { source: "10.0.1.20".to_owned(), destination: "10.0.0.10".to_owned(), ..Ip::default() }),
        l4: Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) }),
        source: endpoint("shop", "db-0", 301),
        destination: endpoint("shop", "web-1", 300),
        node_name: "blue/n1".to_owned(),
        event_type: Some(CiliumEventType { r#type: 1, sub_type: 133 }),
        traffic_direction: TrafficDirection::Ingress.into(),
        summary: "TCP Flags: SYN".to_owned(),
        ..Flow::default()
    }
}

fn response(flow: Flow) -> GetFlowsResponse {
    GetFlowsResponse {
        time: flow.time,
        node_name: flow.node_name.clone(),
        response_types: Some(ResponseTypes::Flow(flow)),
    }
}

fn text(mut printer: Printer<Vec<u8>>, flows: &[Flow]) -> String {
    flows.iter().for_each(|f| printer.print(&response(f.clone())).unwrap());
    printer.finish().unwrap();
    String::from_utf8(printer.out).unwrap()
}

fn line(flow: Flow) -> String {
    text(printer(Output::Compact), &[flow])
}

#[test]
fn a_drop_is_one_line_with_both_pods_and_the_reason() {
    assert_eq!(
        line(flow()),
        "Nov 14 22:00:00.123: shop/db-0:50000 (ID:301) <> shop/web-1:80 (ID:300) Policy denied DROPPED (TCP Flags: SYN)\n"
    );
}

#[test]
fn a_policy_verdict_says_how_it_matched_and_which_direction() {
    let verdict = Flow {
        event_type: Some(CiliumEventType { r#type: 5, sub_type: 0 }),
        policy_match_type: 2,
        verdict: Verdict::Forwarded.into(),
        is_reply: Some(false),
        ..flow()
    };
    let want = "-> shop/web-1:80 (ID:300) policy-verdict:L3-L4 INGRESS ALLOWED (TCP Flags: SYN)\n";
    assert!(line(verdict.clone()).ends_with(want), "{}", line(verdict));
    let denied = Flow { event_type: Some(CiliumEventType { r#type: 5, sub_type: 0 }), is_reply: Some(false), ..flow() };
    assert!(line(denied).contains("policy-verdict:none INGRESS DENIED"));
}

#[test]
fn a_reply_is_turned_round_and_reserved_identities_have_names() {
    let reply = Flow {
        event_type: Some(CiliumEventType { r#type: 4, sub_type: 0 }),
        verdict: Verdict::Forwarded.into(),
        is_reply: Some(true),
        source: endpoint("", "", 2),
        source_names: vec!["example.org".to_owned()],
        ..flow()
    };
    assert_eq!(
        line(reply),
        "Nov 14 22:00:00.123: shop/web-1:80 (ID:300) <- example.org:50000 (world) to-endpoint FORWARDED (TCP Flags: SYN)\n"
    );
}

#[test]
fn numbers_instead_of_names_when_asked_and_ipv6_in_brackets() {
    let mut numeric = printer(Output::Compact);
    numeric.translate = false;
    numeric.node_name = true;
    let ip = Ip { source: "fd00::1".to_owned(), destination: "10.0.0.10".to_owned(), ..Ip::default() };
    let text = text(numeric, &[Flow { ip: Some(ip), ..flow() }]);
    assert!(
        text.starts_with("Nov 14 22:00:00.123 [blue/n1]: [fd00::1]:50000 (ID:301) <> 10.0.0.10:80 (ID:300)"),
        "{text}"
    );
}

#[test]
fn tables_are_aligned_and_blocks_are_separated() {
    assert_eq!(
        text(printer(Output::Table), &[flow(), flow()]),
        include_str!("../../../tests/golden/observe-table.txt")
    );
    assert_eq!(text(printer(Output::Dict), &[flow(), flow()]), include_str!("../../../tests/golden/observe-dict.txt"));
}

#[test]
fn json_is_the_response_with_the_names_of_the_protocol() {
    let value: serde_json::Value = serde_json::from_str(&text(printer(Output::Jsonpb), &[flow()])).unwrap();
    assert_eq!(value["node_name"], "blue/n1");
    assert_eq!(value["flow"]["IP"]["source"], "10.0.1.20");
    assert_eq!(value["flow"]["verdict"], "DROPPED");
    assert_eq!(value["flow"]["source"]["pod_name"], "db-0");
    assert_eq!(value["time"], "2023-11-14T22:00:00.123456789Z");
}

#[test]
fn what_json_cannot_hold_ends_nothing() {
    let never = Flow { time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), ..flow() };
    let json = text(printer(Output::Json), &[never, flow()]);
    assert_eq!(json.lines().count(), 1, "{json}");
    assert!(json.contains("2023-11-14"), "{json}");
}

#[test]
fn colours_are_only_used_when_wanted_and_names_cannot_command_the_terminal() {
    let mut colored = printer(Output::Compact);
    colored.color = true;
    assert!(text(colored, &[flow()]).contains("\u{1b}[31mDROPPED\u{1b}[0m"));
    let evil = Flow { summary: "\u{1b}[2J".to_owned(), ..flow() };
    assert!(!line(evil).contains('\u{1b}'));
}

#[test]
fn no_text_of_a_flow_reaches_the_terminal_as_it_is() {
    use hubble::proto::flow::layer7::Record;
    use hubble::proto::flow::{Dns, Http, Layer7};
    const EVIL: &str = "a\u{1b}]0;b\u{7}\u{9b}2J\n\r\u{202e}c\u{2028}";
    let evil = || EVIL.to_owned();
    let side = || Endpoint { namespace: evil(), pod_name: evil(), labels: vec![evil()], ..Endpoint::default() };
    let service = || Some(Service { namespace: evil(), name: evil() });
    let records = [
        None,
        Some(Record::Dns(Dns { query: evil(), observation_source: evil(), ..Dns::default() })),
        Some(Record::Http(Http { method: evil(), url: evil(), ..Http::default() })),
    ];
    let names = [(Some(side()), None), (None, service()), (None, None)];
    let outputs = [Output::Compact, Output::Dict, Output::Table];
    for (record, (endpoint, service)) in
        records.iter().flat_map(|record| names.iter().map(move |n| (record, n.clone())))
    {
        let flow = Flow {
            source: endpoint.clone(),
            destination: endpoint,
            source_service: service.clone(),
            destination_service: service,
            source_names: vec![evil()],
            ip: Some(Ip { source: evil(), destination: evil(), ..Ip::default() }),
            l7: record.clone().map(|record| Layer7 { record: Some(record), ..Layer7::default() }),
            node_name: evil(),
            summary: evil(),
            ..flow()
        };
        for (output, node_name) in outputs.into_iter().flat_map(|output| [(output, true), (output, false)]) {
            let shown = text(Printer { node_name, ..printer(output) }, std::slice::from_ref(&flow));
            let bad: Vec<_> =
                shown.chars().filter(|c| EVIL.contains(*c) && !c.is_ascii_graphic() && *c != '\n').collect();
            assert!(bad.is_empty(), "{output:?}: {shown:?}");
            assert!(output != Output::Compact || shown.lines().count() == 1, "{shown:?}");
        }
    }
}

#[test]
fn lost_events_are_said() {
    let lost =
        LostEvent { source: LostEventSource::HubbleRingBuffer.into(), num_events_lost: 7, ..LostEvent::default() };
    let response = GetFlowsResponse { response_types: Some(ResponseTypes::LostEvents(lost)), ..Default::default() };
    let mut printer = printer(Output::Compact);
    printer.print(&response).unwrap();
    assert_eq!(String::from_utf8(printer.out).unwrap(), "EVENTS LOST: HUBBLE_RING_BUFFER CPU(0) 7\n");
}

#[test]
fn many_names_are_cut_off() {
    let names: Vec<String> = (0..20).map(|n| format!("node-{n:02}.example")).collect();
    assert_eq!(join_names(&names[..2]), "node-00.example, node-01.example");
    assert!(join_names(&names).ends_with("(and 17 more)"), "{}", join_names(&names));
}

#[test]
fn translations_of_sockets_say_at_which_point_they_are() {
    let point = |point: i32, verdict: Verdict| Flow {
        event_type: Some(CiliumEventType { r#type: 7, sub_type: point }),
        sock_xlate_point: point,
        r#type: hubble::proto::flow::FlowType::Sock.into(),
        verdict: verdict.into(),
        summary: "TCP".to_owned(),
        ..flow()
    };
    for (number, verdict, want) in [
        (1, Verdict::Traced, "pre-xlate-fwd TRACED (TCP)\n"),
        (2, Verdict::Translated, "post-xlate-fwd TRANSLATED (TCP)\n"),
        (3, Verdict::Traced, "pre-xlate-rev TRACED (TCP)\n"),
        (4, Verdict::Translated, "post-xlate-rev TRANSLATED (TCP)\n"),
    ] {
        let line = line(point(number, verdict));
        assert!(line.ends_with(want) && line.contains("<>"), "{line}");
    }
}

/// As other servers tell of them.
#[test]
fn flows_of_dns_kafka_and_http_say_what_was_asked_and_answered() {
    let ends = r#""time":"2023-11-14T22:00:00Z","verdict":"FORWARDED","IP":{"source":"10.0.1.20","destination":"10.0.0.10"},"Type":"L7","event_type":{"type":129}"#;
    let asked = r#""is_reply":false,"l4":{"UDP":{"source_port":5000,"destination_port":53}}"#;
    let answered = r#""is_reply":true,"l4":{"UDP":{"source_port":53,"destination_port":5000}}"#;
    let there = "Nov 14 22:00:00.000: 10.0.1.20:5000 (unknown) -> 10.0.0.10:53 (unknown)";
    let back = "Nov 14 22:00:00.000: 10.0.0.10:5000 (unknown) <- 10.0.1.20:53 (unknown)";
    let question = r#""query":"example.org.","qtypes":["A","AAAA"]"#;
    for (side, line, l7, want) in [
        (asked, there, format!(r#""type":"REQUEST","dns":{{{question},"observation_source":"proxy"}}"#),
            "dns-request proxy FORWARDED (DNS Query example.org. A,AAAA)"),
        (answered, back, format!(r#""type":"RESPONSE","latency_ns":"7","dns":{{{question},"ips":["192.0.2.1","192.0.2.2"],"ttl":30,"rrtypes":["A"]}}"#),
            "dns-response FORWARDED (DNS Answer IPs: 192.0.2.1,192.0.2.2 TTL: 30 (example.org. A,AAAA))"),
        (answered, back, format!(r#""type":"RESPONSE","dns":{{{question},"rcode":3}}"#),
            "dns-response FORWARDED (DNS Answer RCode: Non-Existent Domain (example.org. A,AAAA))"),
        (asked, there, r#""type":"REQUEST","kafka":{"api_key":"fetch","api_version":4,"correlation_id":9,"topic":"orders"}"#.to_owned(),
            "kafka-request FORWARDED (Kafka fetch correlation id 9 topic 'orders')"),
        (answered, back, r#""type":"RESPONSE","latency_ns":"3500000","kafka":{"api_key":"produce","correlation_id":9,"topic":"orders","error_code":-1}"#.to_owned(),
            "kafka-response FORWARDED (Kafka produce correlation id 9 topic 'orders' return code -1 3ms)"),
        (asked, there, r#""type":"REQUEST","http":{"method":"GET","url":"http://shop/","protocol":"HTTP/1.1"}"#.to_owned(),
            "http-request FORWARDED (HTTP/1.1 GET http://shop/)"),
        (answered, back, r#""type":"RESPONSE","latency_ns":"12300000","http":{"code":200,"method":"GET","url":"http://shop/","protocol":"HTTP/1.1"}"#.to_owned(),
            "http-response FORWARDED (HTTP/1.1 200 12ms (GET http://shop/))"),
    ] {
        let told: Flow = hubble::proto::from_json(&format!("{{{ends},{side},\"l7\":{{{l7}}}}}")).unwrap();
        assert_eq!(self::line(told.clone()), format!("{line} {want}\n"));
        let told = Flow { summary: "as the server has it".to_owned(), ..told };
        assert!(self::line(told).ends_with("(as the server has it)\n"));
    }
}
