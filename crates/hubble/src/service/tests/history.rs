// SPDX-License-Identifier: Apache-2.0
//! Flows that only the disk has.

use super::*;
use std::path::Path;

async fn start(capacity: u16, path: &Path) -> Node {
    let capacity = crate::Capacity(capacity);
    Node::start_with(Config { capacity, history_path: Some(path.to_owned()), ..Config::default() }).await
}

/// Ends the agent as a signal does.
async fn end(node: Node) {
    node.tasks.token().cancel();
    timeout(DEADLINE, node.tasks.run_until_failure()).await.unwrap().unwrap();
}

/// Pushes flows with these ports and waits until they are on disk.
async fn push(node: &Node, ports: std::ops::RangeInclusive<u16>) {
    let last = u64::from(*ports.end());
    ports.for_each(|port| node.push(port));
    let written = timeout(DEADLINE, async {
        while node.outputs.status.kept().unwrap() < last {
            tokio::task::yield_now().await;
        }
    });
    written.await.unwrap();
}

fn since(time: i64) -> GetFlowsRequest {
    GetFlowsRequest { since: Some(crate::proto::timestamp(time)), ..GetFlowsRequest::default() }
}

fn last(number: u64) -> GetFlowsRequest {
    GetFlowsRequest { number, ..GetFlowsRequest::default() }
}

async fn flows(node: &Node, request: GetFlowsRequest) -> Vec<Flow> {
    let stream = node.client().get_flows(request).await.unwrap().into_inner();
    let all: Vec<_> = timeout(DEADLINE, stream.collect()).await.unwrap();
    all.into_iter().map(|r: Result<_, _>| flow(&r.unwrap()).unwrap().clone()).collect()
}

