// SPDX-License-Identifier: Apache-2.0
//! Flows that are alike in the fields that somebody named, as one: with these fields alone, and how many there were in each direction.

use crate::mask::Mask;
use crate::proto::flow::{self, Flow, TrafficDirection};
use crate::proto::observer::GetFlowsResponse;
use crate::proto::observer::get_flows_response::ResponseTypes;
use crate::service::Batch;
use prost::Message;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Kinds of flows that are counted at the same time. One more, and all are written early: nothing is lost, and memory has an end.
const KINDS: usize = 16_384;

/// The flows of one interval.
pub(super) struct Aggregate {
    /// The fields by which flows are alike.
    by: Mask,
    /// Those of them that are written.
    shown: Option<Mask>,
    interval: Duration,
    pace: Option<Interval>,
    most: usize,
    /// By the bytes of these fields.
    kinds: HashMap<Vec<u8>, GetFlowsResponse>,
    /// In the order in which they were first seen.
    order: Vec<Vec<u8>>,
}

impl Aggregate {
    pub(super) fn new(by: Mask, shown: Option<Mask>, interval: Duration) -> Self {
        Self { by, shown, interval, pace: None, most: KINDS, kinds: HashMap::new(), order: Vec::new() }
    }

    /// Counts flows. Returns what is to be written at once: all else that is said, and what there is no room for.
    pub(super) fn take(&mut self, batch: Batch) -> Batch {
        let mut now = Batch::new();
        for response in batch {
            match response.response_types {
                Some(ResponseTypes::Flow(flow)) => {
                    self.count(flow, GetFlowsResponse { response_types: None, ..response });
                    if self.order.len() >= self.most {
                        now.extend(self.drain());
                    }
                }
                _ => now.push(response),
            }
        }
        now
    }

    /// Until the end of the interval.
    pub(super) async fn due(&mut self) {
        let pace = self.pace.get_or_insert_with(|| {
            let mut pace = interval_at(Instant::now() + self.interval, self.interval);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace
        });
        pace.tick().await;
    }

    /// What was counted, which begins anew.
    pub(super) fn drain(&mut self) -> Batch {
        let mut kinds = std::mem::take(&mut self.kinds);
        let drained = std::mem::take(&mut self.order).into_iter().filter_map(|kind| kinds.remove(&kind));
        drained.collect()
    }

    /// The line of a kind has the time and the node of the latest flow of it.
    fn count(&mut self, flow: Flow, line: GetFlowsResponse) {
        let direction = flow.traffic_direction();
        let alike = self.by.apply(flow);
        let kind = alike.encode_to_vec();
        let mut counted = self.kinds.remove(&kind).and_then(flow_of).unwrap_or_else(|| {
            self.order.push(kind.clone());
            match &self.shown {
                Some(shown) => shown.apply(alike),
                None => alike,
            }
        });
        let counts = counted.aggregate.get_or_insert_default();
        add(counts, direction);
        self.kinds.insert(kind, GetFlowsResponse { response_types: Some(ResponseTypes::Flow(counted)), ..line });
    }
}

/// How many flows this one is.
pub(super) fn number(flow: &Flow) -> u64 {
    flow.aggregate.as_ref().map_or(1, |counts| {
        [counts.ingress_flow_count, counts.egress_flow_count, counts.unknown_direction_flow_count]
            .into_iter()
            .map(u64::from)
            .sum()
    })
}

fn flow_of(line: GetFlowsResponse) -> Option<Flow> {
    match line.response_types {
        Some(ResponseTypes::Flow(flow)) => Some(flow),
        _ => None,
    }
}

