// SPDX-License-Identifier: Apache-2.0
//! Filters against flows of the fixture.

mod fields;

use super::*;
use crate::fixture;
use crate::proto::flow::layer7::Record;
use crate::proto::flow::{EventTypeFilter, Http, HttpHeader, Layer7, flow_filter};
use proptest::prelude::*;

/// A verdict and a drop from `shop/db-0` to `shop/web-1`.
fn denied() -> Vec<Flow> {
    fixture::decoder().decode(1, &fixture::record(fixture::denied_syn()))
}

/// The trace of `shop/web-1` to the service `shop/db`.
fn allowed() -> Flow {
    fixture::decoder().decode(1, &fixture::record(fixture::allowed_syn())).pop().unwrap()
}

fn fits(filter: FlowFilter, flow: &Flow) -> bool {
    Filters::compile(&[filter], &[]).unwrap().matches(flow)
}

fn error(filter: FlowFilter) -> String {
    Filters::compile(&[filter], &[]).err().unwrap().to_string()
}

macro_rules! filter {
    ($($field:ident: $value:expr),+) => { FlowFilter { $($field: $value.into_iter().map(Into::into).collect(),)+ ..FlowFilter::default() } };
}

#[test]
fn pods_are_matched_by_namespace_and_prefix() {
    let flow = allowed();
    for yes in ["shop/web", "shop/", "shop/web-1", "/web"] {
        assert!(fits(filter!(source_pod: [yes]), &flow), "{yes}");
    }
    for no in ["web", "shop/db", "other/", "/eb", "default/web"] {
        assert!(!fits(filter!(source_pod: [no]), &flow), "{no}");
    }
    assert!(fits(filter!(destination_pod: ["shop/db"]), &flow));
}

#[test]
fn values_of_a_field_are_alternatives_and_fields_add_up() {
    let flow = allowed();
    assert!(fits(filter!(source_pod: ["x/", "shop/"], protocol: ["udp", "tcp"]), &flow));
    assert!(!fits(filter!(source_pod: ["shop/"], protocol: ["udp"]), &flow));
}

#[test]
fn the_deny_list_wins_and_an_empty_allow_list_lets_all_through() {
    let flow = allowed();
    let web = || filter!(source_pod: ["shop/web"]);
    assert!(Filters::compile(&[], &[]).unwrap().matches(&flow));
    assert!(!Filters::compile(&[web()], &[web()]).unwrap().matches(&flow));
    assert!(!Filters::compile(&[], &[web()]).unwrap().matches(&flow));
    assert!(Filters::compile(&[filter!(source_pod: ["x/"]), web()], &[]).unwrap().matches(&flow));
}

#[test]
fn addresses_may_be_given_as_prefixes() {
    let flow = allowed();
    assert!(fits(filter!(source_ip: ["10.0.0.10"]), &flow));
    assert!(fits(filter!(source_ip: ["10.0.0.0/24"], destination_ip: ["10.0.1.0/24"]), &flow));
    assert!(!fits(filter!(source_ip: ["10.0.1.0/24"]), &flow));
    assert!(!fits(filter!(source_ip: ["::/0"]), &flow));
    assert!(!fits(filter!(source_ip_xlated: ["0.0.0.0/0"]), &flow));
    assert!(error(filter!(source_ip: ["10.0.0"])).starts_with("filter source_ip: \"10.0.0\" is not"));
}

#[test]
fn labels_are_selected_as_kubernetes_does() {
    let flow = allowed();
    for yes in [
        "app=web",
        "k8s:app=web",
        "any:app=web",
        "app",
        "app in (db, web)",
        "!role",
        "app!=db",
        "k8s:app==web",
        "app notin (db), io.kubernetes.pod.namespace=shop",
    ] {
        assert!(fits(filter!(source_label: [yes]), &flow), "{yes}");
    }
    for no in ["app=db", "reserved:app=web", "role", "!app", "app in (db)", "app=web,role=x", "app!=web"] {
        assert!(!fits(filter!(source_label: [no]), &flow), "{no}");
    }
    for bad in ["", "app in db", "app (x)", "a b", "app in (x"] {
        assert!(Filters::compile(&[filter!(source_label: [bad])], &[]).is_err(), "{bad}");
    }
    for (selector, found) in
        [("a:b", false), ("k8s:a:b", true), ("any:a:b", true), ("k8s:a:b=1", true), ("k8s:a:b=2", false)]
    {
        let mut odd = allowed();
        odd.source.as_mut().unwrap().labels = vec!["k8s:a:b=1".to_owned()];
        assert_eq!(fits(filter!(source_label: [selector]), &odd), found, "{selector}");
    }
    let mut host = allowed();
    host.source.as_mut().unwrap().labels = vec!["reserved:host".to_owned()];
    assert!(fits(filter!(source_label: ["reserved:host"]), &host));
}

