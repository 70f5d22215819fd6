// SPDX-License-Identifier: Apache-2.0
//! Policies that would have let denied flows through: one for all flows alike, made when the first is seen, while its labels are known.

use super::event::Event;
use crate::name::Name;
use hubble::proto::flow::Flow;
use hubble::suggest;
use std::collections::HashMap;

/// How many are kept.
const MOST: usize = 512;
/// The longest one, in bytes; a longer one is not offered.
const LONGEST: usize = 16 * 1024;

type Key = (Name, Name, &'static str, Option<u32>, &'static str);

/// By number. Numbers are never given twice.
#[derive(Default)]
pub(super) struct Proposals {
    numbers: HashMap<Key, u64>,
    texts: HashMap<u64, String>,
    next: u64,
}

impl Proposals {
    /// The number of the one for this flow; none if no policy can allow it.
    pub(super) fn of(&mut self, flow: &Flow, event: &Event) -> Option<u64> {
        let end = |endpoint: Option<&_>, names: &[String]| Name::of(endpoint.unwrap_or(&Default::default()), names);
        let (source, destination) = (flow.source.as_ref(), flow.destination.as_ref());
        let ends = (end(source, &flow.source_names), end(destination, &flow.destination_names));
        let key = (ends.0, ends.1, event.protocol, event.service, event.direction);
        if let Some(number) = self.numbers.get(&key) {
            return Some(*number);
        }
        let text = serde_saphyr::to_string(&suggest::missing(flow)?).ok().filter(|text| text.len() <= LONGEST)?;
        if self.texts.len() >= MOST {
            self.numbers.clear();
            self.texts.clear();
        }
        self.next += 1;
        self.numbers.insert(key, self.next);
        self.texts.insert(self.next, text);
        Some(self.next)
    }

    pub(super) fn get(&self, number: u64) -> Option<&str> {
        self.texts.get(&number).map(String::as_str)
    }
}
