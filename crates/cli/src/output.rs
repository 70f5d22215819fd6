// SPDX-License-Identifier: Apache-2.0
//! `-o json|yaml|jsonpath=...`: output for programs instead of tables.

use crate::jsonpath;
use anyhow::{Context, Result};
use serde::Serialize;

/// The form of the output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// The part that a JSONPath template selects.
    JsonPath(String),
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" | "table" | "wide" | "summary" => Ok(Self::Text),
            "json" | "JSON" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            _ => match text.strip_prefix("jsonpath=") {
                Some(template) => jsonpath::check(template).map(|()| Self::JsonPath(template.to_owned())),
                None => Err("want json, yaml or jsonpath='{...}'".to_owned()),
            },
        }
    }
}

impl Format {
    /// The value in this format; `None` when the output is for people.
    pub(crate) fn structured<T: Serialize + ?Sized>(&self, value: &T) -> Result<Option<String>> {
        Ok(match self {
            Self::Text => None,
            Self::Json => Some(serde_json::to_string_pretty(value)? + "\n"),
            Self::Yaml => Some(serde_saphyr::to_string(&value).context("write YAML")?),
            Self::JsonPath(template) => Some(jsonpath::apply(template, &serde_json::to_value(value)?) + "\n"),
        })
    }

    /// Prints the value in this format, or as `text` formats it.
    pub(crate) fn print<T: Serialize + ?Sized>(&self, value: &T, text: impl FnOnce() -> String) -> Result<()> {
        let shown = self.structured(value)?;
        print!("{}", shown.unwrap_or_else(text));
        Ok(())
    }
}
