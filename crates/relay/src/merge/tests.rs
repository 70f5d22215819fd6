// SPDX-License-Identifier: Apache-2.0
//! What a client hears of nodes that behave, and of those that do not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod restless;

use super::call::now;
use super::{Rules, merge};
use crate::fixture::{DEADLINE, Does, Fake, pool};
use crate::pool::{Link, Nodes};
use hubble::proto::nanos;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::observer::{GetAgentEventsRequest, GetFlowsRequest, GetFlowsResponse};
use hubble::proto::relay::NodeState;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;
use tonic::Status;

const PATIENT: Duration = Duration::from_secs(3600);
const RULES: Rules =
    Rules { buffer: 10, drain: PATIENT, opening: PATIENT, silence: PATIENT, retry: Duration::from_millis(20) };

/// What a client hears.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    /// Of a node, with its time.
    Flow(String, i64),
    /// What became of nodes, and why.
    Status(NodeState, Vec<String>, String),
}

struct Client(Receiver<Result<GetFlowsResponse, Status>>);

impl Client {
    fn ask(request: GetFlowsRequest, nodes: Nodes, rules: Rules) -> Self {
        let (sender, receiver) = channel(1);
        tokio::spawn(merge(request, nodes, rules, sender));
        Self(receiver)
    }

    async fn next(&mut self) -> Option<Heard> {
        let answer = timeout(DEADLINE, self.0.recv()).await.unwrap()?.unwrap();
        Some(match answer.response_types.unwrap() {
            ResponseTypes::Flow(_) => Heard::Flow(answer.node_name, nanos(&answer.time.unwrap())),
            ResponseTypes::NodeStatus(status) => {
                Heard::Status(status.state_change(), status.node_names, status.message)
            }
            other => panic!("{other:?}"),
        })
    }

    async fn all(mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        while let Some(heard) = self.next().await {
            all.push(heard);
        }
        all
    }
}

fn flow(name: &str, time: i64) -> Heard {
    Heard::Flow(name.to_owned(), time)
}

fn status(state: NodeState, names: &[&str], message: &str) -> Heard {
    Heard::Status(state, names.iter().map(|&name| name.to_owned()).collect(), message.to_owned())
}

fn following() -> GetFlowsRequest {
    GetFlowsRequest { follow: true, number: 2, ..GetFlowsRequest::default() }
}

#[tokio::test]
async fn flows_of_all_nodes_come_in_the_order_of_time_after_what_the_nodes_are() {
    let fakes = [
        Fake::start("a", Does::Tell(vec![1, 4, 6])).await,
        Fake::start("b", Does::Tell(vec![2, 3, 7])).await,
        Fake::start("c", Does::Tell(vec![5])).await,
    ];
    let (writer, nodes) = pool(&fakes).await;
    let mut away = fakes[0].node().await;
    away.link = Link::Away("no answer in time".to_owned());
    writer.send_modify(|nodes| drop(nodes.insert("d".to_owned(), away)));
    let heard = Client::ask(GetFlowsRequest::default(), nodes, RULES).all().await;
    let want = [
        status(NodeState::NodeConnected, &["a", "b", "c"], ""),
        status(NodeState::NodeUnavailable, &["d"], "d: no answer in time"),
        flow("a", 1),
        flow("b", 2),
        flow("b", 3),
        flow("a", 4),
        flow("c", 5),
        flow("a", 6),
        flow("b", 7),
    ];
    assert_eq!(heard, want);
}

#[tokio::test]
async fn a_node_that_breaks_or_sends_garbage_is_named_and_the_others_go_on() {
    let fakes = [
        Fake::start("a", Does::Tell((10..200).collect())).await,
        Fake::start("b", Does::TellAndFail(vec![1, 2])).await,
        Fake::garbage("c").await,
    ];
    let (_writer, nodes) = pool(&fakes).await;
    let heard = Client::ask(GetFlowsRequest::default(), nodes, RULES).all().await;
    assert!(heard.contains(&status(NodeState::NodeError, &["b"], "broken on purpose")), "{heard:?}");
    let of_c = |heard: &&Heard| matches!(heard, Heard::Status(NodeState::NodeError, names, _) if names == &["c"]);
    assert_eq!(heard.iter().filter(of_c).count(), 1, "{heard:?}");
    let flows: Vec<_> = heard.iter().filter(|heard| matches!(heard, Heard::Flow(..))).cloned().collect();
    let want: Vec<_> = (1..3).map(|time| flow("b", time)).chain((10..200).map(|time| flow("a", time))).collect();
    assert_eq!(flows, want);
}

