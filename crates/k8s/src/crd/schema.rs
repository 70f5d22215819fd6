// SPDX-License-Identifier: Apache-2.0
//! Words to write OpenAPI schemas with, so that a schema reads as the tree it describes.

use serde_json::{Map, Value, json};

/// A schema under construction.
#[derive(Clone, Debug)]
pub(super) struct Schema(Map<String, Value>);

fn of_type(name: &str) -> Schema {
    Schema(Map::new()).with("type", name)
}

pub(super) fn string() -> Schema {
    of_type("string")
}

pub(super) fn boolean() -> Schema {
    of_type("boolean")
}

pub(super) fn integer() -> Schema {
    of_type("integer")
}

pub(super) fn int64() -> Schema {
    integer().format("int64")
}

pub(super) fn date_time() -> Schema {
    string().format("date-time")
}

/// One of these texts.
pub(super) fn one_of<const N: usize>(values: [&str; N]) -> Schema {
    string().with("enum", json!(values.as_slice()))
}

/// A list of items.
pub(super) fn list(items: Schema) -> Schema {
    of_type("array").with("items", Value::Object(items.0))
}

/// An object with any keys.
pub(super) fn map(values: Schema) -> Schema {
    of_type("object").with("additionalProperties", Value::Object(values.0))
}

/// An object with these fields.
pub(super) fn object<const N: usize>(fields: [(&str, Schema); N]) -> Schema {
    let fields: Map<String, Value> =
        fields.into_iter().map(|(name, schema)| (name.to_owned(), Value::Object(schema.0))).collect();
    of_type("object").with("properties", fields)
}

impl Schema {
    pub(super) fn with(mut self, keyword: &str, value: impl Into<Value>) -> Self {
        self.0.insert(keyword.to_owned(), value.into());
        self
    }

    /// Drops the type, for what may have several.
    pub(super) fn without_type(mut self) -> Self {
        self.0.remove("type");
        self
    }

    pub(super) fn format(self, format: &str) -> Self {
        self.with("format", format)
    }

    pub(super) fn pattern(self, pattern: &str) -> Self {
        self.with("pattern", pattern)
    }

    pub(super) fn max_length(self, length: u32) -> Self {
        self.with("maxLength", length)
    }

    pub(super) fn max_items(self, count: u32) -> Self {
        self.with("maxItems", count)
    }

    pub(super) fn range(self, from: u32, to: u32) -> Self {
        self.with("minimum", from).with("maximum", to)
    }

    pub(super) fn not_empty(self) -> Self {
        self.with("minLength", 1)
    }

    pub(super) fn required<const N: usize>(self, fields: [&str; N]) -> Self {
        self.with("required", json!(fields.as_slice()))
    }

    /// Exactly one of these fields must be there.
    pub(super) fn exactly_one<const N: usize>(self, fields: [&str; N]) -> Self {
        self.with("oneOf", fields.map(required).to_vec())
    }

    /// At least one of these fields must be there.
    pub(super) fn at_least_one<const N: usize>(self, fields: [&str; N]) -> Self {
        self.with("anyOf", fields.map(required).to_vec())
    }

    /// More fields, as every object of the API has them at its top.
    pub(super) fn top_level(mut self) -> Value {
        if let Some(Value::Object(fields)) = self.0.get_mut("properties") {
            fields.insert("apiVersion".into(), json!({"type": "string"}));
            fields.insert("kind".into(), json!({"type": "string"}));
            fields.insert("metadata".into(), json!({"type": "object"}));
        }
        Value::Object(self.0)
    }
}

fn required(field: &str) -> Value {
    json!({"properties": {field: {}}, "required": [field]})
}
