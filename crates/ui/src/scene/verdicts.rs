// SPDX-License-Identifier: Apache-2.0
//! Which rules decided a flow. A packet's verdicts are told of before what became of it, and apart from it, and only for the first packet;
//! so they are remembered for a while.

use super::event::{ports, rules};
use hubble::POLICY_VERDICT;
use hubble::proto::flow::Flow;
use std::collections::{HashMap, VecDeque};

/// How many connections' rules are remembered.
const MOST: usize = 4096;

type Key = (String, String, &'static str, Option<u32>, Option<u32>);

/// By name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) deny: Vec<String>,
    pub(crate) allow: Vec<String>,
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
        let said = own(flow);
        match self.rules.get_mut(&key) {
            Some(known) if !said.deny.is_empty() => *known = said,
            // Of both ends of a connection, each has rules of its own.
            Some(known) => {
                known.deny.clear();
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
        if own != Rules::default() {
            return own;
        }
        self.rules.get(&key(flow)).cloned().unwrap_or_default()
    }
}

fn own(flow: &Flow) -> Rules {
    Rules {
        deny: [rules(&flow.egress_denied_by), rules(&flow.ingress_denied_by)].concat(),
        allow: [rules(&flow.egress_allowed_by), rules(&flow.ingress_allowed_by)].concat(),
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
