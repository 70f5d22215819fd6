// SPDX-License-Identifier: Apache-2.0
//! Clients that ask for much, and what it costs the others.

use super::*;

/// With these a search that tries one way after the other does not end.
const PATTERNS: [&str; 5] = ["^http://shop/(a+)+$", "(a|aa)+$", "(a*)*b", "(.*)*x$", "^(([a-z:/])+.)+[A-Z]$"];

#[tokio::test]
async fn a_pathological_expression_ends_like_any_other_and_costs_no_other_client_a_flow() {
    let node = Node::start(1023).await;
    let url = format!("http://shop/{}!", "a".repeat(2000));
    for _ in 0..100 {
        let exchange = l7::Exchange { time: crate::now(), url: url.clone(), status: 200, ..l7::Exchange::default() };
        node.outputs.sink.exchange(exchange, None);
    }
    (1..=100).for_each(|port| node.push(port));
    let hostile = |pattern: &str| {
        let filter = FlowFilter { http_url: vec![pattern.to_owned()], ..FlowFilter::default() };
        GetFlowsRequest { whitelist: vec![filter], ..GetFlowsRequest::default() }
    };
    let hostile = PATTERNS.map(hostile);
    let all = futures::future::join_all(hostile.map(|request| node.ports(request)));
    let (found, others) = tokio::join!(all, node.ports(GetFlowsRequest::default()));
    assert!(found.iter().all(Vec::is_empty), "{found:?}");
    assert_eq!(others.iter().filter(|port| **port > 0).count(), 100);
}
