// SPDX-License-Identifier: Apache-2.0
//! Whether the flow table holds what the model remembers.

use std::collections::BTreeMap;

use super::super::dump::Dump;
use super::Drive;

impl Drive<'_> {
    /// What is remembered is what the model remembers, and nothing leads astray.
    pub(super) fn compare(&self, dump: &Dump) -> Result<(), String> {
        let expected: BTreeMap<_, _> =
            self.model.records().into_iter().map(|record| (record.opening.pair(), record)).collect();
        for record in dump.records() {
            let pair = record.opening.pair();
            if expected.get(&pair) != Some(&record) {
                return Err(format!("  remembered {record:?}\n  instead of {:?}", expected.get(&pair)));
            }
        }
        if let Some(lost) = expected.keys().find(|pair| !dump.records.contains_key(pair)) {
            return Err(format!("  forgotten {lost:?}"));
        }
        let aliases: BTreeMap<_, _> =
            self.model.aliases.iter().map(|(answer, pair)| (answer.pair(), (*answer, *pair))).collect();
        let found: BTreeMap<_, _> =
            dump.aliases.iter().map(|(pair, (_, answer, own))| (*pair, (*answer, *own))).collect();
        if let Some((pair, wrong)) = found.iter().find(|(pair, alias)| aliases.get(pair) != Some(alias)) {
            return Err(format!("  alias {wrong:?}\n  instead of {:?}", aliases.get(pair)));
        }
        if let Some(lost) = aliases.values().find(|(answer, _)| !found.contains_key(&answer.pair())) {
            return Err(format!("  forgotten alias {lost:?}"));
        }
        Ok(())
    }
}
