// SPDX-License-Identifier: Apache-2.0
//! What the chart makes of keys: the template that writes them, and the texts that it accepts for them.

use super::values_in;
use crate::page::{code, codes};
use model::config::{Accepts, AnyKey, Form, Source};
use std::fmt::Write as _;

const GENERATED: &str = "Generated from the declarations of the keys by `make docs` and compared by `make check`.";

/// How the chart sets a key, for the reference.
pub(crate) fn source(key: &AnyKey) -> String {
    let value = match key.chart.source {
        Source::Extra => return String::new(),
        Source::Value(path) | Source::Optional(path) | Source::OrDefault(path) => code(path),
        Source::Always(text) => format!("always {}", code(text)),
        Source::Template(template) => match values_in(template) {
            values if values.is_empty() => "the chart's own".to_owned(),
            values if template.contains("{{ not ") => format!("not {}", codes(values)),
            values => codes(values),
        },
    };
    match key.chart.when.map(values_in) {
        Some(conditions) if !conditions.is_empty() => format!("{value}; depends on {}", codes(conditions)),
        _ => value,
    }
}

/// `cilium.config`: the data of the ConfigMap, but for `extraConfig`.
pub(super) fn template(keys: &[AnyKey]) -> String {
    let mut text = format!("{{{{/* {GENERATED} */}}}}\n{{{{- define \"cilium.config\" }}}}\ndata:\n");
    let mut condition = None;
    for key in keys {
        let lines = match key.chart.source {
            Source::Extra => continue,
            Source::Value(path) => entry(key, &expression(key, &format!(".Values.{path}"))),
            Source::Optional(path) => {
                let inner = entry(key, &expression(key, "."));
                format!("  {{{{- with .Values.{path} }}}}\n{inner}{END}")
            }
            Source::OrDefault(path) => {
                entry(key, &format!("{{{{ default {:?} .Values.{path} | quote }}}}", key.default))
            }
            Source::Always(text) => entry(key, &format!("{text:?}")),
            Source::Template(template) => entry(key, template),
        };
        if key.chart.when != condition {
            text.extend(condition.map(|_| END));
            text.extend(key.chart.when.map(|condition| format!("  {{{{- if {condition} }}}}\n")));
            condition = key.chart.when;
        }
        text.push_str(&lines);
    }
    text.extend(condition.map(|_| END));
    text + "{{- end }}\n"
}

const END: &str = "  {{- end }}\n";

fn entry(key: &AnyKey, value: &str) -> String {
    format!("  {}: {value}\n", key.name)
}

fn expression(key: &AnyKey, value: &str) -> String {
    if key.form.list {
        format!("{{{{ join \" \" {value} | quote }}}}")
    } else {
        format!("{{{{ include \"cilium.text\" {value} | quote }}}}")
    }
}

/// `files/config-values.yaml`: what the daemons accept, and what they say when they refuse.
pub(super) fn accepted(keys: &[AnyKey]) -> String {
    let mut forms: Vec<(&Form, Vec<&str>)> = Vec::new();
    for key in keys.iter().filter(|key| key.form.accepts != Accepts::Text) {
        match forms.iter_mut().find(|(form, _)| **form == key.form) {
            Some((_, names)) => names.push(key.name),
            None => forms.push((&key.form, vec![key.name])),
        }
    }
    let mut text = format!(
        "# {GENERATED}\n# With least and most, the value is a whole number; with list, each of several is looked at.\n"
    );
    for (form, names) in forms {
        let (pattern, bounds) = pattern(&form.accepts);
        writeln!(text, "- want: {}\n  takes: {}", quoted(&form.want), quoted(&pattern)).unwrap();
        if let Some((least, most)) = bounds {
            writeln!(text, "  least: {least}\n  most: {most}").unwrap();
        }
        if form.list {
            text.push_str("  list: true\n");
        }
        text.push_str("  keys:\n");
        names.iter().for_each(|name| writeln!(text, "    - {name}").unwrap());
    }
    text
}

/// A regular expression, and for whole numbers the least and the most.
fn pattern(accepts: &Accepts) -> (String, Option<(u64, u64)>) {
    match accepts {
        Accepts::Text => (String::new(), None),
        Accepts::Switch => ("^(true|false)$".to_owned(), None),
        Accepts::Names(names) => (format!("^({})$", names.join("|")), None),
        Accepts::Whole(least, most) => ("^[+]?0*[0-9]{1,15}$".to_owned(), Some((*least, *most))),
        Accepts::Decimal => ("^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$".to_owned(), None),
        Accepts::Pattern(pattern) => ((*pattern).to_owned(), None),
    }
}

/// A text in YAML.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
