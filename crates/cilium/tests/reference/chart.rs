// SPDX-License-Identifier: Apache-2.0
//! Which value of the chart sets which key, read off the ConfigMap's template.

use crate::page::{code, codes};
use std::collections::BTreeMap;

/// A block of the template that is open.
struct Block {
    /// The values that the line which opens it names.
    values: Vec<String>,
    /// Whether they are what `.` means inside, rather than a condition.
    with: bool,
}

/// What the chart writes, by key, as the reference shows it.
pub(crate) fn keys() -> BTreeMap<String, String> {
    let path = crate::tree("deploy/helm/cilium/templates/configmap.yaml");
    parse(&std::fs::read_to_string(path).unwrap())
}

fn parse(template: &str) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    let mut blocks: Vec<Block> = Vec::new();
    for line in template.lines().skip_while(|line| *line != "data:").map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["{{-", "end", ..] => drop(blocks.pop()),
            ["{{-", word @ ("if" | "with" | "range"), ..] => {
                blocks.push(Block { values: values(line), with: *word != "if" });
            }
            _ => keys.extend(
                line.split_once(": ")
                    .filter(|(key, _)| is_key(key))
                    .map(|(key, expression)| (key.to_owned(), source(expression, &blocks))),
            ),
        }
    }
    keys
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// The values that are named in a line, as `--set` names them.
fn values(line: &str) -> Vec<String> {
    let end = |text: &str| text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).unwrap_or(text.len());
    line.split(".Values.").skip(1).map(|rest| rest[..end(rest)].to_owned()).collect()
}

/// Where the value comes from.
fn source(expression: &str, blocks: &[Block]) -> String {
    let mut values = values(expression);
    if expression.split_whitespace().any(|word| word == ".") {
        values.extend(blocks.iter().rev().find(|block| block.with).into_iter().flat_map(|block| block.values.clone()));
    }
    let conditions: Vec<&String> = blocks.iter().filter(|block| !block.with).flat_map(|block| &block.values).collect();
    let negation = if expression.contains("{{ not ") { "not " } else { "" };
    let value = match (values.is_empty(), expression.contains("{{")) {
        (false, _) => format!("{negation}{}", codes(values)),
        (true, false) => format!("always {}", code(expression.trim_matches('"'))),
        (true, true) => "the chart's own".to_owned(),
    };
    if conditions.is_empty() { value } else { format!("{value}; depends on {}", codes(conditions)) }
}

#[test]
fn values_are_found_in_expressions_in_blocks_and_in_conditions() {
    let template = "\
data:
  a: {{ .Values.x.y | quote }}
  b: {{ not .Values.on | quote }}
  {{- if eq .Values.mode \"z\" }}
  {{- with .Values.list }}
  c: {{ join \" \" . | quote }}
  {{- end }}
  {{- end }}
  d: \"true\"
  {{- with include \"unknown\" . | trim }}
  e: {{ . | quote }}
  {{- end }}
  {{- range $key, $value := .Values.extraConfig }}
  {{ $key }}: {{ $value | toString | quote }}
  {{- end }}
";
    let found: Vec<(String, String)> = parse(template).into_iter().collect();
    let wanted = [
        ("a", "`x.y`"),
        ("b", "not `on`"),
        ("c", "`list`; depends on `mode`"),
        ("d", "always `true`"),
        ("e", "the chart's own"),
    ];
    assert_eq!(found, wanted.map(|(key, source)| (key.to_owned(), source.to_owned())));
}