fn add(counts: &mut flow::Aggregate, direction: TrafficDirection) {
    let count = match direction {
        TrafficDirection::Ingress => &mut counts.ingress_flow_count,
        TrafficDirection::Egress => &mut counts.egress_flow_count,
        TrafficDirection::Unknown => &mut counts.unknown_direction_flow_count,
    };
    *count = count.saturating_add(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, allowed_syn, connected, denied_syn};
    use crate::proto::flow::LostEvent;
    use crate::proto::{timestamp, to_json};
    use abi::event::Event;
    use serde_json::{Value, json};

    fn mask(paths: &[&str]) -> Mask {
        Mask::compile(&paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>()).unwrap().unwrap()
    }

    fn response(seconds: i64, what: ResponseTypes) -> GetFlowsResponse {
        GetFlowsResponse {
            time: Some(timestamp(seconds * 1_000_000_000)),
            node_name: "n1".to_owned(),
            response_types: Some(what),
        }
    }

    /// The flows of events, a second each.
    fn batch(events: impl IntoIterator<Item = Event>) -> Batch {
        let flows = events.into_iter().flat_map(|event| fixture::decoder().decode(7, &fixture::record(event)));
        (1..).zip(flows).map(|(second, flow)| response(second, ResponseTypes::Flow(flow))).collect()
    }

    fn flows(batch: &Batch) -> Vec<Value> {
        batch.iter().map(|line| serde_json::from_str(&to_json(line).unwrap()).unwrap()).collect()
    }

    #[test]
    fn flows_that_are_alike_in_what_is_named_are_one_with_their_numbers() {
        let mut aggregate = Aggregate::new(mask(&["verdict", "destination.pod_name"]), None, Duration::from_secs(1));
        assert_eq!(aggregate.take(batch([allowed_syn(), denied_syn(), allowed_syn(), connected().into()])), []);
        let line = |time: &str, flow: Value| json!({"time": time, "node_name": "n1", "flow": flow});
        assert_eq!(
            flows(&aggregate.drain()),
            [
                line(
                    "1970-01-01T00:00:08Z",
                    json!({
                        "verdict": "FORWARDED", "destination": {"pod_name": "db-0"},
                        "aggregate": {"egress_flow_count": 4, "ingress_flow_count": 2},
                    })
                ),
                line(
                    "1970-01-01T00:00:05Z",
                    json!({
                        "verdict": "DROPPED", "destination": {"pod_name": "web-1"},
                        "aggregate": {"ingress_flow_count": 2},
                    })
                ),
                line(
                    "1970-01-01T00:00:09Z",
                    json!({
                        "verdict": "TRACED", "destination": {},
                        "aggregate": {"unknown_direction_flow_count": 1},
                    })
                ),
                line(
                    "1970-01-01T00:00:10Z",
                    json!({
                        "verdict": "TRANSLATED", "destination": {"pod_name": "db-0"},
                        "aggregate": {"unknown_direction_flow_count": 1},
                    })
                ),
            ]
        );
        assert_eq!(aggregate.drain(), []);
    }

    #[test]
    fn what_is_masked_is_told_apart_and_not_shown() {
        let mut aggregate =
            Aggregate::new(mask(&["verdict", "source.pod_name"]), Some(mask(&["verdict"])), Duration::from_secs(1));
        aggregate.take(batch([allowed_syn()]));
        let Some(ResponseTypes::Flow(flow)) = aggregate.drain().remove(0).response_types else { panic!() };
        assert_eq!(number(&flow), 3);
        assert_eq!((flow.verdict, flow.source, flow.aggregate.unwrap().egress_flow_count), (1, None, 2));
        assert_eq!(number(&Flow::default()), 1);
    }

    #[test]
    fn losses_are_told_at_once_and_so_is_what_there_is_no_room_for() {
        let mut aggregate = Aggregate::new(mask(&["l4"]), None, Duration::from_secs(1));
        let lost = response(1, ResponseTypes::LostEvents(LostEvent { num_events_lost: 7, ..LostEvent::default() }));
        assert_eq!(aggregate.take(vec![lost.clone()]), [lost]);
        aggregate.most = 4;
        let many = batch((0..10_u16).map(|port| Event { dport: port.to_be(), ..allowed_syn() }));
        let [early, late] = [aggregate.take(many), aggregate.drain()];
        assert!(early.len() >= 4 && late.len() < 4, "{early:?} {late:?}");
        let flows = early.into_iter().chain(late).filter_map(flow_of);
        assert_eq!(flows.map(|flow| number(&flow)).sum::<u64>(), 30);
    }
}
