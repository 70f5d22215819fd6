// SPDX-License-Identifier: Apache-2.0
//! The latest flows, and which of them a viewer wants to see.

use super::{Class, Event};
use serde::Deserialize;
use std::collections::VecDeque;

/// How many are kept.
pub(crate) const MOST: usize = 8192;
/// The most rules of a flow that are shown.
pub(super) const RULES: usize = 8;
/// The longest text to look for.
const TEXT: usize = 253;

/// Numbered without gaps, the oldest first.
#[derive(Default)]
pub(crate) struct Rows {
    rows: VecDeque<Event>,
    /// The number of the next one.
    next: u64,
}

/// What a viewer wants to see; what is empty is of no interest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Filter {
    pub(crate) verdict: String,
    pub(crate) pod: String,
    pub(crate) port: Option<u32>,
    pub(crate) text: String,
}

/// The flows that a viewer is told of, and how many were left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) events: Vec<Event>,
    pub(crate) missed: u64,
}

impl Rows {
    pub(crate) fn push(&mut self, mut event: Event) {
        event.id = self.next;
        self.next += 1;
        if self.rows.len() >= MOST {
            self.rows.pop_front();
        }
        self.rows.push_back(event);
    }

    /// The number of the next flow.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Those from a number on that a filter wants, no more than so many: all that were refused before any other, and of each the latest.
    /// Flows that are no longer there count as missed.
    pub(crate) fn choose(&self, from: u64, filter: &Filter, most: usize) -> Chosen {
        let first = self.next - self.rows.len() as u64;
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let wanted: Vec<_> = self.rows.iter().skip(skip).filter(|event| filter.wants(event)).collect();
        let refused = |event: &&&Event| matches!(event.class, Class::Denied | Class::Dropped);
        let gone = first.saturating_sub(from);
        if wanted.len() <= most {
            return Chosen { events: wanted.into_iter().cloned().collect(), missed: gone };
        }
        let bad = wanted.iter().rev().filter(refused);
        let good = wanted.iter().rev().filter(|event| !refused(event));
        let mut events: Vec<_> = bad.chain(good).take(most).map(|event| (*event).clone()).collect();
        events.sort_by_key(|event| event.id);
        Chosen { missed: gone + (wanted.len() - events.len()) as u64, events }
    }
}

impl Filter {
    /// As they are compared: in lower case, and no longer than any text of a flow.
    pub(crate) fn normal(self) -> Self {
        let short = |text: String| text.trim().to_lowercase().chars().take(TEXT).collect::<String>();
        Self { verdict: short(self.verdict), pod: short(self.pod), port: self.port, text: short(self.text) }
    }

    fn wants(&self, event: &Event) -> bool {
        let ends = [&event.source, &event.destination];
        let verdict = match self.verdict.as_str() {
            "allowed" => event.class == Class::Allowed,
            "denied" => event.class == Class::Denied,
            // Whatever did not arrive.
            "dropped" => matches!(event.class, Class::Denied | Class::Dropped),
            _ => true,
        };
        let pod = |name: &str| {
            ends.iter().any(|end| {
                has(&end.name, name) || (name.contains('/') && has(&format!("{}/{}", end.namespace, end.name), name))
            })
        };
        verdict
            && (self.pod.is_empty() || pod(&self.pod))
            && self.port.is_none_or(|port| event.service == Some(port) || ends.iter().any(|end| end.port == Some(port)))
            && (self.text.is_empty() || self.text_in(event))
    }

    fn text_in(&self, event: &Event) -> bool {
        let ends = [&event.source, &event.destination];
        let texts = ends.iter().flat_map(|end| [&end.namespace, &end.name, &end.ip]);
        let own = [&event.reason, &event.node, &event.request];
        let texts = texts.chain(own).chain(&event.deny).chain(&event.allow).map(String::as_str);
        texts.chain([event.protocol, event.direction]).any(|text| has(text, &self.text))
    }
}

/// Whether a text has a part, which is in lower case.
fn has(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(part)
}