#[tokio::test]
async fn a_node_that_hangs_is_not_waited_for_and_is_given_up_in_the_end() {
    let fakes = [Fake::start("a", Does::Tell(vec![1, 2])).await, Fake::start("b", Does::Hang).await];
    let (_writer, nodes) = pool(&fakes).await;
    let brief = Duration::from_millis(50);
    let mut client = Client::ask(GetFlowsRequest::default(), nodes.clone(), Rules { drain: brief, ..RULES });
    client.next().await;
    assert_eq!((client.next().await, client.next().await), (Some(flow("a", 1)), Some(flow("a", 2))));
    let rules = Rules { drain: brief, silence: Duration::from_secs(2), ..RULES };
    let heard = Client::ask(GetFlowsRequest::default(), nodes, rules).all().await;
    let last =
        Heard::Status(NodeState::NodeError, vec!["b".to_owned()], "nothing was heard of it for 2 seconds".to_owned());
    assert_eq!(heard.last(), Some(&last));
    assert_eq!(heard.len(), 4, "{heard:?}");
}

#[tokio::test]
async fn a_live_stream_asks_a_node_that_broke_for_what_came_after() {
    let fakes = [Fake::start("a", Does::TellAndFail(vec![5, 7])).await];
    let (_writer, nodes) = pool(&fakes).await;
    let mut client = Client::ask(following(), nodes, RULES);
    client.next().await;
    let mut heard = Vec::new();
    while !heard.contains(&Some(flow("a", 7))) {
        heard.push(client.next().await);
    }
    *fakes[0].script.does.lock() = Does::Tell(vec![9]);
    while heard.last() != Some(&Some(flow("a", 9))) {
        heard.push(client.next().await);
    }
    assert!(heard.contains(&Some(status(NodeState::NodeError, &["a"], "broken on purpose"))), "{heard:?}");
    let asked = fakes[0].script.asked.lock().clone();
    assert_eq!((asked[0].number, asked[0].since), (2, None));
    for again in &asked[1..] {
        assert!(again.number == 0 && again.follow && again.since.as_ref().map(nanos) == Some(8), "{again:?}");
    }
}