#[test]
fn event_types_match_their_subtype_only_when_asked() {
    let drop = denied().pop().unwrap();
    let event = |r#type, match_sub_type, sub_type| FlowFilter {
        event_type: vec![EventTypeFilter { r#type, match_sub_type, sub_type }],
        ..FlowFilter::default()
    };
    assert!(fits(event(1, false, 0), &drop));
    assert!(fits(event(1, true, 133), &drop));
    assert!(!fits(event(1, true, 181), &drop));
    assert!(!fits(event(4, false, 0), &drop));
}

#[test]
fn flows_whose_direction_is_unknown_are_neither_replies_nor_not() {
    let drop = denied().pop().unwrap();
    assert!(!fits(filter!(reply: [true]), &drop) && !fits(filter!(reply: [false]), &drop));
    assert!(fits(filter!(reply: [false]), &allowed()));
}

#[test]
fn the_remaining_fields_compare_what_they_name() {
    let flow = allowed();
    let syn = |ack| TcpFlags { syn: true, ack, ..TcpFlags::default() };
    assert!(fits(filter!(tcp_flags: [syn(false)]), &flow) && !fits(filter!(tcp_flags: [syn(true)]), &flow));
    assert!(fits(filter!(source_port: ["41000"], destination_port: ["5432"]), &flow));
    assert!(!fits(filter!(destination_port: ["80"]), &flow));
    assert!(fits(filter!(source_identity: [300_u32], destination_identity: [1_u32, 301]), &flow));
    assert!(fits(filter!(destination_service: ["shop/d"]), &flow));
    assert!(!fits(filter!(source_service: ["/"]), &flow));
    assert!(fits(filter!(node_labels: ["zone=a"]), &flow) && !fits(filter!(node_labels: ["zone=b"]), &flow));
    assert!(fits(filter!(source_cluster_name: ["bl*"]), &flow) && !fits(filter!(source_cluster_name: ["red"]), &flow));
    assert!(fits(filter!(ip_version: [1]), &flow) && !fits(filter!(ip_version: [2, 0]), &flow));
    assert!(fits(filter!(uuid: [flow.uuid.clone()]), &flow) && !fits(filter!(uuid: ["x"]), &flow));
    assert!(fits(filter!(traffic_direction: [2]), &flow) && fits(filter!(verdict: [1]), &flow));
    assert!(fits(filter!(drop_reason_desc: [133]), &denied()[1]) && !fits(filter!(drop_reason_desc: [133]), &flow));
    assert!(!fits(filter!(encrypted: [true]), &flow) && !fits(filter!(ip_trace_id: [1_u64]), &flow));
    assert!(!fits(filter!(trace_id: ["x"]), &flow) && !fits(filter!(source_fqdn: ["*"]), &flow));
    let workload = |kind: &str, name: &str| Workload { kind: kind.to_owned(), name: name.to_owned() };
    assert!(fits(filter!(source_workload: [workload("", "web")]), &flow));
    assert!(!fits(filter!(source_workload: [workload("DaemonSet", "web")]), &flow));
    let named = |name: &str, index| NetworkInterface { name: name.to_owned(), index };
    assert!(fits(filter!(interface: [named("lxc1234", 0)]), &flow) && !fits(filter!(interface: [named("", 7)]), &flow));
}

#[test]
fn node_names_match_with_and_without_their_cluster() {
    let flow = allowed();
    for yes in ["n1", "n*", "blue/n1", "blue/", "b*/n*", "*"] {
        assert!(fits(filter!(node_name: [yes]), &flow), "{yes}");
    }
    assert!(!fits(filter!(node_name: ["red/"]), &flow) && !fits(filter!(node_name: ["blue"]), &flow));
    let bare = Flow { node_name: "n1".to_owned(), ..Flow::default() };
    assert!(fits(filter!(node_name: ["default/n1"]), &bare) && fits(filter!(node_name: ["n1"]), &bare));
}

#[test]
fn http_is_matched_by_method_path_status_and_header() {
    let header = HttpHeader { key: "X-A".to_owned(), value: "1".to_owned() };
    let http = Http {
        code: 404,
        method: "GET".to_owned(),
        url: "http://shop/api/items?id=1".to_owned(),
        headers: vec![header.clone()],
        ..Http::default()
    };
    let l7 = Layer7 { record: Some(Record::Http(http)), ..Layer7::default() };
    let flow = Flow { l7: Some(l7), ..allowed() };
    assert!(fits(filter!(http_method: ["get"], http_path: ["^/api/[a-z]+$"], http_status_code: ["4+"]), &flow));
    assert!(fits(filter!(http_url: ["shop.*id="], protocol: ["http"], http_header: [header]), &flow));
    assert!(!fits(filter!(http_status_code: ["403", "5+"]), &flow) && !fits(filter!(dns_query: [""]), &flow));
    assert!(!fits(filter!(http_method: ["get"]), &allowed()));
}

#[test]
fn a_status_is_three_digits_or_the_first_of_them() {
    for good in ["100", "599", "1+", "59+"] {
        assert!(Filters::compile(&[filter!(http_status_code: [good])], &[]).is_ok(), "{good}");
    }
    for bad in ["", "+", "4", "40", "4040", "404+", "600", "6+", "0+", "4x4", "x+", "4++", " 404"] {
        assert!(error(filter!(http_status_code: [bad])).contains("http_status_code"), "{bad}");
    }
}

#[test]
fn what_is_no_pod_is_in_no_namespace() {
    let mut world = allowed();
    world.source = Some(Endpoint { identity: 2, ..Endpoint::default() });
    for pattern in ["/", "default/", "/web", "web"] {
        assert!(!fits(filter!(source_pod: [pattern]), &world), "{pattern}");
    }
    assert!(fits(filter!(destination_pod: ["/"]), &world) && !fits(filter!(destination_pod: ["/web"]), &world));
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let experimental = Some(flow_filter::Experimental { cel_expression: vec!["_flow.".to_owned()] });
    assert!(error(FlowFilter { experimental, ..FlowFilter::default() }).contains("experimental.cel_expression"));
    assert!(error(filter!(protocol: ["quic"])).contains("filter protocol: \"quic\""));
    assert!(error(filter!(http_path: ["("])).ends_with("is not a regular expression"));
    assert!(error(filter!(http_path: [r"\w{200}"])).contains("a regular expression of at most 128 KiB when compiled"));
    assert!(error(filter!(http_status_code: ["44"])).contains("http_status_code"));
    assert!(error(filter!(destination_port: ["http"])).contains("destination_port"));
    assert!(error(filter!(node_name: [""])).contains("node_name"));
}

fn any_filter() -> impl Strategy<Value = FlowFilter> {
    let pods = prop::collection::vec(prop::sample::select(vec!["shop/", "shop/web", "x/", "/db"]), 0..3);
    let verdicts = prop::collection::vec(0_i32..4, 0..3);
    let identities = prop::collection::vec(299_u32..303, 0..3);
    (pods, verdicts, identities).prop_map(|(pods, verdict, source_identity)| FlowFilter {
        source_pod: pods.into_iter().map(str::to_owned).collect(),
        verdict,
        source_identity,
        ..FlowFilter::default()
    })
}

/// What the contract says, word by word.
fn naive(filter: &FlowFilter, flow: &Flow) -> bool {
    let source = flow.source.as_ref().unwrap();
    let pod = |text: &String| {
        let (namespace, prefix) = text.split_once('/').unwrap();
        (namespace.is_empty() || namespace == source.namespace) && source.pod_name.starts_with(prefix)
    };
    (filter.source_pod.is_empty() || filter.source_pod.iter().any(pod))
        && (filter.verdict.is_empty() || filter.verdict.contains(&flow.verdict))
        && (filter.source_identity.is_empty() || filter.source_identity.contains(&source.identity))
}

proptest! {
    #[test]
    fn filters_say_what_the_contract_says(
        allow in prop::collection::vec(any_filter(), 0..3),
        deny in prop::collection::vec(any_filter(), 0..3),
    ) {
        let filters = Filters::compile(&allow, &deny).unwrap();
        for flow in denied().iter().chain([&allowed()]) {
            let wanted = allow.is_empty() || allow.iter().any(|f| naive(f, flow));
            let unwanted = deny.iter().any(|f| naive(f, flow));
            prop_assert_eq!(filters.matches(flow), wanted && !unwanted);
        }
    }

    #[test]
    fn no_text_makes_a_filter_panic(text in ".{0,40}") {
        let all = FlowFilter {
            source_ip: vec![text.clone()],
            source_pod: vec![text.clone()],
            source_fqdn: vec![text.clone()],
            source_label: vec![text.clone()],
            node_name: vec![text.clone()],
            http_path: vec![text.clone()],
            http_status_code: vec![text],
            ..FlowFilter::default()
        };
        let fields: Vec<FlowFilter> = vec![
            FlowFilter { source_ip: all.source_ip, ..FlowFilter::default() },
            FlowFilter { source_pod: all.source_pod, ..FlowFilter::default() },
            FlowFilter { source_fqdn: all.source_fqdn, ..FlowFilter::default() },
            FlowFilter { source_label: all.source_label, ..FlowFilter::default() },
            FlowFilter { node_name: all.node_name, ..FlowFilter::default() },
            FlowFilter { http_path: all.http_path, ..FlowFilter::default() },
            FlowFilter { http_status_code: all.http_status_code, ..FlowFilter::default() },
        ];
        for filter in fields {
            if let Ok(filters) = Filters::compile(&[filter], &[]) {
                filters.matches(&allowed());
            }
        }
    }
}
