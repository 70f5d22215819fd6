// SPDX-License-Identifier: Apache-2.0
//! Schemas: derived from the types, and, where those keep what they do not know as it is, written out in words that read as the tree
//! they describe.
//!
//! A field is required if it is always written. Where the published schema differs from what the type implies, the type says so
//! by `#[schemars(extend("keyword" = value))]`; null takes a keyword away. A default that is published though it is no text is
//! `x-default`.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::{Map, Value, json};

/// The schema of a whole resource.
pub(super) fn of<K: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().for_serialize().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<K>();
    Structural.transform(&mut schema);
    Schema(schema.as_object().cloned().unwrap_or_default()).top_level()
}

/// Leaves what the API server wants: no words for people, no null among the types.
struct Structural;

impl Transform for Structural {
    fn transform(&mut self, schema: &mut schemars::Schema) {
        for keyword in ["title", "description"] {
            schema.remove(keyword);
        }
        if let Some(keywords) = schema.as_object_mut() {
            // Of the defaults that the types have, only texts are published.
            let published = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
            keywords.retain(|keyword, value| !value.is_null() && (keyword != "default" || published(value)));
        }
        if let Some(default) = schema.remove("x-default") {
            schema.insert("default".to_owned(), default);
        }
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|name| name != "null");
            if let [one] = types.as_slice() {
                let one = one.clone();
                schema.insert("type".to_owned(), one);
            }
        }
        transform_subschemas(self, schema);
    }
}

/// A schema under construction.
#[derive(Clone, Debug)]
pub(crate) struct Schema(Map<String, Value>);

fn of_type(name: &str) -> Schema {
    Schema(Map::new()).with("type", name)
}

pub(crate) fn string() -> Schema {
    of_type("string")
}

pub(crate) fn boolean() -> Schema {
    of_type("boolean")
}

pub(crate) fn integer() -> Schema {
    of_type("integer")
}

pub(crate) fn int64() -> Schema {
    integer().format("int64")
}

pub(crate) fn date_time() -> Schema {
    string().format("date-time")
}

/// One of these texts.
pub(crate) fn one_of<const N: usize>(values: [&str; N]) -> Schema {
    string().with("enum", json!(values.as_slice()))
}

/// A list of items.
pub(crate) fn list(items: Schema) -> Schema {
    of_type("array").with("items", Value::Object(items.0))
}

/// An object with any keys.
pub(crate) fn map(values: Schema) -> Schema {
    of_type("object").with("additionalProperties", Value::Object(values.0))
}

/// An object with these fields.
pub(crate) fn object<const N: usize>(fields: [(&str, Schema); N]) -> Schema {
    let fields: Map<String, Value> =
        fields.into_iter().map(|(name, schema)| (name.to_owned(), Value::Object(schema.0))).collect();
    of_type("object").with("properties", fields)
}

impl Schema {
    pub(crate) fn with(mut self, keyword: &str, value: impl Into<Value>) -> Self {
        self.0.insert(keyword.to_owned(), value.into());
        self
    }

    /// Drops the type, for what may have several.
    pub(crate) fn without_type(mut self) -> Self {
        self.0.remove("type");
        self
    }

    pub(crate) fn format(self, format: &str) -> Self {
        self.with("format", format)
    }

    pub(crate) fn pattern(self, pattern: &str) -> Self {
        self.with("pattern", pattern)
    }

    pub(crate) fn max_length(self, length: u32) -> Self {
        self.with("maxLength", length)
    }

    pub(crate) fn max_items(self, count: u32) -> Self {
        self.with("maxItems", count)
    }

    pub(crate) fn range(self, from: u32, to: u32) -> Self {
        self.with("minimum", from).with("maximum", to)
    }

    pub(crate) fn not_empty(self) -> Self {
        self.with("minLength", 1)
    }

    pub(crate) fn required<const N: usize>(self, fields: [&str; N]) -> Self {
        self.with("required", json!(fields.as_slice()))
    }

    /// Exactly one of these fields must be there.
    pub(crate) fn exactly_one<const N: usize>(self, fields: [&str; N]) -> Self {
        self.with("oneOf", fields.map(required).to_vec())
    }

    /// At least one of these fields must be there.
    pub(crate) fn at_least_one<const N: usize>(self, fields: [&str; N]) -> Self {
        self.with("anyOf", fields.map(required).to_vec())
    }

    /// More fields, as every object of the API has them at its top.
    fn top_level(mut self) -> Value {
        if let Some(Value::Object(fields)) = self.0.get_mut("properties") {
            fields.insert("apiVersion".into(), json!({"type": "string"}));
            fields.insert("kind".into(), json!({"type": "string"}));
            fields.insert("metadata".into(), json!({"type": "object"}));
        }
        Value::Object(self.0)
    }
}

impl From<Schema> for schemars::Schema {
    fn from(schema: Schema) -> Self {
        schema.0.into()
    }
}

fn required(field: &str) -> Value {
    json!({"properties": {field: {}}, "required": [field]})
}
