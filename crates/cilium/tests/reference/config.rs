// SPDX-License-Identifier: Apache-2.0
//! Configuration keys: the descriptions that the flags' help and the readers' defaults are made of.

use crate::chart;
use crate::page::{Page, code};
use model::config::{AnyKey, Group, operator};
use std::collections::BTreeMap;

const TEXT: &str = "\
One key per option. They are the entries of the ConfigMap `cilium-config`, which the chart writes and both daemons read, and each is a flag of
the daemon that reads it (`--key=value`); flags win. The last column is the value of the chart that sets the key; a key without one is set with
`extraConfig`. All values that cannot be used are reported at once, each with its key, and a key that nobody knows is warned of.";

pub(crate) fn page() -> Page {
    let mut page = Page::new("Configuration keys", TEXT);
    page.heading(2, "cilium-agent");
    table(&mut page, agent::keys());
    page.heading(2, "cilium-operator");
    table(&mut page, operator::Config::keys());
    page
}

/// The keys of both daemons, by name.
pub(crate) fn all() -> Vec<AnyKey> {
    let keys = agent::keys().into_iter().chain(operator::Config::keys());
    keys.map(|key| (key.name, key)).collect::<BTreeMap<_, _>>().into_values().collect()
}

fn table(page: &mut Page, mut keys: Vec<AnyKey>) {
    keys.sort_by_key(|key| key.name);
    let rows = keys.iter().map(|key| [code(key.name), code(key.default), key.meaning.to_owned(), chart::source(key)]);
    page.table(["key", "default", "meaning", "chart value"], rows);
}
