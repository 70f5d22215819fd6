// SPDX-License-Identifier: Apache-2.0
//! Which rules decided a flow. A packet's verdicts are told of before what became of it, and apart from it, and only for the first packet;
//! so they are remembered for a while.

use super::event::{ports, rules};
use hubble::POLICY_VERDICT;
use hubble::proto::flow::{Flow, TrafficDirection, Verdict};
use std::collections::{HashMap, VecDeque};

/// How many connections' rules are remembered.
const MOST: usize = 4096;

type Key = (String, String, &'static str, Option<u32>, Option<u32>);

/// By name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) deny: Vec<String>,
    pub(crate) allow: Vec<String>,
    /// Of which end it was that refused it. The drop itself tells where the packet was, which may be the program of the other end.
    pub(crate) refused: Option<TrafficDirection>,
}

/// Rules of connections, the oldest of which are forgotten first.
#[derive(Default)]
pub(super) struct Verdicts {
    rules: HashMap<Key, Rules>,
    order: VecDeque<Key>,
}

impl Verdicts {
    /// Whether it is a verdict, which is remembered.
    pub(super) fn take(&mut self, flow: &Flow) -> bool {
        if flow.event_type.as_ref().is_none_or(|event| event.r#type != POLICY_VERDICT) {
            return false;
        }
        let key = key(flow);
        let refused = (flow.verdict() == Verdict::Dropped).then(|| flow.traffic_direction());
        let said = Rules { refused, ..own(flow) };
        match self.rules.get_mut(&key) {
            Some(known) if !said.deny.is_empty() => *known = said,
            // Of both ends of a connection, each has rules of its own.
            Some(known) => {
                known.deny.clear();
                known.refused = said.refused;
                let more: Vec<_> = said.allow.into_iter().filter(|rule| !known.allow.contains(rule)).collect();
                known.allow.extend(more);
                known.allow.truncate(super::rows::RULES);
            }
            None => {
                if self.order.len() >= MOST
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.rules.remove(&oldest);
                }
                self.order.push_back(key.clone());
                self.rules.insert(key, said);
            }
        }
        true
    }

    /// Those of a flow: what it says itself, else what was said of its connection.
    pub(super) fn of(&self, flow: &Flow) -> Rules {
        let own = own(flow);
        let known = self.rules.get(&key(flow));
        if own == Rules::default() {
            return known.cloned().unwrap_or_default();
        }
        Rules { refused: known.and_then(|known| known.refused), ..own }
    }
}

fn own(flow: &Flow) -> Rules {
    Rules {
        deny: [rules(&flow.egress_denied_by), rules(&flow.ingress_denied_by)].concat(),
        allow: [rules(&flow.egress_allowed_by), rules(&flow.ingress_allowed_by)].concat(),
        refused: None,
    }
}

/// The connection, from whom opened it.
fn key(flow: &Flow) -> Key {
    let (protocol, from, to) = ports(flow);
    let ip = flow.ip.clone().unwrap_or_default();
    if flow.is_reply.unwrap_or_default() {
        (ip.destination, ip.source, protocol, to, from)
    } else {
        (ip.source, ip.destination, protocol, from, to)
    }
}
