// SPDX-License-Identifier: Apache-2.0
//! Configuration keys: the descriptions that the flags' help and the readers' defaults are made of.

use crate::chart;
use crate::page::{Page, code};
use model::config::{Key, operator};
use std::collections::BTreeSet;

const TEXT: &str = "\
One key per option. They are the entries of the ConfigMap `cilium-config`, which the chart writes and both daemons read, and each is a flag of
the daemon that reads it (`--key=value`); flags win. The last column is the value of the chart that sets the key; a key without one is set with
`extraConfig`. All values that cannot be used are reported at once, each with its key, and a key that nobody knows is warned of.";

pub(crate) fn page() -> Page {
    let mut page = Page::new("Configuration keys", TEXT);
    page.heading(2, "cilium-agent");
    table(&mut page, &agent::keys());
    page.heading(2, "cilium-operator");
    table(&mut page, operator::KEYS);
    page
}

/// The names of all keys.
pub(crate) fn known() -> BTreeSet<String> {
    let agent = agent::keys();
    agent.iter().chain(operator::KEYS).map(|key| key.name.to_owned()).collect()
}

fn table(page: &mut Page, keys: &[Key]) {
    let chart = chart::keys();
    let mut keys = keys.to_vec();
    keys.sort_by_key(|key| key.name);
    let rows = keys.iter().map(|key| {
        let value = chart.get(key.name).cloned().unwrap_or_default();
        [code(key.name), code(key.default), key.meaning.to_owned(), value]
    });
    page.table(["key", "default", "meaning", "chart value"], rows);
}
