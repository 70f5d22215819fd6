// SPDX-License-Identifier: Apache-2.0
//! Nodes that come and go, and whose clocks do.

use super::{Client, DEADLINE, Does, Fake, Heard, RULES, flow, following, pool, status};
use hubble::proto::observer::GetFlowsRequest;
use hubble::proto::relay::NodeState;
use std::sync::atomic::Ordering;
use tokio::time::timeout;

#[tokio::test]
async fn flows_of_a_clock_that_is_set_back_keep_their_order_and_hold_nobody_up() {
    let fakes = [Fake::start("a", Does::Tell(vec![5, 3, 7])).await, Fake::start("b", Does::Tell(vec![4, 6])).await];
    let (_writer, nodes) = pool(&fakes).await;
    let heard = Client::ask(GetFlowsRequest::default(), nodes, RULES).all().await;
    assert_eq!(heard[1..], [flow("b", 4), flow("a", 5), flow("a", 3), flow("b", 6), flow("a", 7)]);
}

#[tokio::test]
async fn a_node_that_goes_and_comes_back_while_its_flows_wait_is_told_of_still() {
    let fakes = [Fake::start("a", Does::Tell(vec![1, 2])).await, Fake::start("b", Does::Hang).await];
    let (writer, nodes) = pool(&fakes).await;
    // All wait for the other node.
    let mut client = Client::ask(following(), nodes, RULES);
    for round in 1..20 {
        timeout(DEADLINE, async {
            while fakes[0].script.sent.load(Ordering::Relaxed) < 2 * round {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        let node = fakes[0].node().await;
        writer.send_modify(|nodes| drop(nodes.remove("a")));
        while client.next().await != Some(status(NodeState::NodeGone, &["a"], "")) {}
        writer.send_modify(|nodes| drop(nodes.insert("a".to_owned(), node)));
    }
    writer.send_modify(|nodes| drop(nodes.remove("b")));
    let mut flows = Vec::new();
    while flows.len() < 10 {
        flows.extend(client.next().await.filter(|heard| matches!(heard, Heard::Flow(..))));
    }
    assert!(flows.iter().all(|heard| matches!(heard, Heard::Flow(name, _) if name == "a")), "{flows:?}");
}

#[tokio::test]
async fn the_stream_of_a_node_that_goes_is_given_up() {
    let fakes = [Fake::start("a", Does::Hang).await];
    let (writer, nodes) = pool(&fakes).await;
    let mut client = Client::ask(following(), nodes, RULES);
    client.next().await;
    let silent = async |count: usize| {
        while fakes[0].script.silent.load(Ordering::Relaxed) != count {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, silent(1)).await.unwrap();
    writer.send_modify(|nodes| drop(nodes.remove("a")));
    assert_eq!(client.next().await, Some(status(NodeState::NodeGone, &["a"], "")));
    timeout(DEADLINE, silent(0)).await.expect("it is asked still");
}