#[tokio::test]
async fn a_node_that_keeps_failing_is_told_of_once() {
    let fakes = [Fake::start("a", Does::TellAndFail(Vec::new())).await];
    let (_writer, nodes) = pool(&fakes).await;
    let mut client = Client::ask(following(), nodes, RULES);
    client.next().await;
    assert_eq!(client.next().await, Some(status(NodeState::NodeError, &["a"], "broken on purpose")));
    timeout(DEADLINE, async {
        while fakes[0].script.asked.lock().len() < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert!(client.0.try_recv().is_err(), "told again of the same");
}

#[tokio::test]
async fn a_live_stream_follows_nodes_that_come_and_go() {
    let fakes = [Fake::start("a", Does::Tell(vec![1])).await, Fake::start("b", Does::Tell(vec![2])).await];
    let (writer, nodes) = pool(&fakes[..1]).await;
    let mut client = Client::ask(following(), nodes, RULES);
    client.next().await;
    assert_eq!(client.next().await, Some(flow("a", 1)));
    let node = fakes[1].node().await;
    writer.send_modify(|nodes| drop(nodes.insert("b".to_owned(), node)));
    assert_eq!(client.next().await, Some(status(NodeState::NodeConnected, &["b"], "")));
    writer.send_modify(|nodes| drop(nodes.remove("a")));
    assert_eq!(client.next().await, Some(status(NodeState::NodeGone, &["a"], "")));
    assert_eq!(client.next().await, Some(flow("b", 2)), "nobody is left to wait for");
}

#[tokio::test]
async fn a_clock_that_is_ahead_holds_nobody_up() {
    let fakes = [Fake::start("a", Does::Tell(vec![i64::MAX / 2])).await, Fake::start("b", Does::Tell(vec![1])).await];
    let (_writer, nodes) = pool(&fakes).await;
    let mut client = Client::ask(following(), nodes, Rules { drain: Duration::from_millis(50), ..RULES });
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(client.next().await.unwrap());
    }
    assert!(heard.contains(&flow("a", i64::MAX / 2)) && heard.contains(&flow("b", 1)), "{heard:?}");
}

#[tokio::test]
async fn a_node_speaks_for_itself_only() {
    let fakes = [Fake::start("a", Does::Lie("b")).await, Fake::start("b", Does::Tell(vec![3])).await];
    let (_writer, nodes) = pool(&fakes).await;
    let (sender, mut receiver) = channel(1);
    tokio::spawn(merge(GetFlowsRequest::default(), nodes, RULES, sender));
    let mut flows = Vec::new();
    while let Some(answer) = timeout(DEADLINE, receiver.recv()).await.unwrap() {
        let answer = answer.unwrap();
        match answer.response_types.unwrap() {
            ResponseTypes::Flow(flow) => flows.push((answer.node_name, flow.node_name)),
            ResponseTypes::NodeStatus(status) => assert_ne!(status.state_change(), NodeState::NodeGone),
            other => panic!("{other:?}"),
        }
    }
    let own = |name: &str| (name.to_owned(), name.to_owned());
    assert_eq!(flows, [own("a"), own("b")], "nothing is believed after a lie");
}

#[tokio::test]
async fn a_node_that_floods_with_old_times_does_not_hide_the_others() {
    let fakes = [Fake::start("a", Does::Flood(0)).await, Fake::start("b", Does::Tell(vec![now()])).await];
    let (_writer, nodes) = pool(&fakes).await;
    let request = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let mut client = Client::ask(request, nodes, RULES);
    for _ in 0..10_000 {
        if matches!(client.next().await, Some(Heard::Flow(name, _)) if name == "b") {
            return;
        }
    }
    panic!("not heard of after 10000 flows of the other");
}

#[tokio::test]
async fn what_a_node_with_a_fast_clock_has_told_is_not_asked_for_again() {
    let ahead = now() + 3_600_000_000_000;
    let fakes = [Fake::start("a", Does::TellAndFail(vec![ahead])).await];
    let (_writer, nodes) = pool(&fakes).await;
    let mut client = Client::ask(following(), nodes, RULES);
    while client.next().await != Some(flow("a", ahead)) {}
    let again = timeout(DEADLINE, async {
        loop {
            if let Some(again) = fakes[0].script.asked.lock().get(1) {
                return again.clone();
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(again.await.unwrap().since.as_ref().map(nanos), Some(ahead + 1));
}

#[tokio::test]
async fn a_live_stream_gives_up_order_before_it_falls_behind() {
    let fakes = [Fake::start("a", Does::Flood(0)).await, Fake::start("b", Does::Hang).await];
    let (_writer, nodes) = pool(&fakes).await;
    let mut client = Client::ask(following(), nodes, RULES);
    for _ in 0..1000 {
        client.next().await.unwrap();
    }
}

#[tokio::test]
async fn a_burst_is_kept_in_order_however_many_nodes_share_the_buffer() {
    let burst: Vec<i64> = (10..18).collect();
    let fakes = [Fake::start("a", Does::Tell(burst.clone())).await, Fake::start("b", Does::Hang).await];
    let (writer, nodes) = pool(&fakes).await;
    let request = GetFlowsRequest { number: 100, ..following() };
    let mut client = Client::ask(request, nodes, Rules { buffer: 1, ..RULES });
    let sent = &fakes[0].script.sent;
    timeout(DEADLINE, async {
        while sent.load(Ordering::Relaxed) < burst.len() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let late = Fake::start("c", Does::Tell(vec![1])).await;
    let node = late.node().await;
    writer.send_modify(|nodes| {
        nodes.remove("b");
        nodes.insert("c".to_owned(), node);
    });
    let first = loop {
        match client.next().await.unwrap() {
            Heard::Status(..) => {}
            flow @ Heard::Flow(..) => break flow,
        }
    };
    assert_eq!(first, flow("c", 1));
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_a_flood_and_nobody_else() {
    const SIZE: usize = 10_000;
    let fakes = [Fake::start("a", Does::Flood(SIZE)).await];
    let (_writer, nodes) = pool(&fakes).await;
    let _stuck = Client::ask(following(), nodes.clone(), RULES);
    let sent = &fakes[0].script.sent;
    timeout(DEADLINE, async {
        while sent.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let mut other = Client::ask(following(), nodes, RULES);
    for _ in 0..5000 {
        other.next().await.unwrap();
    }
    let of_stuck = sent.load(Ordering::Relaxed) - 5000;
    assert!(of_stuck < 1000, "{of_stuck} flows were taken for clients that did not read");
}

#[tokio::test]
async fn large_flows_are_held_by_their_bytes() {
    const SIZE: usize = 1 << 20;
    let fakes = [Fake::start("a", Does::Flood(SIZE)).await, Fake::start("b", Does::Hang).await];
    let (_writer, nodes) = pool(&fakes).await;
    let rules = Rules { buffer: 10_000, ..RULES };
    // It gets nothing before the other node has said something.
    let _waiting = Client::ask(GetFlowsRequest::default(), nodes.clone(), rules);
    let mut other = Client::ask(following(), nodes, rules);
    for _ in 0..61 {
        other.next().await.unwrap();
    }
    let of_waiting = fakes[0].script.sent.load(Ordering::Relaxed).saturating_sub(60);
    assert!(of_waiting < 30, "{of_waiting} MiB were taken for a client that gets nothing yet");
}

#[tokio::test]
async fn agent_events_are_those_of_all_nodes() {
    let fakes = [Fake::start("a", Does::Hang).await, Fake::start("b", Does::Hang).await];
    let (_writer, nodes) = pool(&fakes).await;
    let (sender, mut receiver) = channel(1);
    tokio::spawn(merge(GetAgentEventsRequest::default(), nodes, RULES, sender));
    let mut names = Vec::new();
    while let Some(answer) = timeout(DEADLINE, receiver.recv()).await.unwrap() {
        names.push(answer.unwrap().node_name);
    }
    names.sort_unstable();
    assert_eq!(names, ["a", "b"]);
}
