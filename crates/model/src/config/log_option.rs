// SPDX-License-Identifier: Apache-2.0
//! How logs are written (`log-opt`).

use super::{Accepts, Form, Value};

/// Go's form of what [`LogOption::parse`] takes.
const PATTERN: &str =
    r#"^[{]?"?(format"?[=:]"?(json|json-ts|text|text-ts)|level"?[=:]"?(debug|info|warn|error))"?[}]?$"#;

/// What is logged at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// One option: `format=json`, or as an entry of a JSON object, which ConfigMaps made for Cilium have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOption {
    /// A line is a JSON object, or else text. Either has the time.
    Json(bool),
    Level(LogLevel),
}

impl Value for LogOption {
    fn form() -> Form {
        Form::new("format=json, format=text, or level=debug, info, warn or error", Accepts::Pattern(PATTERN))
    }

    fn parse(text: &str) -> Option<Self> {
        let entry = text.strip_prefix('{').unwrap_or(text);
        let entry = entry.strip_suffix('}').unwrap_or(entry);
        let (key, value) = entry.split_once(['=', ':'])?;
        let plain = |text: &str| text.strip_prefix('"').unwrap_or(text).strip_suffix('"').unwrap_or(text).to_owned();
        Some(match (plain(key).as_str(), plain(value).as_str()) {
            ("format", "json" | "json-ts") => Self::Json(true),
            ("format", "text" | "text-ts") => Self::Json(false),
            ("level", "debug") => Self::Level(LogLevel::Debug),
            ("level", "info") => Self::Level(LogLevel::Info),
            ("level", "warn") => Self::Level(LogLevel::Warn),
            ("level", "error") => Self::Level(LogLevel::Error),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::words;

    #[test]
    fn options_are_words_or_entries_of_a_json_object() {
        let parse = |text: &str| words(text).into_iter().map(LogOption::parse).collect::<Option<Vec<_>>>();
        let (json, warn) = (LogOption::Json(true), LogOption::Level(LogLevel::Warn));
        for text in ["format=json,level=warn", r#"{"format":"json","level":"warn"}"#, "format=json-ts level=warn"] {
            assert_eq!(parse(text), Some(vec![json, warn]), "{text}");
        }
        assert_eq!(parse(r#"{"format":"text-ts"}"#), Some(vec![LogOption::Json(false)]));
        for text in ["json", "format=xml", "level=loud", "syslog.level=info", "=json", "format="] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
