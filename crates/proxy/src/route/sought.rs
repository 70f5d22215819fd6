// SPDX-License-Identifier: Apache-2.0
//! A request as routes look at it. Of a long query many routes may ask something: it is read once, and only if one does.

use http::{HeaderMap, Method, Uri};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;

/// What a route is sought for.
#[derive(Debug)]
pub(crate) struct Sought<'a> {
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    uri: &'a Uri,
    query: OnceCell<HashMap<Cow<'a, str>, Cow<'a, str>>>,
}

impl<'a> Sought<'a> {
    pub(crate) fn new(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        Self { method, headers, uri, query: OnceCell::new() }
    }

    pub(crate) fn path(&self) -> &'a str {
        self.uri.path()
    }

    /// The value of a query parameter: the first, if there are several.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let text = self.uri.query()?;
        let query = self.query.get_or_init(|| {
            let mut first = HashMap::new();
            for (key, value) in form_urlencoded::parse(text.as_bytes()) {
                first.entry(key).or_insert(value);
            }
            first
        });
        query.get(name).map(Cow::as_ref)
    }
}
