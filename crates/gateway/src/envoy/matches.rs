// SPDX-License-Identifier: Apache-2.0
//! What requests must be like. Of routes the first that matches takes the request, so their places are all that precedence is made of.

use super::fields::{Fields, Node, Result};
use l7::{PathMatch, RouteMatch, ValueMatch, syntax};

/// What a text is as a path that is asked for.
type Kind = fn(String) -> PathMatch;

/// The `match` of a route.
pub(super) fn resolve(node: &Node<'_>) -> Result<RouteMatch> {
    let mut fields = node.fields()?;
    let mut wanted = RouteMatch { path: path(&mut fields)?, ..RouteMatch::default() };
    if let Some(sensitive) = fields.take("case_sensitive")
        && sensitive.value.as_bool() != Some(true)
    {
        return sensitive.fault("paths are compared letter by letter only");
    }
    for header in fields.items("headers")? {
        let (name, value) = self::header(&header)?;
        match (name.as_str(), value) {
            (":method", ValueMatch::Exact(method)) => wanted.method = Some(method),
            (":method" | ":path" | ":authority" | ":scheme", _) => {
                return header.fault("of such a header, nothing but :method can be asked for, and it as a whole");
            }
            (_, value) => {
                header.usable(syntax::header_name(&name))?;
                wanted.headers.push((name, value));
            }
        }
    }
    let query = fields.items("query_parameters")?;
    wanted.query = query.iter().map(parameter).collect::<Result<_>>()?;
    fields.end()?;
    Ok(wanted)
}

fn path(fields: &mut Fields<'_>) -> Result<PathMatch> {
    let kinds: [(&str, Kind); 3] =
        [("prefix", PathMatch::Start), ("path", PathMatch::Exact), ("path_separated_prefix", PathMatch::Prefix)];
    for (name, kind) in kinds {
        if let Some(node) = fields.take(name) {
            let text = node.text()?;
            return if text.starts_with('/') { Ok(kind(text.to_owned())) } else { node.fault("does not begin with /") };
        }
    }
    match fields.take("safe_regex") {
        Some(node) => Ok(PathMatch::Regex(expression(&node)?)),
        None => fields.fault("asks for no path"),
    }
}

/// A `RegexMatcher` that must match all of a text.
fn expression(node: &Node<'_>) -> Result<String> {
    let text = pattern(node)?;
    node.usable(syntax::expression(&text))?;
    Ok(text)
}

/// The expression of a `RegexMatcher`.
pub(super) fn pattern(node: &Node<'_>) -> Result<String> {
    let mut fields = node.fields()?;
    fields.skip(&["google_re2"]);
    let text = fields.required("regex")?.text()?.to_owned();
    node.usable(node.reading.expression())?;
    fields.end()?;
    Ok(text)
}

/// A `HeaderMatcher`.
fn header(node: &Node<'_>) -> Result<(String, ValueMatch)> {
    let mut fields = node.fields()?;
    let inverted = fields.is_set("invert_match")?;
    fields.off(&["treat_missing_header_as_empty"])?;
    let (name, value) = named(fields)?;
    Ok((name, if inverted { inverse(value) } else { value }))
}

/// A header that is not there has no value that could be another, so it takes one to be inverted.
fn inverse(value: ValueMatch) -> ValueMatch {
    match value {
        ValueMatch::Present => ValueMatch::Absent,
        ValueMatch::Absent => ValueMatch::Present,
        other => ValueMatch::Not(Box::new(other)),
    }
}

/// A `QueryParameterMatcher`.
fn parameter(node: &Node<'_>) -> Result<(String, ValueMatch)> {
    match named(node.fields()?)? {
        (_, ValueMatch::Absent) => node.fault("no parameter can be asked to be absent"),
        asked => Ok(asked),
    }
}

fn named(mut fields: Fields<'_>) -> Result<(String, ValueMatch)> {
    let name = fields.required("name")?.text()?.to_owned();
    let value = match fields.take("string_match") {
        Some(value) => text_match(&value)?,
        None => older_match(&mut fields)?,
    };
    fields.end()?;
    Ok((name, value))
}

/// A `StringMatcher`.
fn text_match(node: &Node<'_>) -> Result<ValueMatch> {
    let mut fields = node.fields()?;
    let ignore_case = fields.is_set("ignore_case")?;
    let value = one_of(&mut fields, ["exact", "prefix", "suffix", "contains", "safe_regex"], ignore_case)?;
    fields.end()?;
    value.map_or_else(|| node.fault("asks for nothing"), Ok)
}

/// What headers could be asked for before there were `StringMatcher`s.
fn older_match(fields: &mut Fields<'_>) -> Result<ValueMatch> {
    let names = ["exact_match", "prefix_match", "suffix_match", "contains_match", "safe_regex_match"];
    if let Some(value) = one_of(fields, names, false)? {
        return Ok(value);
    }
    let present = fields.take("present_match").map(|present| present.flag()).transpose()?;
    Ok(if present.unwrap_or(true) { ValueMatch::Present } else { ValueMatch::Absent })
}

fn one_of(fields: &mut Fields<'_>, names: [&str; 5], ignore_case: bool) -> Result<Option<ValueMatch>> {
    let [exact, prefix, suffix, contains, regex] = names;
    if let Some(node) = fields.take(regex) {
        return Ok(Some(ValueMatch::Regex(expression(&node)?)));
    }
    for (name, before, after) in [(exact, "", ""), (prefix, "", ".*"), (suffix, ".*", ""), (contains, ".*", ".*")] {
        let Some(node) = fields.take(name) else { continue };
        let text = node.text()?;
        if name == exact && !ignore_case {
            return Ok(Some(ValueMatch::Exact(text.to_owned())));
        }
        node.usable(node.reading.expression())?;
        let case = if ignore_case { "i" } else { "" };
        let regex = format!("(?s{case}){before}{}{after}", regex::escape(text));
        node.usable(syntax::expression(&regex))?;
        return Ok(Some(ValueMatch::Regex(regex)));
    }
    Ok(None)
}
