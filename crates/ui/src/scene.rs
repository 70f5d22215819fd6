// SPDX-License-Identifier: Apache-2.0
//! What is known of a namespace (or of all) while somebody looks at it: who talks to whom, the latest flows, and rates. All of it is bounded,
//! and what does not fit is counted.

mod event;
mod graph;
mod proposals;
mod rates;
mod rows;
#[cfg(test)]
mod tests;
mod verdicts;

pub(crate) use event::{Class, Event};
pub(crate) use graph::Graph;
pub(crate) use rates::Rates;
pub(crate) use rows::{Filter, Rows};

use crate::name::text;
use hubble::proto::flow::{Flow, FlowType};
use hubble::proto::observer::GetFlowsResponse;
use hubble::proto::observer::get_flows_response::ResponseTypes;
use hubble::proto::relay::{NodeState, NodeStatusEvent};
use proposals::Proposals;
use std::collections::BTreeSet;
use verdicts::Verdicts;

/// Edges that nothing was seen of for so long are taken out, in milliseconds.
const IDLE: i64 = 10 * 60 * 1000;
/// The most names of nodes that are kept as unavailable.
const UNAVAILABLE: usize = 64;

/// The state of the stream of flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Why there are no flows at the moment; none if all is well.
    pub(crate) problem: Option<String>,
    pub(crate) unavailable: BTreeSet<String>,
}

/// Everything of a namespace. A change gets the next version, by which viewers know what they have not seen.
pub(crate) struct Scene {
    pub(crate) graph: Graph,
    pub(crate) rows: Rows,
    pub(crate) rates: Rates,
    pub(crate) link: Link,
    /// Events that the cluster lost.
    pub(crate) lost: u64,
    pub(crate) version: u64,
    /// With another one, nothing that was told before counts any more.
    pub(crate) generation: u64,
    proposals: Proposals,
    verdicts: Verdicts,
    /// The time of the latest flow in nanoseconds, from which on the next stream is asked.
    latest: i64,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self {
            graph: Graph::default(),
            rows: Rows::default(),
            rates: Rates::default(),
            link: Link { problem: Some("connecting to hubble-relay".to_owned()), unavailable: BTreeSet::new() },
            lost: 0,
            version: 0,
            generation: 0,
            proposals: Proposals::default(),
            verdicts: Verdicts::default(),
            latest: 0,
        }
    }

    /// Takes in an answer of the relay, at this time in milliseconds.
    pub(crate) fn take(&mut self, answer: &GetFlowsResponse, now: i64) {
        match &answer.response_types {
            Some(ResponseTypes::Flow(flow)) => {
                // A clock that is ahead would hide what all nodes see until then.
                let time = flow.time.as_ref().map_or(0, hubble::proto::nanos);
                self.latest = self.latest.max(time.min(now.saturating_mul(1_000_000)));
                self.flow(flow, now);
            }
            Some(ResponseTypes::LostEvents(events)) => self.lost = self.lost.saturating_add(events.num_events_lost),
            Some(ResponseTypes::NodeStatus(status)) => self.link.nodes(status),
            None => {}
        }
    }

    fn flow(&mut self, flow: &Flow, now: i64) {
        // The same packet is also told of as what became of it. A socket that was translated has sent nothing yet.
        if self.verdicts.take(flow) || flow.r#type() == FlowType::Sock {
            return;
        }
        self.version += 1;
        let mut event = Event::of(flow, now, self.verdicts.of(flow));
        if event.class == Class::Denied && event.deny.is_empty() && event.by_default {
            event.proposal = self.proposals.of(flow, &event);
        }
        self.rates.add(event.class, event.time, now);
        self.graph.add(flow, &event, self.version);
        self.rows.push(event);
    }

    /// A proposed policy by its number.
    pub(crate) fn proposal(&self, id: u64) -> Option<&str> {
        self.proposals.get(id)
    }

    /// When the latest flow was, in nanoseconds; none before the first.
    pub(crate) fn latest(&self) -> Option<i64> {
        Some(self.latest).filter(|time| *time > 0)
    }

    /// Takes out what is old.
    pub(crate) fn sweep(&mut self, now: i64) {
        if self.graph.sweep(now - IDLE) {
            self.generation += 1;
        }
    }
}

impl Link {
    /// The stream has begun, or why there is none.
    pub(crate) fn set(&mut self, problem: Option<String>) {
        self.problem = problem.as_deref().map(text);
        if self.problem.is_none() {
            self.unavailable.clear();
        }
    }

    fn nodes(&mut self, status: &NodeStatusEvent) {
        for name in &status.node_names {
            match status.state_change() {
                NodeState::NodeConnected | NodeState::NodeGone => drop(self.unavailable.remove(name)),
                NodeState::NodeUnavailable | NodeState::NodeError if self.unavailable.len() < UNAVAILABLE => {
                    self.unavailable.insert(text(name));
                }
                _ => {}
            }
        }
    }
}
