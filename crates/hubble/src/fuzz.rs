// SPDX-License-Identifier: Apache-2.0
//! Fuzz targets: parsers of client input, on fixed flows. Not part of the product.

#![allow(clippy::expect_used, reason = "a wrong answer is to be loud")]

mod calls;

pub use calls::agent;

use crate::filter::Filters;
use crate::proto::flow::{Flow, FlowFilter, Workload};
use crate::proto::from_json;
use crate::proto::observer::GetFlowsRequest;
use crate::service::Query;
use prost::Message;
use std::sync::LazyLock;

static FLOWS: LazyLock<Vec<Flow>> = LazyLock::new(|| {
    let http = r#"{"source": {"namespace": "shop", "pod_name": "web-1", "labels": ["k8s:app=web", "reserved:host"], "cluster_name": "blue"},
        "destination": {"identity": 2, "labels": ["reserved:world"]}, "destination_names": ["www.example.com."], "node_name": "blue/n1",
        "IP": {"source": "10.0.0.1", "destination": "fd00::1", "ipVersion": "IPv6"}, "node_labels": ["zone=a"], "verdict": "DROPPED",
        "l4": {"TCP": {"source_port": 1001, "destination_port": 80, "flags": {"SYN": true}}}, "is_reply": false,
        "l7": {"http": {"code": 404, "method": "GET", "url": "http://shop/api?id=1", "headers": [{"key": "a", "value": "b"}]}}}"#;
    let dns = r#"{"l7": {"dns": {"query": "www.example.com."}}, "l4": {"UDP": {"destination_port": 53}}}"#;
    [http, dns, "{}"].into_iter().map(|text| from_json(text).expect("a flow")).collect()
});

type Field = fn(&mut FlowFilter, String);

/// The first byte selects the field for a text.
const FIELDS: [Field; 18] = [
    |f, text| f.source_label.push(text),
    |f, text| f.destination_label.push(text),
    |f, text| f.node_labels.push(text),
    |f, text| f.source_pod.push(text),
    |f, text| f.destination_service.push(text),
    |f, text| f.source_ip.push(text),
    |f, text| f.destination_ip.push(text),
    |f, text| f.destination_fqdn.push(text),
    |f, text| f.node_name.push(text),
    |f, text| f.source_cluster_name.push(text),
    |f, text| f.dns_query.push(text),
    |f, text| f.http_path.push(text),
    |f, text| f.http_url.push(text),
    |f, text| f.http_method.push(text),
    |f, text| f.http_status_code.push(text),
    |f, text| f.destination_port.push(text),
    |f, text| f.protocol.push(text),
    |f, text| f.source_workload.push(Workload { name: text, ..Workload::default() }),
];

/// Lines of which the first byte names a field and the rest is its value: a filter and its negation part the flows between them.
pub fn filter(data: &[u8]) {
    let mut filter = FlowFilter::default();
    for line in data.split(|byte| *byte == b'\n') {
        if let Some((first, text)) = line.split_first()
            && let Some(add) = FIELDS.iter().cycle().nth(usize::from(first.wrapping_sub(b'a')))
        {
            add(&mut filter, String::from_utf8_lossy(text).into_owned());
        }
    }
    let allow = Filters::compile(std::slice::from_ref(&filter), &[]);
    let deny = Filters::compile(&[], std::slice::from_ref(&filter));
    match (allow, deny) {
        (Ok(allow), Ok(deny)) => assert!(FLOWS.iter().all(|flow| allow.matches(flow) != deny.matches(flow))),
        (Err(one), Err(other)) => assert_eq!(one, other),
        _ => unreachable!("a filter is good for one list and bad for the other"),
    }
}

/// A message: applying a mask twice is the same as applying it once.
pub fn request(data: &[u8]) {
    let Ok(request) = GetFlowsRequest::decode(data) else { return };
    let Ok(query) = Query::compile(&request) else { return };
    for flow in FLOWS.iter() {
        let wanted = query.wants(flow, 0);
        assert_eq!(wanted, query.wants(flow, 0));
        if let Some(mask) = &query.mask {
            let left = mask.apply(flow.clone());
            assert_eq!(mask.apply(left.clone()), left);
        }
    }
}
