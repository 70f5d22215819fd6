// SPDX-License-Identifier: Apache-2.0
//! The subset of kubectl's JSONPath templates that scripts use: text, and `{.a.b}`, `{$.a['b'][0]}`, `{.a[*].b}`.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(i64),
    All,
}

/// Checks a template.
pub(crate) fn check(template: &str) -> Result<(), String> {
    parse(template).map(|_| ())
}

/// Expands the template for a value; a path that leads nowhere is empty.
pub(crate) fn apply(template: &str, value: &Value) -> String {
    let mut text = String::new();
    for part in parse(template).unwrap_or_default() {
        match part {
            Part::Text(part) => text.push_str(&part),
            Part::Path(steps) => {
                let found = walk(value, &steps).into_iter().map(show).collect::<Vec<_>>();
                text.push_str(&found.join(" "));
            }
        }
    }
    text
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn walk<'a>(value: &'a Value, steps: &[Step]) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        let next = |value: &'a Value| -> Vec<&'a Value> {
            match step {
                Step::Field(name) => value.get(name).into_iter().collect(),
                Step::Index(index) => value.as_array().and_then(|list| at(list, *index)).into_iter().collect(),
                Step::All => match value {
                    Value::Array(list) => list.iter().collect(),
                    Value::Object(map) => map.values().collect(),
                    _ => Vec::new(),
                },
            }
        };
        found = found.into_iter().flat_map(next).collect();
    }
    found
}

fn at(list: &[Value], index: i64) -> Option<&Value> {
    let index = if index < 0 { index + i64::try_from(list.len()).ok()? } else { index };
    list.get(usize::try_from(index).ok()?)
}

fn parse(template: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('{') {
        let (path, after) =
            after.split_once('}').ok_or_else(|| format!("jsonpath {template:?}: a brace is not closed"))?;
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
        parts.push(part(path.trim()).ok_or_else(|| format!("jsonpath {template:?}: {{{path}}} is not understood"))?);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

fn part(text: &str) -> Option<Part> {
    if let Some(quoted) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
        return Some(Part::Text(quoted.replace("\\n", "\n").replace("\\t", "\t")));
    }
    let mut rest = text.strip_prefix('$').unwrap_or(text);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (inside, after) = after.split_once(']')?;
            steps.push(bracket(inside.trim())?);
            rest = after;
        } else {
            let after = rest.strip_prefix('.').or_else(|| steps.is_empty().then_some(rest))?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            match name {
                "*" => steps.push(Step::All),
                "" if after.starts_with('[') || (after.is_empty() && steps.is_empty()) => {}
                name if name.is_empty() || name.contains(char::is_whitespace) => return None,
                name => steps.push(Step::Field(name.to_owned())),
            }
            rest = after;
        }
    }
    Some(Part::Path(steps))
}

fn bracket(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    let quoted = |q: char| text.strip_prefix(q).and_then(|t| t.strip_suffix(q));
    match quoted('\'').or_else(|| quoted('"')) {
        Some(name) => Some(Step::Field(name.to_owned())),
        None => text.parse().ok().map(Step::Index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_fields_items_and_all_items() {
        let value = json!({"revision": 7, "a": {"b-c": "x"}, "list": [{"n": 1}, {"n": 2}]});
        for (template, want) in [
            ("{.revision}", "7"),
            ("{$.a['b-c']}", "x"),
            ("{.a.b-c}!", "x!"),
            ("{.list[*].n}", "1 2"),
            ("{.list[-1].n}", "2"),
            ("{.list[0]}", "{\"n\":1}"),
            ("{.nothing.here}", ""),
            ("r={.revision}{\"\\n\"}", "r=7\n"),
            ("{.list.*.n}", "1 2"),
        ] {
            assert_eq!(apply(template, &value), want, "{template}");
        }
        assert_eq!(apply("{$}", &json!(1)), "1");
    }

    #[test]
    fn a_template_that_is_not_understood_is_refused() {
        for bad in ["{.a", "{.a[x]}", "{..a}", "{range .x}", "{.a[?(@.b)]}"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
