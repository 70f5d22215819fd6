// SPDX-License-Identifier: Apache-2.0
//! What of the chart follows from declarations: its values, of which each key of the daemons may have one and
//! `deploy/helm/own-values.yaml` declares the others, and what it makes of keys.

mod keys;
mod values;

use model::config::AnyKey;
use std::collections::BTreeMap;
use std::path::PathBuf;

const FOLDER: &str = "deploy/helm/cilium";

/// Every file that is written, by its path in the tree.
pub(crate) fn files() -> [(String, String); 6] {
    let keys = crate::config::all();
    let values = values::all(&keys);
    let file = |name: &str, text| (format!("{FOLDER}/{name}"), text);
    [
        file("values.yaml", values::yaml(&values)),
        // Templates cannot read the other one by its own name.
        file("files/defaults.yaml", values::yaml(&values)),
        file("values.schema.json", values::schema(&values)),
        file("files/known-values.txt", values::paths(&values)),
        file("files/config-values.yaml", keys::accepted(&keys)),
        file("templates/_keys.tpl", keys::template(&keys)),
    ]
}

pub(crate) use keys::source;

/// The values that a template names, as `--set` names them.
fn values_in(template: &str) -> Vec<String> {
    let end = |text: &str| text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).unwrap_or(text.len());
    template.split(".Values.").skip(1).map(|rest| rest[..end(rest)].trim_end_matches('.').to_owned()).collect()
}

#[test]
fn templates_name_no_value_that_is_not_declared() {
    let keys = crate::config::all();
    let declared = values::all(&keys);
    let known = |path: &str| {
        declared.keys().any(|value| value == path || value.starts_with(&format!("{path}.")))
            || declared.keys().any(|value| path.starts_with(&format!("{value}.")))
    };
    let mut seen = 0;
    for (path, template) in templates() {
        for value in values_in(&template) {
            seen += 1;
            assert!(known(&value), "{path} names {value}, which no key and no entry of own-values.yaml declares");
        }
    }
    assert!(seen > 100, "only {seen} values are named");
}

/// The chart's templates, by path.
fn templates() -> BTreeMap<String, String> {
    let files = everything().into_iter().filter(|path| path.starts_with(crate::tree(FOLDER).join("templates")));
    files.map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Everything in the chart but folders.
fn everything() -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![crate::tree(FOLDER)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

#[test]
fn the_chart_is_plain_files_since_helm_complains_of_links() {
    let files = everything();
    let links: Vec<_> = files.iter().filter(|path| path.is_symlink()).collect();
    assert!(links.is_empty() && files.len() > 20, "{links:?} of {} files", files.len());
}

#[test]
fn two_keys_do_not_share_a_value() {
    let keys = crate::config::all();
    let paths: Vec<_> = keys.iter().filter_map(|key: &AnyKey| key.chart.source.path()).collect();
    let distinct: std::collections::BTreeSet<_> = paths.iter().collect();
    assert_eq!(distinct.len(), paths.len(), "{paths:?}");
}