/// The ports of the flows that come, and how many events are said to be lost.
async fn told(node: &Node, request: GetFlowsRequest) -> (Vec<u32>, u64) {
    let stream = node.client().get_flows(request).await.unwrap().into_inner();
    let all: Vec<_> = timeout(DEADLINE, stream.collect::<Vec<_>>()).await.unwrap();
    let (mut ports, mut lost) = (Vec::new(), 0);
    for response in all.into_iter().map(Result::unwrap) {
        ports.extend(port(&response));
        if let Some(ResponseTypes::LostEvents(events)) = response.response_types {
            lost += events.num_events_lost;
        }
    }
    (ports, lost)
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_from_before_a_restart_are_answered_with_those_that_came_since() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(7, dir.path()).await;
    (1..=5).for_each(|port| node.push(port));
    let before = flows(&node, last(5)).await;
    end(node).await;

    let node = start(7, dir.path()).await;
    let ready = timeout(DEADLINE, async { while flows(&node, last(5)).await.len() < 5 {} });
    ready.await.unwrap();
    assert_eq!(flows(&node, last(5)).await, before, "with other names or identifiers");
    (6..=8).for_each(|port| node.push(port));
    assert_eq!(node.ports(last(2)).await, [7, 8]);
    assert_eq!(node.ports(last(4)).await, [5, 6, 7, 8]);
    assert_eq!(node.ports(last(99)).await, (1..=8).collect::<Vec<_>>());
    assert_eq!(node.ports(last(u64::MAX)).await, (1..=8).collect::<Vec<_>>());
    assert_eq!(node.ports(since(0)).await, (1..=8).collect::<Vec<_>>());
    let until = GetFlowsRequest { until: before[2].time, ..GetFlowsRequest::default() };
    assert_eq!(node.ports(until).await, [1, 2, 3]);
    let between = GetFlowsRequest { since: before[1].time, until: before[3].time, ..GetFlowsRequest::default() };
    assert_eq!(node.ports(between).await, [2, 3, 4]);
    // Who does not ask for the past gets the ring.
    assert_eq!(node.ports(GetFlowsRequest::default()).await, [6, 7, 8]);
    let follow = GetFlowsRequest { follow: true, ..since(0) };
    let mut stream = node.client().get_flows(follow).await.unwrap().into_inner();
    for want in 1..=8 {
        assert_eq!(port(&next(&mut stream).await), Some(want));
    }
    node.push(9);
    assert_eq!(port(&next(&mut stream).await), Some(9));
    end(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ring_has_no_more_is_read_from_disk_and_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(63, dir.path()).await;
    push(&node, 1..=60).await;
    let early = flows(&node, since(0)).await;
    push(&node, 61..=120).await;
    assert_eq!(node.ports(since(0)).await, (1..=120).collect::<Vec<_>>());
    assert_eq!(node.ports(last(100)).await, (21..=120).collect::<Vec<_>>());
    assert_eq!(flows(&node, since(0)).await[..60], early);
    let from = GetFlowsRequest { since: early[39].time, number: 3, ..GetFlowsRequest::default() };
    assert_eq!(node.ports(from).await, [40, 41, 42]);
    end(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_the_past_so_slowly_that_the_ring_is_full_again_gets_it_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(511, dir.path()).await;
    push(&node, 1..=500).await;
    // More than fits between server and client.
    let mut stream = node.client().get_flows(since(0)).await.unwrap().into_inner();
    assert_eq!(port(&next(&mut stream).await), Some(1));
    push(&node, 501..=1000).await;
    push(&node, 1001..=1500).await;
    for want in 2..=500 {
        assert_eq!(port(&next(&mut stream).await), Some(want));
    }
    assert!(timeout(DEADLINE, stream.next()).await.unwrap().is_none());
    end(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_on_its_way_to_the_disk_is_not_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(7, dir.path()).await;
    push(&node, 1..=1).await;
    // The ring has the last of these, and the disk none; what came too fast for the disk is counted there.
    (2..=100).for_each(|port| node.push(port));
    let (ports, lost) = told(&node, since(0)).await;
    assert_eq!(ports.len() as u64 + lost, 100, "{ports:?} and {lost} lost");
    end(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_so_many_are_waited_for_if_they_are_on_their_way_to_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(7, dir.path()).await;
    push(&node, 1..=1).await;
    (2..=100).for_each(|port| node.push(port));
    let (ports, lost) = told(&node, last(1000)).await;
    assert_eq!(ports.len() as u64 + lost, 100, "{ports:?} and {lost} lost");
    end(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_may_begin_and_end_in_the_midst_of_an_event_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(63, dir.path()).await;
    // Three flows each.
    (0..2).for_each(|_| node.outputs.sink.push(&Event { time: monotonic(), ..fixture::allowed_syn() }));
    end(node).await;
    let node = start(63, dir.path()).await;
    let all = timeout(DEADLINE, async {
        loop {
            let all = flows(&node, last(99)).await;
            if all.len() == 6 {
                break all;
            }
        }
    });
    let all = all.await.unwrap();
    for number in 1..=6 {
        assert_eq!(flows(&node, last(number as u64)).await, all[6 - number..], "the last {number}");
        let first = GetFlowsRequest { number: number as u64, ..since(0) };
        assert_eq!(flows(&node, first).await, all[..number], "the first {number}");
    }
    end(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_neither_on_disk_nor_in_the_ring_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(7, dir.path()).await;
    push(&node, 1..=60).await;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    assert_eq!(told(&node, since(0)).await, ((54..=60).collect(), 53));
    end(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_told_as_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(63, dir.path()).await;
    push(&node, 1..=60).await;
    end(node).await;
    let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let node = start(63, dir.path()).await;
    let lost = timeout(DEADLINE, async {
        loop {
            let stream = node.client().get_flows(since(0)).await.unwrap().into_inner();
            let all: Vec<_> = stream.collect().await;
            if let [Ok(only)] = all.as_slice() {
                break only.clone();
            }
        }
    });
    let ResponseTypes::LostEvents(lost) = lost.await.unwrap().response_types.unwrap() else { panic!("no loss") };
    assert_eq!(lost.num_events_lost, 60);
    end(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_used_is_a_problem_and_keeps_nobody_from_the_ring() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let node = start(7, &file.join("history")).await;
    node.push(1);
    assert_eq!(node.ports(since(0)).await, [1]);
    let named = timeout(DEADLINE, async {
        while !node.outputs.status.problems().iter().any(|problem| problem.contains("history")) {
            tokio::task::yield_now().await;
        }
    });
    named.await.unwrap();
    end(node).await;
}
