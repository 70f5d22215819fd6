// SPDX-License-Identifier: Apache-2.0
//! Changes of headers, which several levels of a route configuration may ask for.

use super::fields::{Fields, Node, Result};
use l7::{Filters, HeaderChanges, syntax};

/// The changes that an object asks for.
pub(super) fn changes(fields: &mut Fields<'_>) -> Result<Filters> {
    let request = of(fields, "request_headers_to_add", "request_headers_to_remove")?;
    let response = of(fields, "response_headers_to_add", "response_headers_to_remove")?;
    Ok(Filters { request, response, ..Filters::default() })
}

fn of(fields: &mut Fields<'_>, add: &str, remove: &str) -> Result<HeaderChanges> {
    let mut changes = HeaderChanges::default();
    for node in fields.items(remove)? {
        let name = node.text()?;
        node.usable(syntax::changed_header(name))?;
        changes.remove.push(name.to_owned());
    }
    for node in fields.items(add)? {
        let (pair, replaces) = option(&node)?;
        if replaces { changes.set.push(pair) } else { changes.add.push(pair) }
    }
    Ok(changes)
}

/// A `HeaderValueOption`: the header, and whether it comes in the place of others.
pub(super) fn option(node: &Node<'_>) -> Result<((String, String), bool)> {
    let mut fields = node.fields()?;
    let mut header = fields.required("header")?.fields()?;
    let (key, value) = (header.required("key")?, header.required("value")?);
    header.end()?;
    fields.off(&["keep_empty_value"])?;
    let replaces = match (fields.text("append_action")?, fields.take("append")) {
        (Some("OVERWRITE_IF_EXISTS_OR_ADD"), None) => true,
        (Some("APPEND_IF_EXISTS_OR_ADD"), None) => false,
        (None, append) => append.is_some_and(|append| append.value.as_bool() == Some(false)),
        (Some(other), _) => return node.fault(format_args!("append_action {other} is not supported")),
    };
    fields.end()?;
    let (name, text) = (key.text()?, plain(&value)?);
    key.usable(syntax::changed_header(name))?;
    value.usable(syntax::header_value(&text))?;
    Ok(((name.to_owned(), text), replaces))
}

/// A value in which nothing stands for something else.
fn plain(node: &Node<'_>) -> Result<String> {
    let text = node.text()?;
    if text.replace("%%", "").contains('%') {
        return node.fault("nothing can stand for something else");
    }
    Ok(text.replace("%%", "%"))
}

/// The changes of an inner level, and after them those of an outer one.
pub(super) fn within(inner: &Filters, outer: &Filters) -> Filters {
    Filters {
        request: after(&inner.request, &outer.request),
        response: after(&inner.response, &outer.response),
        ..inner.clone()
    }
}

fn after(first: &HeaderChanges, then: &HeaderChanges) -> HeaderChanges {
    let same = |one: &str, other: &str| one.eq_ignore_ascii_case(other);
    let removed = |name: &str| then.remove.iter().any(|other| same(other, name));
    let replaced = |name: &str| removed(name) || then.set.iter().any(|(other, _)| same(other, name));
    let kept = |pairs: &[(String, String)]| -> Vec<(String, String)> {
        pairs.iter().filter(|(name, _)| !replaced(name)).cloned().collect()
    };
    HeaderChanges {
        remove: [first.remove.as_slice(), &then.remove].concat(),
        set: [kept(&first.set), then.set.clone()].concat(),
        add: [kept(&first.add), then.add.clone()].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_outer_level_asks_for_comes_after_what_an_inner_one_does() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let inner = HeaderChanges {
            remove: vec!["a".into()],
            set: vec![pair("b", "1"), pair("c", "1")],
            add: vec![pair("d", "1"), pair("e", "1"), pair("f", "1")],
        };
        let outer = HeaderChanges { remove: vec!["B".into()], set: vec![pair("D", "2")], add: vec![pair("e", "2")] };
        let both = HeaderChanges {
            remove: vec!["a".into(), "B".into()],
            set: vec![pair("c", "1"), pair("D", "2")],
            add: vec![pair("e", "1"), pair("f", "1"), pair("e", "2")],
        };
        assert_eq!(after(&inner, &outer), both);
    }
}
