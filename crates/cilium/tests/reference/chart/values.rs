// SPDX-License-Identifier: Apache-2.0
//! The values of the chart: `values.yaml`, its schema, and the list of known ones.

use model::config::{Accepts, AnyKey, Source};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const HEAD: &str = "\
# Values of the chart, under Cilium's names. A value that is not listed here is not known: `helm install` names it in its
# notes and the agent in its status, so that nothing is ignored in silence.
#
# Generated from the declarations of the keys and from own-values.yaml by `make docs` and compared by `make check`.
";
/// How wide comments are.
const WIDTH: usize = 120;

/// A value, or a section that has something said of it.
pub(super) struct Declaration {
    meaning: String,
    /// None of a section.
    default: Option<Value>,
    schema: Value,
}

/// Every value, by path.
pub(super) fn all(keys: &[AnyKey]) -> BTreeMap<String, Declaration> {
    let own = std::fs::read_to_string(crate::tree("deploy/helm/own-values.yaml")).unwrap();
    let own: BTreeMap<String, Value> = serde_saphyr::from_str(&own).unwrap();
    let own = own.into_iter().map(|(path, value)| (path, of_chart(&value)));
    let of_keys = keys.iter().filter_map(|key| Some((key.chart.source.path()?.to_owned(), of_key(key))));
    let mut all = BTreeMap::new();
    for (path, declaration) in own.chain(of_keys) {
        assert!(all.insert(path.clone(), declaration).is_none(), "{path} is declared twice");
    }
    all
}

fn of_chart(value: &Value) -> Declaration {
    let default = value.get("default");
    let meaning = value["meaning"].as_str().unwrap_or_default().to_owned();
    let schema = value.get("schema").cloned().unwrap_or_else(|| schema_of_default(default.unwrap_or(&Value::Null)));
    Declaration { meaning, default: default.cloned(), schema }
}

fn schema_of_default(default: &Value) -> Value {
    match default {
        Value::Null => json!({}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(_) => json!({"type": "integer"}),
        Value::String(_) => json!({"type": "string"}),
        Value::Array(_) => json!({"type": "array"}),
        Value::Object(_) => json!({"type": "object"}),
    }
}

fn of_key(key: &AnyKey) -> Declaration {
    let or_default = matches!(key.chart.source, Source::OrDefault(_));
    let meaning =
        if or_default { format!("{}; empty means {}.", key.meaning, key.default) } else { format!("{}.", key.meaning) };
    let default = match (key.chart.initial, &key.form.accepts) {
        (Some(yaml), _) => serde_saphyr::from_str(yaml).unwrap(),
        (None, _) if or_default => json!(""),
        (None, Accepts::Switch | Accepts::Whole(..) | Accepts::Decimal) => serde_json::from_str(key.default).unwrap(),
        (None, _) => json!(key.default),
    };
    let schema = key.chart.schema.map_or_else(|| schema_of_key(key, or_default), |s| serde_json::from_str(s).unwrap());
    Declaration { meaning, default: Some(default), schema }
}

fn schema_of_key(key: &AnyKey, or_default: bool) -> Value {
    match &key.form.accepts {
        _ if key.form.list => json!({"type": "array"}),
        Accepts::Switch => json!({"type": "boolean"}),
        Accepts::Whole(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Accepts::Decimal => json!({"type": ["string", "integer", "number"]}),
        Accepts::Names(names) => {
            json!({"enum": or_default.then_some(&"").into_iter().chain(names).collect::<Vec<_>>()})
        }
        Accepts::Text | Accepts::Pattern(_) => json!({"type": "string"}),
    }
}

/// `files/known-values.txt`: the path of each value.
pub(super) fn paths(all: &BTreeMap<String, Declaration>) -> String {
    all.iter().filter(|(_, value)| value.default.is_some()).map(|(path, _)| format!("{path}\n")).collect()
}

/// `values.schema.json`
pub(super) fn schema(all: &BTreeMap<String, Declaration>) -> String {
    let mut root = json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {}});
    for (path, declaration) in all.iter().filter(|(_, value)| value.default.is_some()) {
        let mut section = &mut root["properties"];
        let (parents, name) =
            path.rsplit_once('.').map_or((None, path.as_str()), |(parents, name)| (Some(parents), name));
        for parent in parents.into_iter().flat_map(|parents| parents.split('.')) {
            if section[parent].is_null() {
                section[parent] = json!({"type": "object", "properties": {}});
            }
            section = &mut section[parent]["properties"];
        }
        section[name] = declaration.schema.clone();
    }
    format!("{}\n", serde_json::to_string_pretty(&root).unwrap())
}

/// `values.yaml`
pub(super) fn yaml(all: &BTreeMap<String, Declaration>) -> String {
    let mut root = Section::default();
    for (path, declaration) in all {
        let mut section = &mut root;
        for name in path.split('.') {
            section = section.below.entry((name.to_lowercase(), name.to_owned())).or_default();
        }
        section.meaning.clone_from(&declaration.meaning);
        section.default.clone_from(&declaration.default);
    }
    let mut text = HEAD.to_owned();
    root.print("", &mut text);
    text
}

/// A part of `values.yaml`: what is below, or a value.
#[derive(Default)]
struct Section {
    meaning: String,
    default: Option<Value>,
    below: BTreeMap<(String, String), Section>,
}

impl Section {
    fn print(&self, indent: &str, text: &mut String) {
        for ((_, name), section) in &self.below {
            if indent.is_empty() {
                text.push('\n');
            }
            for line in wrapped(&section.meaning, WIDTH - indent.len()) {
                writeln!(text, "{indent}# {line}").unwrap();
            }
            match &section.default {
                Some(value) => writeln!(text, "{indent}{name}:{}", in_yaml(value, indent)).unwrap(),
                None => {
                    writeln!(text, "{indent}{name}:").unwrap();
                    section.print(&format!("{indent}  "), text);
                }
            }
        }
    }
}

/// A value after its name: on the same line if it is short, else below.
fn in_yaml(value: &Value, indent: &str) -> String {
    let line = value.to_string();
    if line.len() < 60 || !matches!(value, Value::Array(_) | Value::Object(_)) {
        return format!(" {line}");
    }
    let block = serde_saphyr::to_string(value).unwrap();
    block.lines().filter(|line| !line.is_empty()).map(|line| format!("\n{indent}  {line}")).collect()
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
